"""Collectors beside those who write: nothing that a result relies on is lost, whoever comes first."""

from __future__ import annotations

import io
import os
import random
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import pytest
from stored import EVERYTHING, key_of

from runonce.api.hand_over import send_code
from runonce.errors import Damaged
from runonce.experiment.manifest import Shard
from runonce.store.backend import (
    GRACE_S,
    blob_name,
    manifest_name,
    source_name,
)
from runonce.store.collect import Limits, clock, collect
from runonce.store.commit import commit, probe
from runonce.store.publish import publish_shard, store_file, store_files
from runonce.store.restore import read_manifest, restore


def test_no_acknowledged_result_is_lost_to_collectors_beside_its_writer(store, monkeypatch):
    """Two collectors; writers that rely on old bytes at that moment. 150 results of bytes that were garbage before."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    labels = [f"l{i}" for i in range(150)]
    for label in labels:
        store.blob(f"weights of {label}")
    store.age(GRACE_S + 60)
    done = threading.Event()

    def work() -> None:
        try:
            for label in random.Random(0).sample(labels, len(labels)):
                store.result(label)
        finally:
            done.set()

    def sweep() -> None:
        while not done.is_set():
            collect(store.backend, delete=True)

    threads = [threading.Thread(target=target) for target in (work, sweep, sweep)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(store.restores(label) for label in labels)


def test_versions_that_were_put_again_later_go_and_the_newest_stays(s3, tmp_path, monkeypatch):
    monkeypatch.setattr("runonce.store.s3.RENEW_S", -1.0)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "weights").write_text("kept")
    for attempt in ("a", "b", "c"):
        publish_shard(s3, tmp_path / "out", Shard(
            cache_key=key_of("a"), mode="train", round="r", total=1, attempt=attempt, index=0, files=()))  # fmt: skip
    name = blob_name(key_of("kept"))
    assert [entry.name for entry in s3.superseded("b/")] == [name, name]
    kept = s3.stat(name).version
    assert dict(collect(s3, delete=True).counts) == {}  # they are young
    assert collect(s3, Limits(grace=-1.0), delete=False).counts["superseded"] == 2
    assert collect(s3, Limits(grace=-1.0), delete=True).counts["superseded"] == 2
    assert list(s3.superseded("b/")) == []
    assert s3.stat(name).version == kept
    s3.delete(name)  # as a person does in a console: it can be brought back
    assert list(s3.superseded("b/")) == []


@pytest.mark.parametrize("versions", [True, False])
def test_what_is_stored_again_is_safe_from_a_collector_that_saw_it_before(s3, plain_s3, tmp_path, versions):
    """Another collector has deleted the same bytes meanwhile, so it finds nothing older in the way."""
    backend = s3 if versions else plain_s3
    (tmp_path / "weights").write_text("the same bytes")
    for write in (
        lambda: store_file(backend, tmp_path / "weights"),
        lambda: backend.put(manifest_name(key_of("m")), b"the same bytes"),
    ):
        write()
        (seen,) = [*backend.list("b/"), *backend.list("m/")]
        backend.delete(seen.name, version=seen.version)
        assert backend.stat(seen.name) is None
        write()
        backend.delete(seen.name, version=seen.version)
        assert backend.stat(seen.name).size == len(b"the same bytes")
        backend.delete(seen.name, version=backend.stat(seen.name).version)


def test_a_manifest_with_a_tail_reads_as_it_was_written(plain_s3):
    name = manifest_name(key_of("m"))
    plain_s3.put(name, b"as it is")
    assert plain_s3.get(name)[0] == b"as it is"


ROUNDS = int(os.environ.get("RUNONCE_ROUNDS", "30"))


def test_no_acknowledged_result_is_lost_to_collectors_in_s3(s3, plain_s3, tmp_path, monkeypatch):
    """Writers rely on bytes that were garbage long enough to go at that moment; with versions and without."""
    grace = 10.0
    monkeypatch.setattr("runonce.store.s3.RENEW_S", grace / 2)
    labels = [f"l{number}" for number in range(ROUNDS)]
    for label in labels:
        (tmp_path / label).mkdir()
        (tmp_path / label / "weights").write_text(f"weights of {label}")
        for backend in (s3, plain_s3):
            store_files(backend, tmp_path / label)
    youngest = max(entry.modified for backend in (s3, plain_s3) for entry in backend.list("b/"))
    while clock(s3) - youngest <= grace:
        time.sleep(0.2)
    done, deleted = threading.Event(), []
    took: dict[tuple[str, str], float] = {}  # not longer than RENEW_S: the grace has to be longer than a publish

    def work(backend) -> None:
        for label in random.Random(0).sample(labels, len(labels)):
            started = time.monotonic()
            shard = Shard(cache_key=key_of(label), mode="train", round="r", total=1, attempt="a", index=0, files=())
            commit(
                backend, [publish_shard(backend, tmp_path / label, shard)], name="mine", parts={}, params={}, inputs={},
                tokens=(), replaces="", missing=(), nonce=label, created=1,
            )  # fmt: skip
            took[backend.url, label] = round(time.monotonic() - started, 1)

    def sweep(backend) -> None:
        while not done.is_set():
            deleted.append(collect(backend, Limits(grace=grace), delete=True).counts["blobs"])

    with ThreadPoolExecutor(6) as pool:
        sweeping = [pool.submit(sweep, backend) for backend in (s3, plain_s3) for _ in range(2)]
        try:
            for working in [pool.submit(work, backend) for backend in (s3, plain_s3)]:
                working.result()
        finally:
            done.set()
        for future in sweeping:
            future.result()
    lost = []
    for backend in (s3, plain_s3):
        for label in labels:
            try:
                restore(backend, read_manifest(backend, probe(backend, key_of(label))[0].manifest), tmp_path / "in")
            except Damaged:
                lost.append((label, backend is s3, took[backend.url, label]))
    print(f"a publish and commit took at most {max(took.values())} s")
    print(f"{ROUNDS} rounds in each of two stores, {sum(deleted)} blobs collected meanwhile, {len(lost)} lost")
    assert sum(deleted) > 0
    assert lost == []


def test_code_that_is_sent_again_beside_a_collector_stays(backend, monkeypatch):
    """It sees the old archive, and the new one comes before it deletes."""
    digest = key_of("code")
    monkeypatch.setattr("runonce.author.bundle.pack", lambda spec, folder: (digest, EMPTY_ARCHIVE))
    monkeypatch.setattr("runonce.api.hand_over.completed", lambda located: None)
    located = SimpleNamespace(workdir=None)
    send_code([located], backend.url)
    sent = []

    def tell(what: str, number: int) -> None:
        if what == "reading manifests" and not sent:
            sent.append(send_code([located], backend.url))

    a_result(backend)
    limits = replace(EVERYTHING, sources=-1.0)
    assert collect(backend, limits, delete=True, tell=tell).counts["sources"] == 1
    assert sent
    with zipfile.ZipFile(io.BytesIO(backend.get(source_name(digest))[0])) as archive:
        assert archive.namelist() == []
    collect(backend, limits, delete=True)
    assert backend.stat(source_name(digest)) is None


EMPTY_ARCHIVE = b"PK\x05\x06" + bytes(18)


def a_result(backend) -> None:
    shard = Shard(cache_key=key_of("a"), mode="train", round="r", total=1, attempt="a", index=0, files=())
    commit(
        backend, [shard], name="mine", parts={}, params={}, inputs={}, tokens=(), replaces="", missing=(), nonce="n",
        created=1,
    )  # fmt: skip
