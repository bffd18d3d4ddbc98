"""How many requests everything costs, counted as they are sent to a real server: what is in the table of docs/stores.md."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace

import pytest

from runonce.experiment.manifest import Shard
from runonce.store.commit import commit, complete_attempt, probe
from runonce.store.lease import Leases
from runonce.store.publish import publish_shard, republish
from runonce.store.restore import read_manifest, restore
from runonce.store.s3 import S3Backend

KEY = "ab" * 32
MIB = 1 << 20


@pytest.fixture
def store(s3: S3Backend):
    """The store, known to honour conditions, with blobs of 1 MiB; and its requests by name from now on."""
    s3._require_conditions()
    s3.blob_size = MIB
    s3._head("b/aa/missing")  # the first HEAD of a bucket costs one request more
    sent: Counter[str] = Counter()

    def counted(request, event_name, **_: object) -> None:
        sent[event_name.rpartition(".")[2]] += 1

    s3._client.meta.events.register("before-send.s3", counted)
    return s3, sent


def shard(index: int = 0, total: int = 1, attempt: str = "a") -> Shard:
    return Shard(cache_key=KEY, mode="train", round="r", total=total, attempt=attempt, index=index, files=())


def write_commit(backend, shards, **changes):
    given = {
        "parts": {"mode": "train"}, "params": {}, "inputs": {}, "tokens": (), "replaces": "", "missing": (), "created": 1,
        "name": "mine", "nonce": "n",
    }  # fmt: skip
    return commit(backend, shards, **(given | changes))


def fill(tmp_path, **sizes: int):
    (tmp_path / "out").mkdir(exist_ok=True)
    for name, size in sizes.items():
        (tmp_path / "out" / name).write_bytes(os.urandom(size))
    return tmp_path / "out"


def test_a_probe_is_one_request_hit_or_miss(store, tmp_path):
    backend, sent = store
    assert probe(backend, KEY) is None
    assert sent == {"GetObject": 1}
    write_commit(backend, [publish_shard(backend, fill(tmp_path, a=10), shard())])
    sent.clear()
    assert probe(backend, KEY) is not None
    assert sent == {"GetObject": 1}


def test_publish_costs_a_look_and_a_put_a_blob_and_one_put(store, tmp_path):
    backend, sent = store
    out = fill(tmp_path, large=5 * MIB, small=100, other=200)
    publish_shard(backend, out, shard())
    assert sent == {"HeadObject": 6, "PutObject": 6 + 1}  # five cuts and a pack
    sent.clear()
    publish_shard(backend, out, shard(attempt="b"))
    assert sent == {"HeadObject": 6, "PutObject": 1}  # of bytes that are stored nothing is sent
    sent.clear()
    assert republish(backend, shard(attempt="c"))
    assert sent == {"ListObjectsV2": 1, "GetObject": 1, "HeadObject": 6, "PutObject": 1}


def test_commit_costs_a_list_a_get_an_index_and_three_puts(store, tmp_path):
    backend, sent = store
    out = fill(tmp_path, small=100)
    for index in range(4):
        publish_shard(backend, out, shard(index, 4))
    sent.clear()
    write_commit(backend, complete_attempt(backend, KEY, "r"))
    assert sent == {"ListObjectsV2": 1, "GetObject": 4, "PutObject": 3}  # merged manifest, marker of the name, commit


def test_restore_costs_two_gets_and_one_a_blob(store, tmp_path):
    backend, sent = store
    write_commit(backend, [publish_shard(backend, fill(tmp_path, large=3 * MIB, small=100), shard())])
    sent.clear()
    made = probe(backend, KEY)[0]
    restore(backend, read_manifest(backend, made.manifest), tmp_path / "in")
    assert sent == {"GetObject": 2 + 4}


def test_a_lease_costs_two_requests_to_take_and_two_to_give_back(store):
    backend, sent = store
    leases = Leases(backend, "here", ttl_s=1000)
    assert leases.hold(KEY) is None
    assert sent == {"GetObject": 1, "PutObject": 1}
    other = Leases(backend, "there", ttl_s=1000)
    sent.clear()
    assert other.hold(KEY) == "here"
    assert sum(sent.values()) <= 3
    sent.clear()
    leases.release(KEY)
    assert sum(sent.values()) <= 2
    leases.close()
    other.close()


def test_a_thousand_commits_are_one_list(store, tmp_path):
    backend, sent = store
    made = write_commit(backend, [publish_shard(backend, fill(tmp_path, a=10), shard())])
    for number in range(30):
        key = f"{number:064x}"
        backend.put(f"c/{key[:2]}/{key}", replace(made, cache_key=key).encode())
    sent.clear()
    assert len(list(backend.list("c/"))) == 31
    assert sent == {"ListObjectsV2": 1}
