"""SIGKILL before every piece of every request: what is in S3 then is a miss or a whole result, and a restart makes it whole."""

from __future__ import annotations

import os
import random
import uuid
import warnings
from pathlib import Path

import crash
import numpy
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
POINTS = {"publish": 14, "commit": 9, "overwrite": 27, "republish": 10, "collect": 30, "remove": 9, "discard": 29}
PROVED = {"remove", "discard"}  # with `make prove`

# The same with files that are cut: a plain one at equal sizes, an archive at its entries. `make prove` takes all points.
LARGE = {"publish": 32, "overwrite": 45, "republish": 16}
BLOB, SLICE = 1 << 20, 8


@pytest.fixture(autouse=True)
def one_after_another(monkeypatch):
    """With several threads the k-th piece would not be the same one each time."""
    monkeypatch.setattr("runonce.store.s3.S3Backend.threads", 1)


@pytest.fixture
def texts(tmp_path) -> Path:
    """Of two results, in two processes each: small files, and one that is a blob of its own."""
    for text in ("old", "new"):
        for index in (0, 1):
            folder = tmp_path / text / f"{index}"
            folder.mkdir(parents=True)
            (folder / "name").write_text(text)
            (folder / "empty").write_text("")
            (folder / "weights").write_text(f"{text} {index} " * 150_000)
    return tmp_path


@pytest.fixture
def large_texts(texts, monkeypatch) -> Path:
    monkeypatch.setattr("runonce.store.s3.S3Backend.blob_size", BLOB)
    for number, text in enumerate(("old", "new")):
        for index in (0, 1):
            folder = texts / text / f"{index}"
            drawn = random.Random(2 * number + index)
            (folder / "weights").write_bytes(drawn.randbytes(2 * BLOB + 17))
            arrays = {f"layer{i}": numpy.frombuffer(drawn.randbytes(100_000), dtype="u1") for i in range(3)}
            numpy.savez(folder / "model.npz", **arrays)
    return texts


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


def content(backend: Backend, texts: Path) -> str | None:
    """Which result is there, read in full; None for a miss."""
    found, into = probe(backend, KEY), texts / "in"
    if found is None:
        return None
    try:
        restore(backend, read_manifest(backend, found[0].manifest), into)
    except Damaged:
        return "damaged"
    text = (into / "name").read_text()
    for path, index in ((into, 0), (into / "shard-1", 1)):
        for source in (texts / text / f"{index}").iterdir():
            assert (path / source.name).read_bytes() == source.read_bytes()
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
    assert crash_everywhere(weed, texts, name, most=None) == POINTS[name]


@pytest.mark.parametrize("name", LARGE)
def test_a_crash_at_any_request_for_pieces_of_large_files_is_like_one_for_small_ones(weed, large_texts, name):
    most = None if os.environ.get("RUNONCE_PROVE") else SLICE
    assert crash_everywhere(weed, large_texts, name, most=most) == LARGE[name]


def fresh(weed, texts: Path, name: str) -> str:
    """A store as it is before the work."""
    url = weed.url(f"crash/{uuid.uuid4().hex}")
    backend = open_store(url)
    # Checked before, as all but the first find it.
    backend.put("runonce-store.json", b'{"format":1,"kind":"store"}')
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


def work(url: str, texts: Path, name: str) -> None:
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


def crash_everywhere(weed, texts: Path, name: str, *, most: int | None) -> int:
    """Die before every piece of a request, or before `most` of them that a seed draws; how many there are."""
    before = {"overwrite": "old", "collect": "old", "remove": "old", "discard": "damaged"}.get(name)
    after = {"commit": "new", "overwrite": "new", "collect": "old"}.get(name)
    # Once the damaged version is gone, the one before it is there again: with it the result is whole.
    ends = (after, "old") if name == "discard" else (after,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the test runner has threads; the fork only works and dies
        url = fresh(weed, texts, name)
        points = crash.count(lambda: work(url, texts, name), crash.REQUESTS)
        drawn = range(points) if most is None else sorted(random.Random(name).sample(range(points), most))
        print(f"{name}: {points} points, {len(drawn)} of them tried")
        for number in drawn:
            url = fresh(weed, texts, name)
            crash.die_at(number, lambda url=url: work(url, texts, name), crash.REQUESTS)
            backend = open_store(url)
            assert content(backend, texts) in (before, *ends), f"after a crash before piece {number}"
            work(url, texts, name)
            assert content(backend, texts) in ends, f"after piece {number} and a restart"
            if name == "collect":
                assert [entry.name for prefix in "wfl" for entry in backend.list(f"{prefix}/")] == []
            if name in ("remove", "discard"):
                assert list(verify(backend)) == []
            if name in ("publish", "republish"):
                attempt = "a1" if name == "publish" else "a2"
                shards = complete_attempt(backend, KEY, "r-1", attempt)
                assert shards is not None
                if name == "publish":
                    write_commit(backend)
                    assert content(backend, texts) == "new"
    return points
