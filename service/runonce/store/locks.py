"""Locks in a folder store: flock where one kernel sees all who use it, elsewhere a folder that its holder owns."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, TypeVar

HELD_S = 10.0  # far longer than it takes to compare and write
POLL_S = 0.02

_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)
_GONE = (errno.ENOENT, errno.ESTALE)

T = TypeVar("T")


class Turn:
    """What its holder writes under a lock that nobody can take from it."""

    def place(self, source: Path, target: Path) -> None:
        """Give a file its name. Raises FileNotFoundError where the target's folder is gone."""
        source.rename(target)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)


class TurnLost(Exception):
    """Its holder stood still for so long that another one took over."""


def in_turn(root: Path, work: Callable[[Turn], T], *, local: bool) -> T:
    """Compare and write as one step; who dies meanwhile delays the others by nothing, or by HELD_S.

    work: called again, from its comparison on, by who lost its turn.
    """
    with (root / "lock").open("wb") as file:
        # A shared file system may do without locks; what two machines agree on there is who has a folder.
        with contextlib.suppress(*(() if local else (OSError,))):
            fcntl.flock(file, fcntl.LOCK_EX)
        if local:
            return work(Turn())
        while True:
            with contextlib.suppress(TurnLost), _held(root) as turn:
                return work(turn)


class _Held(Turn):
    """A turn that is taken from who stands still.

    Whatever it does is one rename out of its own folder or into it. Who takes over removes that folder before it has
    the turn, so what comes too late finds nothing to rename, however late it comes.
    """

    def __init__(self, own: Path) -> None:
        self._own = own

    def place(self, source: Path, target: Path) -> None:
        try:
            with contextlib.suppress(FileExistsError):
                os.link(source, self._own / "new")
            os.rename(self._own / "new", target)
        except OSError as error:
            self._lost_or(error)

    def remove(self, path: Path) -> None:
        try:
            os.rename(path, self._own / "gone")
        except OSError as error:
            with contextlib.suppress(FileNotFoundError):
                self._lost_or(error)

    def _lost_or(self, error: OSError) -> NoReturn:
        if error.errno == errno.ESTALE or (error.errno == errno.ENOENT and not self._own.is_dir()):
            raise TurnLost from error
        raise error


@contextlib.contextmanager
def _held(root: Path) -> Iterator[Turn]:
    """Who has the turn has a folder in `held`, and there is never a second one.

    It is brought there by renaming a folder that holds it to `held`, which fails unless `held` is empty or not there.
    Its name is its holder's alone, so that whoever ends a turn, its own or that of a dead one, cannot end another.
    No two clocks are compared: who waits takes over when it has seen the same holder for HELD_S on its own.
    """
    held, scratch, mine = root / "held", root / "tmp", uuid.uuid4().hex
    bringing = scratch / f"{mine}-turn"
    (bringing / mine).mkdir(parents=True)
    seen, since = "", time.monotonic()
    try:
        while not _brought(bringing, held, mine):
            holder = _holder(held)
            if holder != seen:
                seen, since = holder, time.monotonic()
            elif holder and time.monotonic() - since >= HELD_S:
                _end(held / holder, scratch)
            time.sleep(POLL_S)
        yield _Held(held / mine)
    finally:
        for folder in (bringing, held):
            _end(folder / mine, scratch)
            _rmdir(folder)


def _brought(bringing: Path, held: Path, mine: str) -> bool:
    _rmdir(held)  # some services rename over no folder, not even an empty one
    try:
        os.rename(bringing, held)
    except OSError as error:
        if error.errno not in (*_TAKEN, *_GONE):
            raise
    # What lies there counts, not what rename answers: a request that was sent twice finds nothing to rename.
    if (held / mine).is_dir():
        return True
    if not bringing.is_dir():
        raise TurnLost  # it was there, and another one ended it already
    return False


def _holder(held: Path) -> str:
    try:
        return next(iter(os.listdir(held)), "")
    except OSError as error:
        if error.errno not in _GONE:
            raise
        return ""


def _end(own: Path, scratch: Path) -> None:
    """Take everything out, then remove it; what its holder does meanwhile keeps it, and it is ended later.

    A file that somebody reads on this machine may keep its folder on NFS, so it is removed elsewhere.
    """
    try:
        for name in os.listdir(own):
            with contextlib.suppress(FileNotFoundError):
                os.rename(own / name, away := scratch / uuid.uuid4().hex)
                os.unlink(away)
    except OSError as error:
        if error.errno not in _GONE:
            raise
    _rmdir(own)


def _rmdir(path: Path) -> None:
    try:
        os.rmdir(path)
    except OSError as error:
        if error.errno not in (*_TAKEN, *_GONE):
            raise


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
