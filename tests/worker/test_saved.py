"""The checkpoint folder of a program, saved while the program goes on changing it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from runonce.errors import StoreError
from runonce.store.folder import FolderBackend
from runonce.store.spans import Span
from runonce.worker import saved
from runonce.worker.saved import SavedFolder


class Disturbed(FolderBackend):
    """`during` is called within every write of bytes."""

    during: Callable[[], object] = staticmethod(lambda: None)

    def put_file(self, name: str, path: Path, *, sha256: str) -> None:
        self.during()
        super().put_file(name, path, sha256=sha256)

    def put_spans(self, name: str, spans: Sequence[Span], *, sha256: str) -> None:
        self.during()
        super().put_spans(name, spans, sha256=sha256)


@pytest.fixture
def store(tmp_path) -> Disturbed:
    return Disturbed(tmp_path / "store")


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "checkpoint"
    path.mkdir()
    return path


@pytest.fixture
def streaming(store, folder, monkeypatch) -> Iterator[SavedFolder]:
    monkeypatch.setattr(saved, "SHORTEST_S", 0.01)
    one = SavedFolder(store, cache_key="ab" * 32, round_="r", total=1, index=0)
    with one.streamed(folder, every_s=0):
        yield one


def restored(one: SavedFolder, into: Path) -> dict[str, str]:
    into.mkdir()
    one.restore(into)
    return {path.name: path.read_text() for path in into.iterdir()}


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def records(store: FolderBackend) -> list[str]:
    return [entry.name for entry in store.list("w/")]


def test_what_is_saved_is_the_folder_as_it_was_at_one_moment(streaming, store, folder, tmp_path):
    """Two files that belong together: while the second is written anew, the first is of another time."""
    number, one_at_a_time = 0, threading.Lock()

    def change() -> None:
        nonlocal number
        with one_at_a_time:
            if number < 20:
                number += 1
                (folder / "model").write_text(str(number) * 1000)

    store.during = change
    (folder / "model").write_text("begun")
    (folder / "optimizer").write_text("begun")
    until(lambda: records(store))
    assert number == 20
    assert restored(streaming, tmp_path / "again") == {"model": "20" * 1000, "optimizer": "begun"}


def test_the_newest_is_what_the_next_attempt_gets(streaming, store, folder, tmp_path):
    for text in ("one", "two"):
        before = records(store) and store.get(records(store)[0])
        (folder / "step").write_text(text)
        until(lambda before=before: records(store) and store.get(records(store)[0]) != before)
    assert restored(streaming, tmp_path / "again") == {"step": "two"}


def test_a_store_that_fails_is_told_of_and_tried_again(streaming, store, folder, capsys):
    failures = [StoreError("it is full"), StoreError("it is full")]

    def fail() -> None:
        if failures:
            raise failures.pop()

    store.during = fail
    (folder / "step").write_text("one")
    until(lambda: records(store))
    assert capsys.readouterr().err.count("warning: the checkpoint folder was not saved: it is full") == 2


def test_a_file_that_goes_while_it_is_saved_is_no_fault(streaming, store, folder, tmp_path):
    store.during = lambda: (folder / "part").unlink(missing_ok=True)
    for name in ("part", "step"):
        (folder / name).write_text(name)
    until(lambda: records(store))
    assert restored(streaming, tmp_path / "again") == {"step": "step"}
