"""A turn in a folder that machines share, with one who stands still before each of its calls while another takes over."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from file_systems import Mounted

from runonce.errors import PreconditionFailed
from runonce.store import locks
from runonce.store.backend import RENEW_S
from runonce.store.folder import FolderBackend
from runonce.store.locks import in_turn

CALLS = ("link", "listdir", "mkdir", "rename", "rmdir", "stat", "unlink", "utime")


class Standing:
    """Work in a thread that stands still before its k-th call of the file system, until it is let go."""

    def __init__(self, patch: pytest.MonkeyPatch, number: int, work: Callable[[], object]) -> None:
        self._number, self._work = number, work
        self.calls, self.won = 0, False
        self._stands, self._go = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)
        for name in CALLS:
            patch.setattr(os, name, self._before(getattr(os, name)))

    def __enter__(self) -> Standing:
        self._thread.start()
        assert self._stands.wait(60)
        return self

    def go(self) -> None:
        self._go.set()

    def __exit__(self, *_: object) -> None:
        self.go()
        self._thread.join(60)
        assert not self._thread.is_alive()

    @property
    def stood(self) -> bool:
        return self.calls > self._number

    def _run(self) -> None:
        try:
            self._work()
            self.won = True
        except PreconditionFailed:
            pass
        finally:
            self._stands.set()

    def _before(self, call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object, **options: object) -> object:
            if threading.current_thread() is self._thread:
                self.calls += 1
                if self.calls == self._number + 1:
                    self._stands.set()
                    assert self._go.wait(60)
            return call(*arguments, **options)

        return wrapped


@pytest.fixture
def short_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On NFS, without flock, which would keep the second one out while the first stands still."""

    def refused(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr("runonce.store.filesystem.SYSTEM", Mounted(tmp_path))
    monkeypatch.setattr(fcntl, "flock", refused)
    monkeypatch.setattr(locks, "HELD_S", 0.0)  # who is seen twice may be taken for dead, so each round is the same
    monkeypatch.setattr(locks, "POLL_S", 0.001)


def rounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[int, Path, pytest.MonkeyPatch]]:
    """The number of the call before which one stands, a folder of the round's own, and patches that end with it."""
    for number in range(1000):
        with monkeypatch.context() as patch:
            yield number, tmp_path / f"{number}", patch
    raise AssertionError("its calls have no end")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_of_two_who_take_over_from_a_dead_one_neither_takes_it_from_the_other(short_turns, monkeypatch, tmp_path):
    for number, root, patch in rounds(monkeypatch, tmp_path):
        (root / "held" / "dead").mkdir(parents=True)
        (root / "held" / "dead" / "new").write_text("what it did not come to")
        inside: list[str] = []
        entered, leave = threading.Event(), threading.Event()

        def work(name: str, *, wait: threading.Event | None = None, inside=inside, entered=entered) -> None:
            inside.append(name)
            assert inside == [name]
            if wait is not None:
                entered.set()
                assert wait.wait(60)
            assert inside == [name]
            inside.remove(name)

        def first(root=root, work=work) -> None:
            in_turn(root, lambda _: work("first"), local=False)

        def second(root=root, work=work, leave=leave) -> None:
            in_turn(root, lambda _: work("second", wait=leave), local=False)

        other = threading.Thread(target=second)
        with Standing(patch, number, first) as one:
            other.start()
            assert entered.wait(60)
            patch.setattr(locks, "HELD_S", 600.0)  # the second one works, and nobody may take it for dead
            one.go()
            until(lambda one=one, number=number: one.won or one.calls > number + 30)
            assert inside == ["second"]
            leave.set()
        other.join(60)
        assert one.won
        assert not (root / "held").exists()
        assert os.listdir(root / "tmp") == []
        if not one.stood:
            break
    assert number >= 15


def test_who_stood_still_and_lost_its_turn_replaces_nothing_any_more(short_turns, monkeypatch, tmp_path):
    for number, root, patch in rounds(monkeypatch, tmp_path):
        backend = FolderBackend(root)
        etag = backend.put("c/record", b"old")
        won = False
        with Standing(patch, number, lambda b=backend, etag=etag: b.put("c/record", b"one", if_match=etag)) as one:
            try:
                FolderBackend(root).put("c/record", b"other", if_match=etag)
                won = True
            except PreconditionFailed:
                pass
        assert won is not one.won
        assert backend.get("c/record")[0] == (b"other" if won else b"one")
        if not one.stood:
            break
    assert number >= 15


def test_who_stood_still_and_lost_its_turn_deletes_nothing_that_was_renewed(short_turns, monkeypatch, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    for number, root, patch in rounds(monkeypatch, tmp_path):
        backend = FolderBackend(root)
        backend.put_file("b/blob", source, sha256=digest)
        old = time.time() - 2 * RENEW_S
        os.utime(root / "b" / "blob", (old, old))
        version = backend.stat("b/blob").version
        with Standing(patch, number, lambda b=backend, version=version: b.delete("b/blob", version=version)) as one:
            FolderBackend(root).put_file("b/blob", source, sha256=digest)
        assert one.won
        assert backend.stat("b/blob") is not None, number
        if not one.stood:
            break
    assert number >= 15
