"""SIGKILL before and after every write: what is there then is a miss or a whole result, and a restart makes it whole."""

from __future__ import annotations

import importlib.util
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from runonce.errors import Damaged
from runonce.experiment.manifest import Shard
from runonce.store.backend import blob_name, failure_name, lease_name
from runonce.store.collect import Limits, collect
from runonce.store.commit import commit, complete_attempt, probe
from runonce.store.folder import FolderBackend
from runonce.store.publish import publish_shard
from runonce.store.remove import remove
from runonce.store.restore import read_manifest, restore
from runonce.store.results import link_results
from runonce.store.verify import discard, verify

_spec = importlib.util.spec_from_file_location("crash", Path(__file__).parents[1] / "tools" / "crash.py")
crash = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(crash)

KEY = "cd" * 32
PARTS = {"mode": "train", "params": "p"}

# The number of writes of each piece of work; a change here is a change of the protocol.
POINTS = {
    "publish": 55,
    "commit": 20,
    "overwrite": 62,
    "results": 16,
    "republish": 8,
    "remove": 17,
    "collect": 43,
    "retain": 61,
    "discard": 19,
}


def fill(folder: Path, text: str) -> None:
    for index in (0, 1):
        (folder / f"{index}" / "sub").mkdir(parents=True)
        (folder / f"{index}" / "weights").write_text(f"{text} {index}" * 1000)
        (folder / f"{index}" / "sub" / "log").write_text(f"log {text} {index}")
        (folder / f"{index}" / "empty").write_text("")


def shard(index: int, round_: str, attempt: str) -> Shard:
    return Shard(cache_key=KEY, mode="train", round=round_, total=2, attempt=attempt, index=index, files=())


def publish(backend: FolderBackend, out: Path, *, round_: str = "r-1", attempt: str = "a1") -> None:
    for index in (0, 1):
        publish_shard(backend, out / f"{index}", shard(index, round_, attempt))


def write_commit(backend: FolderBackend, *, round_: str = "r-1", nonce: str = "n", replaces: str = "") -> None:
    shards = complete_attempt(backend, KEY, round_)
    assert shards is not None
    commit(
        backend, shards, name="mine", parts=PARTS, params={}, inputs={}, tokens=(), replaces=replaces, missing=(),
        nonce=nonce, created=1,
    )  # fmt: skip


class Case:
    """A store before the work, the work, and what has to hold after a crash in it and after its repetition."""

    def __init__(self, folder: Path) -> None:
        self.store, self.folder = folder / "store", folder
        fill(folder / "old", "old")
        fill(folder / "new", "new")

    @property
    def backend(self) -> FolderBackend:
        return FolderBackend(self.store)

    def content(self) -> str | None:
        """Which result is there, read in full; None for a miss."""
        found = probe(self.backend, KEY)
        if found is None:
            return None
        into = self.folder / "restored"
        shutil.rmtree(into, ignore_errors=True)
        try:
            restore(self.backend, read_manifest(self.backend, found[0].manifest), into)
        except Damaged:
            return "damaged"
        text = (into / "weights").read_text().split()[0]
        for path, index in ((into, 0), (into / "shard-1", 1)):
            assert (path / "weights").read_text() == f"{text} {index}" * 1000
            assert (path / "sub" / "log").read_text() == f"log {text} {index}"
            assert (path / "empty").read_text() == ""
        return text


def do_publish(case: Case) -> None:
    publish(case.backend, case.folder / "new")


def do_commit(case: Case) -> None:
    write_commit(case.backend)


def do_overwrite(case: Case) -> None:
    """A round of its own, and the commit of the old one replaced."""
    publish(case.backend, case.folder / "new", round_="r-2", attempt="a2")
    found = probe(case.backend, KEY)
    assert found is not None
    if found[0].nonce == "one":
        write_commit(case.backend, round_="r-2", nonce="two", replaces=found[1])


def do_results(case: Case) -> None:
    link_results(case.backend, "mine", probe(case.backend, KEY)[0])


def do_republish(case: Case) -> None:
    from runonce.store.publish import republish

    for index in (0, 1):
        assert republish(case.backend, shard(index, "r-1", "a2"))


