"""SIGKILL before every write that a piece of work makes below a folder, one forked process for each.

A write is what Python's audit events tell of: a file opened for writing, a link, a rename, a new folder, a removal. To die
before write k+1 is to die after write k, so the moments before all writes, and the one after the last, are all there are.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator

EVENTS = {
    "os.link",
    "os.rename",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "os.symlink",
    "os.utime",
    "os.chmod",
    "os.truncate",
}


REQUESTS = "requests"  # in the place of a folder: what is sent to a server counts, head and body of a request apart


def count(work: Callable[[], object], folder: str) -> int:
    """How many writes the work makes; it is done in a process of its own."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        seen = _Writes(folder, die_at=None)
        _finish(work, lambda: os.write(writing, str(seen.number).encode()))
    os.close(writing)
    number = os.read(reading, 20)
    os.close(reading)
    os.waitpid(pid, 0)
    return int(number)


def die_at(number: int, work: Callable[[], object], folder: str) -> None:
    """Do the work in a process that kills itself before the write of this number (from 0)."""
    if (pid := os.fork()) == 0:
        _Writes(folder, die_at=number)
        _finish(work, lambda: None)
    _, status = os.waitpid(pid, 0)
    if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
        raise AssertionError(f"write {number} was never reached (status {status})")


def is_write(event: str, arguments: tuple[object, ...], folder: str) -> bool:
    """Whether an audit event tells of a write below a folder."""
    if event == "open":
        flags = arguments[2]
        if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return False
    elif event not in EVENTS:
        return False
    return any(str(path).startswith(folder) for path in _paths(arguments))


def _finish(work: Callable[[], object], then: Callable[[], object]) -> None:
    try:
        work()
        then()
        os._exit(0)
    except BaseException as error:  # the fork must never come back into the test
        os.write(2, f"{error!r}\n".encode())
        os._exit(1)


class _Writes:
    def __init__(self, folder: str, *, die_at: int | None) -> None:
        self.number, self._folder, self._die_at = 0, folder, die_at
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._folder == REQUESTS:
            if event == "http.client.send":
                self._count()
            return
        if is_write(event, arguments, self._folder):
            self._count()

    def _count(self) -> None:
        if self.number == self._die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.number += 1


def _paths(arguments: tuple[object, ...]) -> Iterator[str]:
    for argument in arguments[:2]:
        if isinstance(argument, str | bytes | os.PathLike):
            yield os.fsdecode(argument)
