"""A store that answers 200 to conditions and ignores them: nothing may be lost on it. `rclone serve s3` is such a one."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runonce.errors import PreconditionFailed, StoreError
from runonce.experiment.manifest import Shard
from runonce.store.backend import commit_name
from runonce.store.check import check_store
from runonce.store.commit import commit, probe
from runonce.store.lease import Leases
from runonce.store.publish import publish_shard
from runonce.store.restore import read_manifest, restore
from runonce.store.url import open_store

KEY = "ab" * 32


@pytest.fixture
def weak(tmp_path, weed) -> str:
    """URL of a store below a weak server."""
    (tmp_path / "served" / "bucket").mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    from weed import KEY as KEY_ID
    from weed import SECRET

    arguments = [
        Path(sys.executable).with_name("rclone"), "serve", "s3", "--addr", f"127.0.0.1:{port}",
        "--auth-key", f"{KEY_ID},{SECRET}", "--config", tmp_path / "none", tmp_path / "served",
    ]  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(arguments, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert server.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f"s3://bucket/x?endpoint=http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def make(backend, folder, nonce, **changes):
    folder.mkdir(exist_ok=True)
    (folder / "a").write_text(nonce)
    shard = Shard(cache_key=KEY, mode="train", round="r", total=1, attempt=nonce, index=0, files=())
    published = publish_shard(backend, folder, shard)
    given = {
        "parts": {"mode": "train", "params": "p"}, "params": {}, "inputs": {}, "tokens": (), "replaces": "",
        "missing": (), "created": 1,
    }  # fmt: skip
    return commit(backend, [published], name="mine", nonce=nonce, **(given | changes))


def test_it_is_refused_before_anything_could_be_lost(weak, tmp_path):
    backend = open_store(weak)
    with pytest.raises(StoreError, match="does not honour .*create only where nothing is") as caught:
        make(backend, tmp_path / "out", "one")
    assert caught.value.reason == "ConditionsIgnored"
    with pytest.raises(StoreError, match="does not honour"):
        Leases(backend, "one").hold(KEY)
    assert probe(backend, KEY) is None
    assert list(backend.list("s/")) == []


def test_with_one_writer_at_a_time_no_result_is_ever_overwritten(weak, tmp_path):
    backend = open_store(f"{weak}&conditions=ignored")
    first = make(backend, tmp_path / "out", "one")
    assert make(backend, tmp_path / "out", "two") == first
    etag = probe(backend, KEY)[1]
    assert make(backend, tmp_path / "out", "three", replaces=etag).nonce == "three"
    assert make(backend, tmp_path / "out", "four", replaces=etag).nonce == "three"
    with pytest.raises(PreconditionFailed):
        backend.delete(commit_name(KEY), if_match=etag)
    restore(backend, read_manifest(backend, probe(backend, KEY)[0].manifest), tmp_path / "in")
    assert (tmp_path / "in" / "a").read_text() == "three"


def test_the_table_says_what_it_ignores_and_what_that_costs(weak, weed, tmp_path):
    found = {one.name: one.honoured for one in check_store(open_store(weak))}
    assert [honoured for name, honoured in found.items() if "only" in name] == [False, False, False]
    for url, code in (
        (weak, 1),
        (weed.url("check"), 0),
        (weed.url("check2", versioned=False), 0),
        (str(tmp_path / "f"), 0),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "runonce", "store", "check", url, "-o", "json"], capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        assert json.loads(done.stdout)["fit"] is (code == 0)
    assert all(one.honoured for one in check_store(open_store(weed.url("check"))))


def test_what_was_found_is_kept_so_that_later_writers_ask_once(weed, tmp_path):
    url = weed.url(f"kept/{tmp_path.name}")
    make(open_store(url), tmp_path / "out", "one")
    backend, seen = open_store(url), []
    backend._client.meta.events.register("before-send.s3", lambda request, **_: seen.append(request.url))
    backend.put("c/aa/x", b"", create=True)
    backend.put("c/aa/y", b"", create=True)
    assert len(seen) == 3
    backend.put("runonce-store.json", b'{"format":2}')
    with pytest.raises(StoreError, match="is a store of format 2; this release knows up to 1"):
        open_store(url).put("c/aa/z", b"", create=True)