def do_remove(case: Case) -> None:
    found = probe(case.backend, KEY)
    if found is not None:
        assert remove(case.backend, *found)


def do_collect(case: Case) -> None:
    collect(case.backend, Limits(grace=-1.0, unfinished=-1.0, failures=-1.0), delete=True)


def do_retain(case: Case) -> None:
    collect(case.backend, Limits(grace=-1.0, retain=-1.0, newest_too=True), delete=True)


def do_discard(case: Case) -> None:
    for damage in list(verify(case.backend)):
        discard(case.backend, damage)


def nothing(case: Case) -> None:
    pass


def published(case: Case) -> None:
    publish(case.backend, case.folder / "new")


def committed_old(case: Case) -> None:
    publish(case.backend, case.folder / "old")
    write_commit(case.backend, nonce="one")


def shown_old(case: Case) -> None:
    committed_old(case)
    link_results(case.backend, "mine", probe(case.backend, KEY)[0])


def with_garbage(case: Case) -> None:
    """A whole result, and beside it an effort that nobody ended, a failure, a lease and files of nothing."""
    committed_old(case)
    publish(case.backend, case.folder / "new", round_="r-0")
    for name in (failure_name(KEY, "x"), lease_name(KEY)):
        case.backend.put(name, b'{"format":1}')


def damaged_old(case: Case) -> None:
    shown_old(case)
    (file,) = [
        f for f in read_manifest(case.backend, probe(case.backend, KEY)[0].manifest).files if f.path == "weights"
    ]
    path = case.store / blob_name(file.sha256)
    path.chmod(0o644)
    path.write_text("damaged")


WORK: dict[str, tuple[Callable[[Case], None], Callable[[Case], None], set[str | None], str | None]] = {
    # before, work, what may be there after a crash, what has to be there after the work is done again
    "publish": (nothing, do_publish, {None}, None),
    "commit": (published, do_commit, {None, "new"}, "new"),
    "overwrite": (committed_old, do_overwrite, {"old", "new"}, "new"),
    "results": (committed_old, do_results, {"old"}, "old"),
    "republish": (published, do_republish, {None}, None),
    "remove": (shown_old, do_remove, {"old", None}, None),
    "collect": (with_garbage, do_collect, {"old"}, "old"),
    "retain": (with_garbage, do_retain, {"old", None}, None),
    "discard": (damaged_old, do_discard, {"damaged", None}, None),
}


@pytest.fixture(autouse=True)
def one_after_another(monkeypatch):
    """With several threads the k-th write would not be the same one each time; SIGKILL loses nothing that was written."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    monkeypatch.setattr(FolderBackend, "threads", 1)


@pytest.mark.parametrize("name", WORK)
def test_a_crash_at_any_write_loses_nothing_and_serves_nothing_half_done(tmp_path, name):
    before, work, allowed, final = WORK[name]
    pattern = Case(tmp_path / "pattern")
    before(pattern)

    def fresh(number: object) -> Case:
        shutil.copytree(pattern.folder, tmp_path / f"{number}", symlinks=True)
        case = Case.__new__(Case)
        case.store, case.folder = tmp_path / f"{number}" / "store", tmp_path / f"{number}"
        return case

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the test runner has threads; the fork only works and dies
        whole = fresh("whole")
        points = crash.count(lambda: work(whole), str(whole.store))
        print(f"{name}: {points} points")
        for number in range(points):
            case = fresh(number)
            crash.die_at(number, lambda case=case: work(case), str(case.store))
            assert case.content() in allowed, f"after a crash before write {number}"
            work(case)
            assert case.content() == final, f"after write {number} and a restart"
            if name == "collect":
                assert sorted(entry.name[0] for prefix in "wfl" for entry in case.backend.list(f"{prefix}/")) == []
            if name in ("remove", "discard", "retain"):
                assert [path for path in case.store.glob("results/*") if not path.name.startswith(".")] == []
                assert list(verify(case.backend)) == []
            if name == "publish":
                assert complete_attempt(case.backend, KEY, "r-1") is not None
            if name == "results":
                (shown,) = (path for path in (case.store / "results").iterdir() if not path.name.startswith("."))
                assert (shown / "weights").read_text() == "old 0" * 1000
            shutil.rmtree(case.folder)
    assert points == POINTS[name]
