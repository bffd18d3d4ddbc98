"""A real S3 server that has no room left: it is named, what is there stays whole, and with more room it goes on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from weed import KEY, SECRET, Weed, running

from runonce.errors import StoreError
from runonce.experiment.manifest import Shard
from runonce.store.backend import Backend
from runonce.store.commit import commit, complete_attempt, probe
from runonce.store.publish import publish_shard
from runonce.store.restore import read_manifest, restore
from runonce.store.url import open_store
from runonce.store.verify import verify

MOST = 100  # results of 4 MiB; there is room for a few


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Weed]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr("runonce.store.s3_client.TRIES", 2)  # each of them takes the server long
    with running(tmp_path / "weed", volumes=4, volume_mib=8) as made:
        yield made


def key_of(number: int) -> str:
    return hashlib.sha256(f"{number}".encode()).hexdigest()


def output(tmp_path: Path, number: int) -> Path:
    folder = tmp_path / "out" / f"{number}"
    if not folder.exists():
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(os.urandom(4 << 20))
        (folder / "log").write_text(f"log {number}")
    return folder


def make(backend: Backend, tmp_path: Path, number: int) -> None:
    shard = Shard(cache_key=key_of(number), mode="train", round="r", total=1, attempt="a", index=0, files=())
    publish_shard(backend, output(tmp_path, number), shard)
    found = complete_attempt(backend, key_of(number), "r")
    assert found is not None
    commit(
        backend, found, name="mine", parts={}, params={}, inputs={}, tokens=(), replaces="", missing=(),
        nonce=f"{number}", created=1,
    )  # fmt: skip


def assert_whole(backend: Backend, tmp_path: Path, number: int) -> None:
    found = probe(backend, key_of(number))
    assert found is not None
    into = tmp_path / "in" / f"{number}"
    restore(backend, read_manifest(backend, found[0].manifest), into)
    for name in ("weights", "log"):
        assert (into / name).read_bytes() == (output(tmp_path, number) / name).read_bytes()


def test_a_full_store_is_named_loses_nothing_and_goes_on_when_it_has_room(server, tmp_path):
    backend = open_store(server.url("full", versioned=False))
    refused = None
    for number in range(MOST):
        try:
            make(backend, tmp_path, number)
        except StoreError as error:
            refused = error
            break
    print(f"{number} results, then: {refused}")
    assert refused is not None
    assert refused.reason in ("StoreFull", "StoreFailed")
    assert "a full disk" in str(refused) or "no room left" in str(refused)
    assert number > 0
    for earlier in range(number):
        assert_whole(backend, tmp_path, earlier)
    assert probe(backend, key_of(number)) is None
    assert list(verify(backend)) == []

    server.kill()
    server.volumes = 40
    server.start()
    make(backend, tmp_path, number)
    for each in range(number + 1):
        assert_whole(backend, tmp_path, each)
