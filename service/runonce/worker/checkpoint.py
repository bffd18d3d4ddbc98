"""Checkpoints of a run in the store: a few files a process and step, and small records that say which step is complete.

They belong to a round. A step counts when all processes of one attempt have written their records of it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from runonce.errors import Damaged
from runonce.experiment.manifest import File
from runonce.experiment.seal import read_record, write_record
from runonce.store.backend import Backend, shard_prefix
from runonce.store.publish import store_file
from runonce.store.restore import restore_file

KEEP = 2  # complete steps whose records stay, unless told; what they name is collected with the store's garbage

_NAME = re.compile(r"(?P<total>\d+)/k/(?P<step>\d{12})(?P<boundary>e?)/(?P<attempt>[^/]+)/i(?P<index>\d+)$")


@dataclass(frozen=True, order=True)
class Step:
    """A step that one attempt saved whole. boundary: nothing but `shared` is needed to go on from it."""

    step: int
    boundary: bool
    total: int
    attempt: str

    def name(self, index: int) -> str:
        return f"{self.total}/k/{self.step:012d}{'e' * self.boundary}/{self.attempt}/i{index}"


class Checkpoints:
    """The checkpoints of one process, `index` of `total`. scratch: a folder that only this process writes.

    keep: complete steps that stay.
    """

    def __init__(
        self, backend: Backend, *, cache_key: str, round_: str, total: int, attempt: str, index: int, scratch: Path
    ) -> None:
        self._backend, self._prefix = backend, shard_prefix(cache_key, round_)
        self._total, self._attempt, self._index, self._scratch = total, attempt, index, scratch
        self.keep = KEEP

    def save(
        self,
        parts: Mapping[str, Mapping[str, Any]],
        files: Mapping[str, Path],
        *,
        step: int,
        boundary: bool = False,
        turns: AbstractContextManager[None] | None = None,
    ) -> None:
        """Write this process's states and files; the step counts when every process has written its own.

        turns: what each thread that sends is in.
        """
        stored = []
        for name, state in parts.items():
            path = self._scratch / f"saving-{name}.pt"
            torch.save(dict(state), path)
            stored.append(store_file(self._backend, path, name=f"{name}.pt", turns=turns))
            path.unlink()
        stored += [store_file(self._backend, path, name=name) for name, path in files.items()]
        name = Step(step, boundary, self._total, self._attempt).name(self._index)
        entries = [file.to_json() for file in stored]
        record = write_record("checkpoint", step=step, index=self._index, files=entries)
        self._backend.put(self._prefix + name, record)
        self._forget()

    def newest(self, *, of_any_total: bool = False) -> Iterator[Step]:
        """Complete steps of this number of processes, the newest first; of any_total: boundaries of others too."""
        for step in sorted(self._complete(), reverse=True):
            if step.total == self._total or (of_any_total and step.boundary):
                yield step

    def totals(self) -> list[int]:
        """The numbers of processes that saved anything."""
        return sorted({step.total for step in self._complete()})

    def load(self, step: Step, name: str, *, index: int | None = None) -> dict[str, Any] | None:
        """A state that process `index`, else this one, saved at `step`; None when it did not. Raises Damaged."""
        path = self.fetch(step, f"{name}.pt", self._scratch / f"restored-{name}.pt", index=index)
        if path is None:
            return None
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        path.unlink()
        return state

    def fetch(self, step: Step, name: str, path: Path, *, index: int | None = None) -> Path | None:
        """A file as `load` finds a state."""
        record_name = self._prefix + step.name(self._index if index is None else index)
        found = self._backend.get(record_name)
        if found is None:
            raise Damaged(f"{record_name} is gone from {self._backend.url}.")
        try:
            files = {file.path: file for file in map(File.from_json, read_record(found[0])["files"])}
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(f"{record_name} is damaged: {error!r}.") from error
        if name not in files:
            return None
        restore_file(self._backend, files[name], path)
        return path

    def _complete(self) -> list[Step]:
        parts: dict[Step, int] = defaultdict(int)
        for stat in self._backend.list(self._prefix):
            if match := _NAME.match(stat.name.removeprefix(self._prefix)):
                step = Step(int(match["step"]), bool(match["boundary"]), int(match["total"]), match["attempt"])
                parts[step] += 1
        return [step for step, count in parts.items() if count == step.total]

    def _forget(self) -> None:
        """Drop own records of steps before the newest complete ones, but for the newest boundary."""
        complete = [step for step in sorted(self._complete(), reverse=True) if step.total == self._total]
        if len(complete) < self.keep:
            return
        kept = {*complete[: self.keep], *[step for step in complete if step.boundary][:1]}
        for step in self._own(before=complete[self.keep - 1].step):
            if step not in kept:
                self._backend.delete(self._prefix + step.name(self._index))

    def _own(self, before: int) -> Iterator[Step]:
        """Steps of this process older than `before`, whole or not."""
        for stat in list(self._backend.list(f"{self._prefix}{self._total}/k/")):
            match = _NAME.match(stat.name.removeprefix(self._prefix))
            if match and int(match["index"]) == self._index and int(match["step"]) < before:
                yield Step(int(match["step"]), bool(match["boundary"]), int(match["total"]), match["attempt"])
