"""All damage in a store, found by reading it once; what is damaged becomes a miss, which the next run then heals."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from runonce.errors import Damaged
from runonce.experiment.manifest import Manifest, Shard
from runonce.store.backend import MARKER, Backend, blob_name, commit_name, listed, manifest_name
from runonce.store.collect import check_record
from runonce.store.commit import DamagedCommit, UnsignedCommit, probe
from runonce.store.folder import FolderBackend
from runonce.store.remove import is_checkpoint, retract
from runonce.store.restore import check_path, read_manifest

Tell = Callable[[str, int], None]  # what is being done, and how much of it is done

_RECORDS = ("w/", "f/", "d/", "l/", "p/")
_EXPIRING = ("l/", "p/")  # a lease runs out by itself; a pin is for its owner to set again


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One object that is not what it was. users: commits and shards that need it. etag: of a damaged commit."""

    name: str
    what: str
    users: Sequence[str] = ()
    etag: str = ""

    @property
    def cache_keys(self) -> list[str]:
        """Keys of the results that cannot be served."""
        names = (self.name, *self.users)
        return sorted({name.rpartition("/")[2] for name in names if name.startswith("c/")})


def verify(backend: Backend, *, tell: Tell = lambda what, number: None) -> Iterator[Damage]:
    """Read all records and all bytes. Raises NewerFormat, StoreError."""
    with closing(_tables()) as db:
        if isinstance(backend, FolderBackend) and (what := backend.marker_fault()):
            yield Damage(name=MARKER, what=what)
        for number, entry in enumerate(listed(backend, "c/")):
            tell("reading results", number)
            yield from _commit(backend, entry.name.rpartition("/")[2], db)
        for prefix in _RECORDS:
            for entry in listed(backend, prefix):
                yield from _record(backend, entry.name, db)
        for prefix in ("m/", "b/"):
            for number, entry in enumerate(listed(backend, prefix)):
                tell("reading files", number)
                yield from _content(backend, entry.name, db)
        yield from _lost(backend, db)


def verify_result(backend: Backend, cache_key: str, *, tell: Tell = lambda what, number: None) -> Iterator[Damage]:
    """One result, and all that it is made of."""
    with closing(_tables()) as db:
        yield from _commit(backend, cache_key, db)
        names = [name for (name,) in db.execute("SELECT DISTINCT blob FROM uses ORDER BY blob")]
        for number, name in enumerate(names):
            tell("reading files", number)
            if backend.stat(name) is not None:
                yield from _content(backend, name, db)
        yield from _lost(backend, db)


def discard(backend: Backend, damage: Damage) -> None:
    """Take out what is damaged, and make a miss of every result that needs it; what is whole stays for a grace."""
    if damage.name == MARKER and isinstance(backend, FolderBackend):
        backend.renew_marker()
    elif damage.etag:
        backend.delete(damage.name, if_match=damage.etag)
    elif not damage.name.startswith(("c/", *_EXPIRING)) and (found := backend.stat(damage.name)) is not None:
        backend.delete(damage.name, version=found.version)
    for name in damage.users:
        if name.startswith("w/"):
            backend.delete(name)
            continue
        try:
            found_commit = probe(backend, name.rpartition("/")[2])
        except DamagedCommit:
            continue  # taken out on its own account
        if found_commit is not None:
            retract(backend, *found_commit, with_shards=damage.name.startswith("b/"))


def _tables() -> sqlite3.Connection:
    """On this machine's disk: memory does not grow with the store."""
    db = sqlite3.connect("")
    db.executescript(
        """
        CREATE TABLE uses (blob TEXT, user TEXT, PRIMARY KEY (blob, user)) WITHOUT ROWID;
        CREATE TABLE seen (blob TEXT PRIMARY KEY) WITHOUT ROWID;
        """
    )
    return db


def _commit(backend: Backend, cache_key: str, db: sqlite3.Connection) -> Iterator[Damage]:
    name = commit_name(cache_key)
    try:
        found = probe(backend, cache_key)
    except UnsignedCommit as error:
        yield Damage(name=name, what=str(error))  # a miss as it is; it can still be signed
        return
    except DamagedCommit as error:
        yield Damage(name=name, what=str(error), etag=error.etag)
        return
    if found is None:
        return  # removed meanwhile
    manifest = manifest_name(found[0].manifest)
    try:
        content = read_manifest(backend, found[0].manifest)
        for file in content.files:
            check_path(file.path)
    except Damaged as error:
        db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (manifest,))
        yield Damage(name=manifest, what=str(error), users=(name,))
        return
    _use(db, content, name)


def _record(backend: Backend, name: str, db: sqlite3.Connection) -> Iterator[Damage]:
    try:
        found = backend.get(name)
        if found is None:
            return
        record = check_record(found[0], name)
        if name.startswith("w/") and not is_checkpoint(name):
            _use(db, Shard.decode(found[0], name=name), name)
        elif name.startswith("w/") and "kind" not in record:
            raise Damaged(f"{name} is damaged: it is no checkpoint record.")
    except Damaged as error:
        yield Damage(name=name, what=str(error))


def _use(db: sqlite3.Connection, content: Manifest | Shard, user: str) -> None:
    rows = ((blob_name(blob), user) for file in content.files for blob in file.blobs)
    db.executemany("INSERT OR IGNORE INTO uses VALUES (?, ?)", rows)


def _content(backend: Backend, name: str, db: sqlite3.Connection) -> Iterator[Damage]:
    """What is named by its digest has it."""
    if db.execute("SELECT 1 FROM seen WHERE blob = ?", (name,)).fetchone():
        return
    db.execute("INSERT INTO seen VALUES (?)", (name,))
    try:
        for _ in backend.read(name, sha256=name.rpartition("/")[2]):
            pass
    except Damaged as error:
        if backend.stat(name) is not None:  # else it was collected meanwhile, or is found lost
            yield Damage(name=name, what=str(error), users=_users(db, name))


def _lost(backend: Backend, db: sqlite3.Connection) -> Iterator[Damage]:
    query = "SELECT DISTINCT blob FROM uses WHERE blob NOT IN (SELECT blob FROM seen) ORDER BY blob"
    for (name,) in list(db.execute(query)):
        if backend.stat(name) is None:  # one stored since the list was made is whole
            yield Damage(name=name, what=f"{name} is lost from {backend.url}.", users=_users(db, name))


def _users(db: sqlite3.Connection, name: str) -> tuple[str, ...]:
    return tuple(user for (user,) in db.execute("SELECT user FROM uses WHERE blob = ? ORDER BY user", (name,)))
