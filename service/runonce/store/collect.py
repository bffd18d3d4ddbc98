"""What nothing needs any more goes, beside running writers and other collectors.

Candidates are listed first; only then the roots are read, so whatever was stored or renewed in between is either a
root's or has another version than the one that is deleted. No clock but the store's is asked.
"""

from __future__ import annotations

import itertools
import json
import re
import sqlite3
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from runonce.errors import Damaged, NewerFormat, StoreError
from runonce.experiment.canonical import canonical
from runonce.experiment.manifest import Commit
from runonce.experiment.seal import FORMAT, unsealed
from runonce.store.backend import CHECK, GRACE_S, Backend, Stat, blob_name, listed, manifest_name, source_name
from runonce.store.commit import UnsignedCommit, probe
from runonce.store.folder import FolderBackend
from runonce.store.remove import is_checkpoint, remove
from runonce.store.results import clear_unfinished

DAY_S = 24 * 3600.0
BATCH = 1000

_DIGEST = re.compile(rb'"(?:source:)?([0-9a-f]{64})"')
_KINDS = {"b": "blobs", "m": "manifests", "s": "sources"}

Tell = Callable[[str, int], None]  # what is being done, and how much of it is done


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds. grace: what is younger is never deleted; less than GRACE_S only where nobody writes.

    unfinished: records of a round without a result, from its newest. failures: failure records. sources: code that was
    sent along and of which no result is there, since it was last sent. retain: results older than this are removed,
    None keeps all. newest_too: also the newest result of a name and mode.
    """

    grace: float = GRACE_S
    unfinished: float = 30 * DAY_S
    failures: float = 7 * DAY_S
    sources: float = 90 * DAY_S
    retain: float | None = None
    newest_too: bool = False


@dataclass
class Collected:
    """What went, or would go: number and bytes by kind. results: `(cache key, name, mode, bytes)` of each removed."""

    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    sizes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    results: list[tuple[str, str, str, int]] = field(default_factory=list)

    def add(self, kind: str, size: int) -> None:
        self.counts[kind] += 1
        self.sizes[kind] += size


def collect(
    backend: Backend, limits: Limits | None = None, *, delete: bool, tell: Tell = lambda what, number: None
) -> Collected:
    """Find and, if asked to, delete. Raises Damaged, and has deleted no blob, where a root cannot be read.

    What results are made of is counted as blobs and manifests only once they are gone for one grace. Where there is
    no store yet, none is made.
    """
    limits = limits or Limits()
    if isinstance(backend, FolderBackend) and not backend.exists():
        return Collected()
    with _Scratch() as scratch:
        collection = _Collection(backend, limits, scratch, delete=delete, tell=tell)
        try:
            collection.list_candidates()
            collection.read_commits()
            collection.retain()
            collection.read_removed()
            collection.read_rounds()
            collection.mark()
        except Damaged as error:
            raise Damaged(f"{error} What it needs cannot be told; `runonce verify` takes it out first.") from error
        for prefix, kind, limit in (
            ("f/", "failures", limits.failures),
            ("l/", "leases", limits.grace),
            ("t/", "clocks", limits.grace),
            (CHECK, "checks", limits.grace),
        ):
            collection.drop_old(prefix, kind, limit)
        collection.sweep()
        collection.drop_superseded()
        return collection.found


class _Scratch:
    """Tables on the disk of this machine: memory does not grow with the store."""

    def __enter__(self) -> sqlite3.Connection:
        self._db = sqlite3.connect("")  # a file without a name, gone when it is closed
        self._db.executescript(
            """
            CREATE TABLE candidates (name TEXT PRIMARY KEY, size INTEGER, version TEXT) WITHOUT ROWID;
            CREATE TABLE commits (key TEXT PRIMARY KEY, name TEXT, mode TEXT, modified REAL, manifest TEXT, round TEXT,
                                  size INTEGER, etag TEXT, kept INTEGER) WITHOUT ROWID;
            CREATE TABLE inputs (key TEXT, manifest TEXT);
            CREATE TABLE manifests (digest TEXT PRIMARY KEY, needed INTEGER) WITHOUT ROWID;
            CREATE TABLE pins (digest TEXT PRIMARY KEY) WITHOUT ROWID;
            """
        )
        return self._db

    def __exit__(self, *_: object) -> None:
        self._db.close()


class _Collection:
    def __init__(self, backend: Backend, limits: Limits, db: sqlite3.Connection, *, delete: bool, tell: Tell) -> None:
        self._backend, self._limits, self._db, self._delete, self._tell = backend, limits, db, delete, tell
        self.found = Collected()
        self._now = clock(backend)

    def list_candidates(self) -> None:
        limits = {"b/": self._limits.grace, "m/": self._limits.grace, "s/": self._limits.sources}
        old = (
            (entry.name, entry.size, entry.version)
            for prefix, limit in limits.items()
            for entry in listed(self._backend, prefix)
            if self._older(entry, limit)
        )
        self._db.executemany("INSERT OR REPLACE INTO candidates VALUES (?, ?, ?)", self._told("listing", old))

    def read_commits(self) -> None:
        for number, entry in enumerate(listed(self._backend, "c/")):
            self._tell("reading results", number)
            found, signed = self._stored(entry.name.rpartition("/")[2])
            if found is None:
                continue  # removed meanwhile, and kept for its grace
            commit, etag = found
            self._db.execute(
                "INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)",
                (commit.cache_key, commit.name, commit.mode, entry.modified, commit.manifest, commit.round, commit.size,
                 etag),
            )  # fmt: skip
            self._db.executemany(
                "INSERT INTO inputs VALUES (?, ?)", [(commit.cache_key, m) for m in commit.inputs.values()]
            )
            self._need(commit.manifest, needed=signed)

    def retain(self) -> None:
        """Remove results beyond the limit: commits alone, so that what they are made of stays for one grace."""
        if self._limits.retain is None:
            return
        for entry in self._backend.list("p/"):
            self._db.executemany("INSERT OR IGNORE INTO pins VALUES (?)", self._digests(entry.name))
        self._db.execute(
            "UPDATE commits SET kept = 0 WHERE modified < ? AND key NOT IN (SELECT digest FROM pins)",
            (self._now - self._limits.retain,),
        )
        if not self._limits.newest_too:
            self._db.execute(
                """UPDATE commits SET kept = 1 WHERE key IN (SELECT key FROM (
                   SELECT key, row_number() OVER (PARTITION BY name, mode ORDER BY modified DESC, key) AS place
                   FROM commits) WHERE place = 1)"""
            )
        # What a result was made from stays as long as the result.
        self._db.execute(
            """UPDATE commits SET kept = 1 WHERE manifest IN (SELECT inputs.manifest FROM inputs
               JOIN commits AS kept ON kept.key = inputs.key WHERE kept.kept)"""
        )
        for key, name, mode, size in self._all("SELECT key, name, mode, size FROM commits WHERE kept = 0"):
            found, _ = self._stored(key) if self._delete else (None, False)
            (etag,) = self._db.execute("SELECT etag FROM commits WHERE key = ?", (key,)).fetchone()
            if self._delete and (found is None or found[1] != etag or not remove(self._backend, *found)):
                continue  # another one by now
            self.found.add("results", size)
            self.found.results.append((key, name, mode, size))

    def _stored(self, key: str) -> tuple[tuple[Commit, str] | None, bool]:
        """The commit with its ETag, and whether it can be believed; one that cannot keeps what there is of it."""
        try:
            return probe(self._backend, key), True
        except UnsignedCommit as error:
            return (error.commit, error.etag), False

    def read_removed(self) -> None:
        for entry in listed(self._backend, "d/"):
            if self._older(entry, self._limits.grace):
                self._drop("removed", entry)
            else:
                self._need(entry.name.rpartition("/")[2], needed=False)

    def read_rounds(self) -> None:
        """Shards and checkpoints, round by round: each either garbage or a root."""
        entries = listed(self._backend, "w/")
        for round_, members in itertools.groupby(entries, key=lambda entry: entry.name.split("/")[1:3]):
            group = list(members)
            self._tell("reading rounds", len(group))
            newest = max(group, key=lambda entry: entry.modified)
            over = self._older(newest, self._limits.unfinished)
            made = self._db.execute("SELECT 1 FROM commits WHERE key = ? AND round = ?", tuple(round_)).fetchone()
            for entry in group:
                done_with = made and is_checkpoint(entry.name) and self._older(newest, self._limits.grace)
                if over or done_with:
                    self._drop("checkpoints" if is_checkpoint(entry.name) else "shards", entry)
                else:
                    self._mark(blob_name(digest) for (digest,) in self._digests(entry.name))

    def drop_old(self, prefix: str, kind: str, limit: float) -> None:
        for entry in self._backend.list(prefix) if prefix == CHECK else listed(self._backend, prefix):
            if self._older(entry, limit):
                self._drop(kind, entry)

    def mark(self) -> None:
        """What results are made of leaves the candidates."""
        for number, (digest, needed) in enumerate(self._all("SELECT digest, needed FROM manifests")):
            self._tell("reading manifests", number)
            self._mark([manifest_name(digest)])
            try:
                named = [found for (found,) in self._digests(manifest_name(digest), digest=digest)]
                self._mark(blob_name(found) for found in named)
                self._mark(source_name(found) for found in named)
            except Damaged:
                if needed:
                    raise

    def sweep(self) -> None:
        """Candidates that nothing marked go."""
        with ThreadPoolExecutor(self._backend.threads) as pool:
            for batch in _batches(self._all("SELECT name, size, version FROM candidates")):
                if self._delete:
                    list(pool.map(lambda row: self._backend.delete(row[0], version=row[2]), batch))
                for name, size, _ in batch:
                    self.found.add(_KINDS[name[0]], size)
                self._tell("deleting" if self._delete else "counting", self.found.counts["blobs"])
        if self._delete and isinstance(self._backend, FolderBackend):
            clear_unfinished(self._backend, older_than_s=DAY_S)
            self._backend.remove_empty_folders()

    def drop_superseded(self) -> None:
        """What was put again later: no version but the newest is ever read."""
        for prefix in ("b/", "m/"):
            for entry in self._backend.superseded(prefix):
                if self._older(entry, self._limits.grace):
                    self._drop("superseded", entry)

    def _need(self, manifest: str, *, needed: bool) -> None:
        self._db.execute(
            "INSERT INTO manifests VALUES (?, ?) "
            "ON CONFLICT (digest) DO UPDATE SET needed = max(needed, excluded.needed)",
            (manifest, needed),
        )

    def _mark(self, names: Iterable[str]) -> None:
        self._db.executemany("DELETE FROM candidates WHERE name = ?", ((name,) for name in names))

    def _digests(self, name: str, *, digest: str = "") -> list[tuple[str]]:
        """Everything in a record that could be a digest. One too many keeps a blob; one too few would lose one."""
        found = self._backend.get(name)
        if found is None and not digest:
            return []
        if found is None:
            raise Damaged(f"{name} is lost from {self._backend.url}.")
        check_record(found[0], name)
        return [(match.decode(),) for match in set(_DIGEST.findall(found[0]))]

    def _drop(self, kind: str, entry: Stat) -> None:
        if self._delete:
            self._backend.delete(entry.name, version=entry.version)
        self.found.add(kind, entry.size)

    def _older(self, entry: Stat, seconds: float) -> bool:
        return self._now - entry.modified > seconds

    def _all(self, query: str) -> Iterator[Any]:
        yield from self._db.execute(query)

    def _told(self, what: str, rows: Iterable[tuple[str, int, str]]) -> Iterator[tuple[str, int, str]]:
        for number, row in enumerate(rows):
            self._tell(what, number)
            yield row


def clock(backend: Backend) -> float:
    """Seconds since 1970 by the clock that gives the store's objects their times."""
    name = f"t/{uuid.uuid4().hex}"
    backend.put(name, canonical({"format": FORMAT, "kind": "clock", "nonce": uuid.uuid4().hex}))
    found = backend.stat(name)
    backend.delete(name)
    if found is None:
        raise StoreError(f"{backend.url} does not keep what it is given.")
    return found.modified


def check_record(data: bytes, name: str) -> Mapping[str, object]:
    """Raises Damaged for what is no record, NewerFormat for one of a later release."""
    try:
        value = json.loads(unsealed(data))
        format_ = int(value["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{name} is damaged: {error!r}.") from error
    if format_ > FORMAT:
        raise NewerFormat(f"{name} has format {format_}; this release knows up to {FORMAT}.")
    record: Mapping[str, object] = value
    return record


def _batches(rows: Iterator[Any]) -> Iterator[list[Any]]:
    while batch := list(itertools.islice(rows, BATCH)):
        yield batch
