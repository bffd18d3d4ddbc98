"""What a process does at its end: its files into the store, then the shard manifest that lists them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from runonce.errors import Fault, InputError, PreconditionFailed
from runonce.experiment.manifest import File, Shard, path_fault
from runonce.store.backend import Backend, blob_name, shard_name, shard_prefix
from runonce.store.moved import Tell, nobody
from runonce.store.packing import store_cut
from runonce.store.restore import read_shard


def publish_shard(backend: Backend, output: Path, shard: Shard, *, moved: Tell = nobody) -> Shard:
    """Store every file below `output` and then the shard manifest; returns it with its files.

    The first success of an index wins. Raises InputError naming every file that cannot be an artifact.
    """
    complete = replace(shard, files=store_files(backend, output, moved=moved))
    _create(backend, complete)
    return complete


def store_files(backend: Backend, output: Path, *, moved: Tell = nobody) -> tuple[File, ...]:
    """Store every file below `output`, in the order of their names. Raises InputError naming each that cannot be."""
    paths = sorted(_files(output))
    faults = [Fault(path, what, "Write it under another name.") for path in paths if (what := path_fault(path))]
    faults += sorted(_odd(output), key=lambda fault: fault.path)
    if faults:
        raise InputError(*(Fault(f.path, f"cannot be an artifact: {f.what}.", f.fix) for f in faults))
    if backend.blob_size is not None:
        return store_cut(backend, output, paths, backend.blob_size, moved=moved)
    # Hashing and waiting for the disk both leave the interpreter to the others.
    with ThreadPoolExecutor(backend.threads) as pool:
        return tuple(pool.map(lambda path: _store(backend, output, path, moved), paths))


def store_file(
    backend: Backend, path: Path, *, name: str | None = None, turns: AbstractContextManager[None] | None = None
) -> File:
    """Store one file, under its own name or another; what of it is there already is not sent. turns: as `store_cut`."""
    if backend.blob_size is not None:
        (file,) = store_cut(backend, path.parent, [path.name], backend.blob_size, turns=turns)
    else:
        file = _store(backend, path.parent, path.name)
    return replace(file, path=name or path.name)


def republish(backend: Backend, shard: Shard) -> bool:
    """Take over what this index published before, in this or an earlier attempt of the same round and total.

    False where there is nothing to take over, or its files are no longer there.
    """
    prefix = f"{shard_prefix(shard.cache_key, shard.round)}{shard.total}/"
    for entry in backend.list(prefix):
        if entry.name.count("/") != prefix.count("/") + 1 or not entry.name.endswith(f"/i{shard.index}"):
            continue
        earlier = read_shard(backend, entry.name)
        if earlier is None:
            continue
        blobs = {blob: None for file in earlier.files for blob in file.blobs}  # many files share one
        if all(backend.stat(blob_name(blob)) for blob in blobs):
            _create(backend, replace(earlier, attempt=shard.attempt))
            return True
    return False


def _create(backend: Backend, shard: Shard) -> None:
    name = shard_name(shard.cache_key, shard.round, shard.total, shard.attempt, shard.index)
    try:
        backend.put(name, shard.encode(), create=True)
    except PreconditionFailed:
        if read_shard(backend, name) is None:  # else an earlier try of this index in the same attempt was complete
            backend.put(name, shard.encode())


def _store(backend: Backend, output: Path, path: str, moved: Tell = nobody) -> File:
    source = output / path
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = os.fstat(file.fileno()).st_size
    backend.put_file(blob_name(digest), source, sha256=digest)
    moved(size)
    return File(path=path, size=size, sha256=digest)


def _files(output: Path) -> Iterator[str]:
    """Regular files, and links to them; a folder without files leaves nothing."""
    for parent, _, names in os.walk(output):
        for name in names:
            if (path := Path(parent) / name).is_file():
                yield path.relative_to(output).as_posix()


def _odd(output: Path) -> Iterator[Fault]:
    for parent, folders, names in os.walk(output):
        for name in (*folders, *names):
            path = Path(parent) / name
            shown = path.relative_to(output).as_posix()
            if path.is_symlink() and not path.is_file():
                yield Fault(shown, "it is a link that leads to no file", "Copy what it should lead to.")
            elif not path.is_symlink() and not stat.S_ISDIR(mode := path.stat().st_mode) and not stat.S_ISREG(mode):
                yield Fault(shown, "it is neither a file nor a folder", "Remove it before the end.")
