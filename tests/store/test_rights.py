"""The policies of docs/stores.md, on a real server with a key for each: workers do their whole work and can write no result."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from weed import running

from runonce.errors import StoreError
from runonce.experiment.manifest import Shard
from runonce.store.backend import blob_name, commit_name, shard_name, shard_prefix
from runonce.store.collect import Limits, collect
from runonce.store.commit import commit, complete_attempt, probe
from runonce.store.location import parse_location
from runonce.store.publish import publish_shard, republish
from runonce.store.restore import read_manifest, restore
from runonce.store.s3 import S3Backend
from runonce.store.verify import verify

KEY = "ab" * 32
DOCS = Path(__file__).parents[2] / "docs" / "stores.md"


def policies() -> tuple[str, str, dict]:
    """Of workers, of committers and keepers, and the identities of SeaweedFS, as they are printed."""
    blocks = re.findall(r"^```json\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    workers, committers, identities, _ = blocks
    return workers, committers, json.loads(identities)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    workers, committers, printed = policies()
    (own,) = printed["identities"]
    named = [
        {"name": name, "credentials": [{"accessKey": f"{name}key", "secretKey": "secretsecret"}], "policyNames": [name]}
        for name in ("workers-by-policy", "committers")
    ]
    own = own | {"credentials": [{"accessKey": "workerskey", "secretKey": "secretsecret"}]}
    contents = [{"name": "workers-by-policy", "content": workers}, {"name": "committers", "content": committers}]
    with running(tmp_path_factory.mktemp("weed") / "store", identities=(own, *named), policies=contents) as made:
        yield made


@pytest.fixture
def as_(server, monkeypatch):
    """The store as this key sees it, by default that of the tenant of the policies."""

    def opened(name: str, prefix: str = "team-a") -> S3Backend:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ACCESS_KEY_ID", f"{name}key")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "secretsecret")
            patch.setattr("runonce.store.s3_client._session", lambda profile: _session())
            return S3Backend(parse_location(server.url(prefix)))

    return opened


def _session():
    import boto3

    return boto3.session.Session()


def denied(call) -> bool:
    with pytest.raises(StoreError) as caught:
        call()
    return caught.value.reason == "AccessDenied"


def shard(attempt: str, key: str = KEY) -> Shard:
    return Shard(cache_key=key, mode="train", round="r", total=1, attempt=attempt, index=0, files=())


@pytest.mark.parametrize("workers", ["workers", "workers-by-policy"])
def test_workers_do_all_their_work_and_committers_theirs(as_, workers, tmp_path):
    worker, committer, key = as_(workers), as_("committers"), hashlib.sha256(workers.encode()).hexdigest()
    out = tmp_path / "out"
    out.mkdir()
    (out / "big").write_bytes(workers.encode() * 300_000)
    (out / "small").write_text(workers)
    checkpoint = f"{shard_prefix(key, 'r')}1/k/000000000007e/a1/i0"
    worker.put(checkpoint, b"{}")
    assert [entry.name for entry in worker.list(shard_prefix(key, "r"))] == [checkpoint]
    worker.delete(checkpoint)
    publish_shard(worker, out, shard("a1", key))
    assert republish(worker, shard("a2", key))
    shards = complete_attempt(committer, key, "r", attempt="a2")
    made = commit(
        committer, shards, name=workers, parts={"mode": "train"}, params={}, inputs={}, tokens=(), missing=(),
        replaces="", nonce=workers, created=0,
    )  # fmt: skip
    assert probe(worker, key)[0] == made
    restore(worker, read_manifest(worker, made.manifest), tmp_path / "in")
    assert (tmp_path / "in" / "small").read_text() == workers
    assert list(verify(committer)) == []
    collect(committer, Limits(grace=-1.0), delete=True)
    assert list(verify(committer)) == []


@pytest.mark.parametrize("workers", ["workers", "workers-by-policy"])
def test_workers_can_write_no_result_and_take_none_away(as_, workers, tmp_path):
    worker, committer = as_(workers), as_("committers")
    (tmp_path / "x").write_bytes(b"x")
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    names = (
        commit_name(KEY),
        f"n/mine/{KEY}",
        f"l/{KEY}",
        f"p/{KEY}",
        f"d/{KEY}/x",
        f"f/{KEY}/a",
        "s/aa/x",
        "runonce-store.json",
    )
    for name in names:
        committer.put(name, b"{}")
        assert denied(lambda name=name: worker.put(name, b"[]"))
        assert denied(lambda name=name: worker.delete(name))
        assert committer.get(name)[0] == b"{}"
    for name in (f"m/2d/{digest}",):
        committer.put_file(name, tmp_path / "x", sha256=digest)
        assert denied(lambda name=name: worker.put_file(f"m/aa/{digest}", tmp_path / "x", sha256=digest))
        assert denied(lambda name=name: worker.delete(name))
    committer.put_file(blob_name(digest), tmp_path / "x", sha256=digest)
    if workers == "workers-by-policy":  # SeaweedFS' own words have no right to write without one to delete
        assert denied(lambda: worker.delete(blob_name(digest)))
        assert denied(lambda: worker.delete(shard_name(KEY, "r", 1, "a", 0)))
    for name in names:
        committer.delete(name)


@pytest.mark.parametrize("name", ["workers", "workers-by-policy", "committers"])
def test_another_tenant_can_neither_be_read_nor_written(as_, server, name, tmp_path):
    client = server.client()
    for bucket, key in (("records", f"team-b/c/ab/{KEY}"), ("records", "team-b/w/x/i0"), ("blobs", "team-b/b/aa/x")):
        client.put_object(Bucket=bucket, Key=key, Body=b"theirs")
    client.close()
    other = as_(name, "team-b")
    for record in (commit_name(KEY), "w/x/i0"):
        assert denied(lambda record=record: other.get(record))
        assert denied(lambda record=record: other.put(record, b"x"))
        assert denied(lambda record=record: other.delete(record))
    assert denied(lambda: other.stat("b/aa/x"))
    (tmp_path / "x").write_bytes(b"x")
    assert denied(lambda: other.put_file("b/aa/x", tmp_path / "x", sha256="0" * 64))
