"""Locks in a folder store: flock where one kernel sees all who use it, elsewhere a file that its holder owns."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

HELD_S = 10.0  # far longer than it takes to compare and write
POLL_S = 0.02


@contextlib.contextmanager
def exclusive(root: Path, *, local: bool) -> Iterator[None]:
    """Compare and write as one step; who dies meanwhile delays the others by nothing, or by HELD_S."""
    with (root / "lock").open("wb") as file:
        # A shared file system may do without locks; what two machines agree on there is who made a file.
        with contextlib.suppress(*(() if local else (OSError,))):
            fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.nullcontext() if local else _held(root / "held"):
            yield


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """No two clocks are compared: who waits takes it when it has seen the same holder for HELD_S on its own."""
    mine = uuid.uuid4().hex.encode()
    seen, since = b"", time.monotonic()
    while not _make(path, mine):
        holder = _read(path)
        if holder is None or holder != seen:
            seen, since = holder or b"", time.monotonic()
        elif time.monotonic() - since >= HELD_S and _read(path) == seen:
            path.unlink(missing_ok=True)
        time.sleep(POLL_S)
    try:
        yield
    finally:
        if _read(path) == mine:
            path.unlink(missing_ok=True)


def _make(path: Path, data: bytes) -> bool:
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        return False
    return True


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


class Flocks:
    """One lock for each key, held as long as this process lives: whoever takes it knows that no other holder does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken: dict[str, int] = {}

    def take(self, key: str) -> bool:
        """Never blocks. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / key
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                there = os.path.samestat(os.fstat(descriptor), path.stat())
            except (BlockingIOError, FileNotFoundError) as error:
                os.close(descriptor)
                if isinstance(error, BlockingIOError):
                    return False
                continue
            if there:
                self._taken[key] = descriptor
                return True
            os.close(descriptor)  # its last holder removed it

    def free(self, key: str) -> None:
        descriptor = self._taken.pop(key, None)
        if descriptor is not None:
            with contextlib.suppress(OSError):
                (self._folder / key).unlink()
            os.close(descriptor)
