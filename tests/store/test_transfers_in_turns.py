"""Transfers beside a computation go one after the other, and all at once as soon as somebody waits for them."""

from __future__ import annotations

import os
import threading

import pytest

from runonce.store.folder import FolderBackend
from runonce.store.packing import store_cut
from runonce.store.turns import Turns

BLOB = 1 << 20


class Held(FolderBackend):
    """Lets nothing go before it is told; counts who is at it at one time."""

    blob_size, threads = BLOB, 4

    def __init__(self, folder) -> None:
        super().__init__(folder)
        self.go, self.all_in = threading.Event(), threading.Event()
        self.most = self._now = 0
        self._lock = threading.Lock()

    def put_spans(self, name, spans, *, sha256) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            if self._now == self.threads:
                self.all_in.set()
        assert self.go.wait(60)
        super().put_spans(name, spans, sha256=sha256)
        with self._lock:
            self._now -= 1


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "large").write_bytes(os.urandom(6 * BLOB))
    return tmp_path / "out"


def test_one_at_a_time(tmp_path, out):
    backend = Held(tmp_path / "store")
    backend.go.set()
    store_cut(backend, out, ["large"], BLOB, turns=Turns())
    assert backend.most == 1


def test_who_waits_for_them_hurries_all(tmp_path, out):
    backend, turns = Held(tmp_path / "store"), Turns()
    storing = threading.Thread(target=store_cut, args=(backend, out, ["large"], BLOB), kwargs={"turns": turns})
    storing.start()
    turns.hurry()
    assert backend.all_in.wait(60)
    backend.go.set()
    storing.join()
    assert backend.most == backend.threads


def test_a_transfer_that_fails_leaves_its_turn_to_the_next(tmp_path):
    turns = Turns()
    with pytest.raises(OSError, match="full"), turns:
        raise OSError("full")
    with turns:
        pass
