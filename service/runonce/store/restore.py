"""From a result in the store to files in a folder, every byte verified."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
import uuid
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from runonce.errors import Damaged
from runonce.experiment.manifest import File, Manifest, Part, Shard, path_fault
from runonce.store.backend import Backend, blob_name, manifest_name
from runonce.store.moved import Tell, nobody

_SHARD_FOLDER = re.compile(r"shard-\d+/")


def read_manifest(backend: Backend, digest: str) -> Manifest:
    """The merged manifest with this digest. Raises Damaged when it is lost or not what it was."""
    name = manifest_name(digest)
    found = backend.get(name)
    if found is None:
        raise Damaged(f"{name} is lost from {backend.url}.")
    if hashlib.sha256(found[0]).hexdigest() != digest:
        raise Damaged(f"{name} in {backend.url} does not have the digest that is its name.")
    return Manifest.decode(found[0], name=name)


def read_shard(backend: Backend, name: str) -> Shard | None:
    """The shard manifest of this name; None where it is lost or damaged: its process has published nothing then.

    Raises NewerFormat, StoreError.
    """
    try:
        found = backend.get(name)
        return None if found is None else Shard.decode(found[0], name=name)
    except Damaged:
        return None


def restore(backend: Backend, manifest: Manifest, folder: Path, *, moved: Tell = nobody) -> None:
    """Write all files of the result below `folder`. Raises Damaged at the first one that is lost or wrong."""
    for file in manifest.files:
        check_path(file.path)
    restore_files(backend, manifest.files, folder, moved=moved)


def restore_files(backend: Backend, files: Sequence[File], folder: Path, *, moved: Tell = nobody) -> None:
    """Write these files below `folder`, each there only when it is whole. Raises Damaged.

    A blob is read once, whatever it holds of how many files, and verified by the digest that is its name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for parent in {(folder / file.path).parent for file in files}:
        parent.mkdir(parents=True, exist_ok=True)
    targets = [_Target(folder / file.path, len(_parts(file))) for file in files]
    wanted: dict[str, list[_Piece]] = defaultdict(list)
    for file, target in zip(files, targets, strict=True):
        position = 0
        for part in _parts(file):
            wanted[part.blob].append(_Piece(part.offset, part.size, position, target))
            position += part.size
        if position != file.size:
            raise Damaged(f"the parts of {file.path} have {position} bytes, and it {file.size}.")
    try:
        with ThreadPoolExecutor(backend.threads) as pool:
            for future in [pool.submit(_fetch, backend, blob, pieces, moved) for blob, pieces in wanted.items()]:
                try:
                    future.result()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
    finally:
        for target in targets:
            target.abandon()


def restore_file(backend: Backend, file: File, path: Path) -> None:
    """Write one file to `path`. Raises Damaged."""
    restore_files(backend, [replace(file, path=path.name)], path.parent)


def check_path(path: str) -> None:
    """A manifest is data: nothing in it may lead out of the folder."""
    what = path_fault(_SHARD_FOLDER.sub("", path, count=1))
    if what:
        raise Damaged(f"a manifest lists the file {path!r}: {what}.")


class _Target:
    """A file that is renamed into place with its last part."""

    __slots__ = ("_left", "_lock", "_path", "_temporary")

    def __init__(self, path: Path, parts: int) -> None:
        self._path, self._left = path, parts
        self._temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        self._lock = threading.Lock()

    def open(self) -> int:
        return os.open(self._temporary, os.O_WRONLY | os.O_CREAT, 0o666)

    def done(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._temporary.rename(self._path)

    def abandon(self) -> None:
        if self._left:
            self._temporary.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Piece:
    """`size` bytes at `offset` of a blob, and where they go."""

    offset: int
    size: int
    position: int
    target: _Target

    @property
    def end(self) -> int:
        return self.offset + self.size


def _parts(file: File) -> tuple[Part, ...]:
    return file.parts or (Part(blob=file.sha256, offset=0, size=file.size),)


# Of many small calls in several threads each waits for its turn of the interpreter; one after the other they do not.
_SMALL_FILES = threading.Lock()


def _fetch(backend: Backend, blob: str, pieces: Sequence[_Piece], moved: Tell) -> None:
    """A blob that came with the wrong digest is read once more: it may be the way that garbled it."""
    ordered = sorted(pieces, key=lambda piece: piece.offset)
    try:
        _scatter(backend, blob, ordered, moved)
    except Damaged:
        _scatter(backend, blob, ordered, nobody)
    with _SMALL_FILES:
        for piece in ordered:
            piece.target.done()


def _scatter(backend: Backend, blob: str, ordered: Sequence[_Piece], moved: Tell) -> None:
    """Write each piece to its place; only those that reach into the next chunk stay open."""
    waiting = list(reversed(ordered))
    reaching: list[tuple[_Piece, int]] = []
    position = 0
    try:
        for chunk in backend.read(blob_name(blob), sha256=blob):
            end = position + len(chunk)
            many = len(waiting) > 1 and waiting[-2].offset < end
            with _SMALL_FILES if many else contextlib.nullcontext():
                begun, reaching = reaching, []
                while begun or (waiting and waiting[-1].offset < end):
                    piece, descriptor = begun.pop() if begun else _opened(waiting.pop())
                    reaching.append((piece, descriptor))
                    start, stop = max(piece.offset, position), min(piece.end, end)
                    data = chunk[start - position : stop - position]
                    os.pwrite(descriptor, data, piece.position + start - piece.offset)
                    moved(stop - start)
                    if piece.end <= end:
                        os.close(reaching.pop()[1])
            position = end
        for piece in waiting:  # empty ones at the very end, or of an empty blob
            os.close(piece.target.open())
    finally:
        for _, descriptor in reaching:
            os.close(descriptor)
    if max((piece.end for piece in ordered), default=0) > position:
        raise Damaged(f"{blob_name(blob)} in {backend.url} is shorter than a manifest says.")


def _opened(piece: _Piece) -> tuple[_Piece, int]:
    return piece, piece.target.open()
