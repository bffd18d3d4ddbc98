"""Checkpoints beside the loop: copied at once, written later, one at a time."""

from __future__ import annotations

import threading

import pytest
import torch

from runonce.errors import InputError, StoreError
from runonce.store.folder import FolderBackend
from runonce.worker.checkpoint import Checkpoints
from runonce.worker.saving import Saver


class Slow(FolderBackend):
    """Lets files wait, and fails when told to."""

    def __init__(self, root):
        super().__init__(root)
        self.open, self.fails = threading.Event(), False

    def put_file(self, name, path, *, sha256):
        self.open.wait(30)
        if self.fails:
            raise StoreError("the store is away")
        return super().put_file(name, path, sha256=sha256)


@pytest.fixture
def store(tmp_path):
    return Slow(tmp_path / "store")


@pytest.fixture
def checkpoints(store, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Checkpoints(store, cache_key="aa" * 32, round_="r", total=1, attempt="a", index=0, scratch=scratch)


@pytest.fixture
def saver(checkpoints, tmp_path):
    return Saver(checkpoints, log=tmp_path / "metrics.jsonl", scratch=tmp_path / "scratch")


def newest(checkpoints):
    return next(iter(checkpoints.newest()))


def test_what_the_loop_changes_later_is_not_saved(saver, store, checkpoints):
    weight, numbers = torch.zeros(3), [1]
    saver.save({"state": {"weight": weight, "numbers": numbers}}, step=1)
    assert saver.busy
    weight += 1
    numbers.append(2)
    store.open.set()
    saver.close(needed=True)
    state = checkpoints.load(newest(checkpoints), "state")
    assert torch.equal(state["weight"], torch.zeros(3))
    assert state["numbers"] == [1]


def test_transfers_take_turns_until_somebody_waits_for_them(saver, checkpoints, monkeypatch):
    both, alone = threading.Event(), threading.Event()

    def save(parts, files, *, turns, **_):
        def second():
            with turns:
                both.set()

        with turns:
            other = threading.Thread(target=second)
            other.start()
            if not both.wait(0.2):  # that it does not come can only be seen in a while
                alone.set()
            assert both.wait(60)
        other.join()

    monkeypatch.setattr(checkpoints, "save", save)
    saver.save({"state": {}}, step=1)
    assert alone.wait(60)
    assert not both.is_set()
    saver.close(needed=True)
    assert both.is_set()


def test_a_store_that_fails_is_told_of_and_tried_again(saver, store, checkpoints, capsys):
    store.open.set()
    store.fails = True
    saver.save({"state": {"step": 1}}, step=1)
    with pytest.raises(StoreError, match="the store is away"):
        saver.close(needed=True)
    assert "warning: the checkpoint of step 1 was not saved: the store is away" in capsys.readouterr().err
    store.fails = False
    saver.save({"state": {"step": 2}}, step=2)
    saver.close(needed=True)
    assert newest(checkpoints).step == 2


def test_the_log_is_saved_as_it_stood(saver, store, checkpoints, tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text("one\n")
    saver.save({"state": {}}, step=1)
    with log.open("a") as file:  # a log only grows
        file.write("two\n")
    store.open.set()
    saver.close(needed=True)
    found = checkpoints.fetch(newest(checkpoints), "metrics.jsonl", tmp_path / "found")
    assert found.read_text() == "one\n"


def test_what_a_checkpoint_cannot_hold_is_named_with_its_path(saver):
    with pytest.raises(InputError, match=r"optimizer\.hooks\[1\]: is a object; a checkpoint holds tensors"):
        saver.save({"state": {"optimizer": {"hooks": [1, object()]}}}, step=1)
