"""A result in a store as a value: what it was made from, what it measured, its files."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from runonce.errors import Damaged, InputError, near
from runonce.experiment.key import MODES
from runonce.experiment.manifest import Commit, File, Manifest
from runonce.experiment.metrics import METRICS, Entry, parse_metrics
from runonce.settings import Settings
from runonce.store.backend import Backend
from runonce.store.find import find_named
from runonce.store.folder import FolderBackend, file_digest
from runonce.store.restore import read_manifest, restore
from runonce.store.results import link_results
from runonce.store.url import open_yours

_SHARD = re.compile(r"(?:shard-(\d+)/)?" + re.escape(METRICS))


class Result:
    """One mode of one experiment, as it lies in a store. Nothing is read before it is asked for.

    Everything that reads raises Damaged where the store has lost or changed something, StoreError where it does not
    answer.
    """

    def __init__(self, backend: Backend, commit: Commit, *, settings: Settings | None = None) -> None:
        self._backend, self._commit, self._settings = backend, commit, settings

    @property
    def name(self) -> str:
        """Of the experiment that made it."""
        return self._commit.name

    @property
    def mode(self) -> str:
        return self._commit.mode

    @property
    def cache_key(self) -> str:
        return self._commit.cache_key

    @property
    def commit(self) -> Commit:
        return self._commit

    @property
    def created(self) -> datetime:
        return datetime.fromtimestamp(self._commit.created, UTC)

    @property
    def final(self) -> Mapping[str, float]:
        """The last value of each metric, the mean over the processes that logged it."""
        return {name: float(value) for name, value in self._commit.metrics.items()}

    @cached_property
    def manifest(self) -> Manifest:
        return read_manifest(self._backend, self._commit.manifest)

    @property
    def params(self) -> Mapping[str, Any]:
        """Every field as the run had it, the code's defaults filled in; as a file holds them."""
        facts = self.facts
        return dict(facts[0].get("resolvedParams") or self.manifest.params) if facts else dict(self.manifest.params)

    @property
    def parts(self) -> Mapping[str, Any]:
        """What the cache key is made of."""
        return dict(self.manifest.parts)

    @property
    def facts(self) -> tuple[Mapping[str, Any], ...]:
        """Of each process what was recorded and is in no key: versions, platform, device, seconds."""
        return self.manifest.facts

    @property
    def files(self) -> Mapping[str, int]:
        """Bytes of each file by its path; those of process i > 0 lie below `shard-<i>/`."""
        return {file.path: file.size for file in self.manifest.files}

    @property
    def place(self) -> str:
        """The folder of its files, where the store is one, else its URL with the digest of the manifest."""
        if isinstance(self._backend, FolderBackend):
            return str(link_results(self._backend, self.name, self._commit))
        return f"{self._backend.url}#{self._commit.manifest}"

    def metrics(self) -> list[Entry]:
        """Every entry that was logged, process after process; `pandas.DataFrame(result.metrics())` is a table."""
        found: list[tuple[int, File]] = []
        for file in self.manifest.files:
            match = _SHARD.fullmatch(file.path)
            if match is not None:
                found.append((int(match[1] or 0), file))
        entries: list[Entry] = []
        with healed_by_verify(self._commit), tempfile.TemporaryDirectory(prefix="runonce-") as name:
            restore(self._backend, replace(self.manifest, files=tuple(file for _, file in found)), Path(name))
            for index, file in sorted(found, key=lambda one: one[0]):
                text = (Path(name) / file.path).read_text(encoding="utf-8", errors="replace")
                entries += parse_metrics(text, mode=self.mode, index=index)
        return entries

    def path(self, name: str) -> Path:
        """A file of the result on this machine, every byte verified. To be read; a copy is free to change.

        Raises InputError where the result has no such file.
        """
        file = next((file for file in self.manifest.files if file.path == name), None)
        if file is None:
            what = f"{self.name} {self.mode} {self.cache_key[:12]} has no file {name!r}."
            raise InputError.of("", what, near(name, self.files))
        with healed_by_verify(self._commit):
            return self._on_disk(file)

    def _on_disk(self, file: File) -> Path:
        if isinstance(self._backend, FolderBackend):
            path = link_results(self._backend, self.name, self._commit) / file.path
            if not _is(path, file):
                raise Damaged(f"{path} is not what was published: its bytes were changed in place.")
            return path
        folder = (self._settings or Settings.from_env()).restored / self._commit.manifest
        if not _is(folder / file.path, file):
            restore(self._backend, replace(self.manifest, files=(file,)), folder)
        return folder / file.path

    def __repr__(self) -> str:
        final = "".join(f" {name}={value:.6g}" for name, value in sorted(self._commit.metrics.items()))
        return f"<Result {self.name} {self.mode} {self.cache_key[:12]}{final}>"


@contextlib.contextmanager
def healed_by_verify(commit: Commit) -> Iterator[None]:
    """Around what reads a result: of damage it says what to do."""
    try:
        yield
    except Damaged as error:
        raise Damaged(f"{error} `runonce verify {commit.cache_key[:12]}` makes it a miss; then run again.") from error


def _is(path: Path, file: File) -> bool:
    try:
        return file_digest(path) == file.sha256
    except FileNotFoundError:
        return False


def results(*, name: str, mode: str | None = None, store: str | None = None) -> list[Result]:
    """The results that experiments of this name made, newest first.

    name: as it stands, else `digits` for all of `digits-3f9a12bc` and its like; `*` and `?` as in a shell. mode: only
    this one. store: folder or URL; RUNONCE_STORE, or one of your own, if not given. Raises InputError, StoreError.
    """
    if mode not in (None, *MODES):
        raise InputError.of("mode", f"is {mode!r}, which is none.", near(str(mode), MODES))
    settings = Settings.from_env()
    backend = open_yours(settings, store)
    found = find_named(backend, name)
    return [Result(backend, commit, settings=settings) for commit in found if mode in (None, commit.mode)]
