"""SIGKILL before every piece of every request: what is in S3 then is a miss or a whole result, and a restart makes it whole."""

from __future__ import annotations

import os
import uuid
import warnings

import crash
import pytest

from runonce.errors import Damaged
from runonce.experiment.manifest import Shard
from runonce.store.backend import Backend, blob_name, failure_name, lease_name
from runonce.store.collect import Limits, collect
from runonce.store.commit import commit, complete_attempt, probe
from runonce.store.publish import publish_shard, republish
from runonce.store.remove import remove
from runonce.store.restore import read_manifest, restore
from runonce.store.url import open_store
from runonce.store.verify import discard, verify

KEY = "cd" * 32

# The number of pieces that are sent of each piece of work; a change here is a change of the protocol.
POINTS = {"publish": 13, "commit": 9, "overwrite": 26, "republish": 10, "collect": 30, "remove": 9, "discard": 29}
PROVED = {"remove", "discard"}  # with `make prove`


@pytest.fixture(autouse=True)
def one_after_another(monkeypatch):
    """With several threads the k-th piece would not be the same one each time."""
    monkeypatch.setattr("runonce.store.s3.S3Backend.threads", 1)


@pytest.fixture
def texts(tmp_path):
    """Of two results, in two processes each: small files, and one that is a blob of its own."""
    for text in ("old", "new"):
        for index in (0, 1):
            folder = tmp_path / text / f"{index}"
            folder.mkdir(parents=True)
            (folder / "name").write_text(text)
            (folder / "empty").write_text("")
            (folder / "weights").write_text(f"{text} {index} " * 150_000)
    return tmp_path


def shard(index: int, round_: str, attempt: str) -> Shard:
    return Shard(cache_key=KEY, mode="train", round=round_, total=2, attempt=attempt, index=index, files=())


def publish(backend: Backend, out, *, round_: str = "r-1", attempt: str = "a1") -> None:
    for index in (0, 1):
        publish_shard(backend, out / f"{index}", shard(index, round_, attempt))


def write_commit(backend: Backend, *, round_: str = "r-1", nonce: str = "n", replaces: str = "") -> None:
    commit(
        backend, complete_attempt(backend, KEY, round_), name="mine", parts={"mode": "train", "params": "p"}, params={},
        inputs={}, tokens=(), replaces=replaces, missing=(), nonce=nonce, created=1,
    )  # fmt: skip


def overwrite(backend: Backend, out) -> None:
    publish(backend, out, round_="r-2", attempt="a2")
    found = probe(backend, KEY)
    if found[0].nonce == "one":
        write_commit(backend, round_="r-2", nonce="two", replaces=found[1])


def content(backend: Backend, into) -> str | None:
    """Which result is there, read in full; None for a miss."""
    found = probe(backend, KEY)
    if found is None:
        return None
    try:
        restore(backend, read_manifest(backend, found[0].manifest), into)
    except Damaged:
        return "damaged"
    text = (into / "name").read_text()
    for path, index in ((into, 0), (into / "shard-1", 1)):
        assert (path / "name").read_text() == text
        assert (path / "weights").read_text() == f"{text} {index} " * 150_000
        assert (path / "empty").read_text() == ""
    return text


def with_garbage(backend: Backend, out) -> None:
    """A whole result, and beside it an effort that nobody ended, a failure, a lease and blobs of nothing."""
    publish(backend, out / "old")
    write_commit(backend, nonce="one")
    publish(backend, out / "new", round_="r-0")
    for name in (failure_name(KEY, "x"), lease_name(KEY)):
        backend.put(name, b'{"format":1}')


def spoil(backend: Backend) -> None:
    (name,) = {blob_name(file.blobs[0]) for file in read_manifest(backend, probe(backend, KEY)[0].manifest).files
               if file.path == "weights"}  # fmt: skip
    backend.put(name, b"damaged")


def clean(backend: Backend) -> None:
    for damage in list(verify(backend)):
        discard(backend, damage)


def do_collect(backend: Backend) -> None:
    collect(backend, Limits(grace=-1.0, unfinished=-1.0, failures=-1.0), delete=True)


def do_remove(backend: Backend) -> None:
    if (found := probe(backend, KEY)) is not None:
        assert remove(backend, *found)


DO = {"collect": do_collect, "remove": do_remove, "discard": clean}


@pytest.mark.parametrize("name", [name for name in POINTS if name not in PROVED or os.environ.get("RUNONCE_PROVE")])
def test_a_crash_at_any_request_loses_nothing_and_serves_nothing_half_done(weed, texts, name):
    def fresh() -> str:
        """A store as it is before the work."""
        url = weed.url(f"crash/{uuid.uuid4().hex}")
        backend = open_store(url)
        backend.put(
            "runonce-store.json", b'{"format":1,"kind":"store"}'
        )  # checked before, as all but the first find it
        if name in ("commit", "republish"):
            publish(backend, texts / "new")
        if name in ("overwrite", "remove", "discard"):
            publish(backend, texts / "old")
            write_commit(backend, nonce="one")
        if name == "collect":
            with_garbage(backend, texts)
        if name == "discard":
            spoil(backend)
        return url

    def work(url: str) -> None:
        backend = open_store(url)
        if name == "publish":
            publish(backend, texts / "new")
        elif name == "commit":
            write_commit(backend)
        elif name == "overwrite":
            overwrite(backend, texts / "new")
        elif name in DO:
            DO[name](backend)
        else:
            assert [republish(backend, shard(index, "r-1", "a2")) for index in (0, 1)] == [True, True]

    before = {"overwrite": "old", "collect": "old", "remove": "old", "discard": "damaged"}.get(name)
    after = {"commit": "new", "overwrite": "new", "collect": "old"}.get(name)
    # Once the damaged version is gone, the one before it is there again: with it the result is whole.
    ends = (after, "old") if name == "discard" else (after,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the test runner has threads; the fork only works and dies
        url = fresh()
        points = crash.count(lambda: work(url), crash.REQUESTS)
        print(f"{name}: {points} points")
        for number in range(points):
            url = fresh()
            crash.die_at(number, lambda url=url: work(url), crash.REQUESTS)
            backend = open_store(url)
            assert content(backend, texts / "in") in (before, *ends), f"after a crash before piece {number}"
            work(url)
            assert content(backend, texts / "in") in ends, f"after piece {number} and a restart"
            if name == "collect":
                assert [entry.name for prefix in "wfl" for entry in backend.list(f"{prefix}/")] == []
            if name in ("remove", "discard"):
                assert list(verify(backend)) == []
            if name in ("publish", "republish"):
                attempt = "a1" if name == "publish" else "a2"
                assert complete_attempt(backend, KEY, "r-1", attempt) is not None
    assert points == POINTS[name]
