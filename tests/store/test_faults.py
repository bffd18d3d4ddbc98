"""A store that dies, and a way to it that cuts and garbles: what was asked for is done, or said not to be; never a wrong byte."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import uuid

import pytest

from runonce.errors import Damaged, PreconditionFailed, StoreError
from runonce.experiment.manifest import Shard
from runonce.store.backend import blob_name
from runonce.store.publish import publish_shard, store_file
from runonce.store.restore import restore_file, restore_files
from runonce.store.url import open_store

KEY = "ab" * 32
MIB = 1 << 20


@pytest.fixture
def behind(weed, proxy):
    """A store that is reached through the proxy."""
    return open_store(weed.url(f"t/{uuid.uuid4().hex}").replace(f":{weed.port}", f":{proxy.port}"))


@pytest.fixture
def big(tmp_path):
    path = tmp_path / "big"
    path.write_bytes(os.urandom(5 * MIB))
    return path


def test_a_download_that_is_cut_again_and_again_goes_on_where_it_stopped(behind, proxy, big, tmp_path):
    file = store_file(behind, big)
    cuts, through = [], [0]

    def cut(data: bytes, passed: int) -> bytes | None:
        if passed > 1.5 * MIB:
            cuts.append(passed)
            return None
        through[0] += len(data)
        return data

    proxy.answers = cut
    restore_file(behind, file, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == big.read_bytes()
    assert len(cuts) >= 3
    assert through[0] < 2 * file.size  # and not from the start each time


def test_an_upload_that_is_cut_is_tried_again(behind, proxy, big, tmp_path):
    cuts = []

    def cut(data: bytes, passed: int) -> bytes | None:
        if passed > MIB and len(cuts) < 2:
            cuts.append(passed)
            return None
        return data

    proxy.requests = cut
    file = store_file(behind, big)
    assert len(cuts) == 2
    restore_file(behind, file, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == big.read_bytes()


def garble_once(at: int):
    done = []

    def garble(data: bytes, passed: int) -> bytes:
        if not done and passed <= at < passed + len(data):
            done.append(at)
            data = data[: at - passed] + bytes([data[at - passed] ^ 1]) + data[at - passed + 1 :]
        return data

    return garble, done


def test_bytes_that_are_garbled_on_the_way_up_are_refused_and_sent_again(behind, proxy, big, tmp_path):
    proxy.requests, done = garble_once(2 * MIB)
    file = store_file(behind, big)
    assert done
    restore_file(behind, file, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == big.read_bytes()


def test_bytes_that_are_garbled_on_the_way_down_are_read_again(behind, proxy, big, tmp_path):
    file = store_file(behind, big)
    proxy.answers, done = garble_once(2 * MIB)
    restore_file(behind, file, tmp_path / "out")
    assert done
    assert (tmp_path / "out").read_bytes() == big.read_bytes()


def test_a_record_that_is_garbled_on_the_way_is_read_again_and_one_that_is_damaged_is_named(behind, proxy):
    behind.put("c/aa/x", b"r" * 2000)
    garbled = []

    def garble(data: bytes, _: int) -> bytes:
        if not garbled and b"r" * 100 in data:
            garbled.append(1)
            return data.replace(b"rrr", b"rsr", 1)
        return data

    proxy.answers = garble
    assert behind.get("c/aa/x")[0] == b"r" * 2000
    assert garbled
    proxy.answers = lambda data, _: data.replace(b"r" * 50, b"s" * 50)
    with pytest.raises(Damaged, match="does not have the checksum"):
        behind.get("c/aa/x")


def test_a_way_that_garbles_all_is_an_error_and_leaves_no_file(behind, proxy, big, tmp_path):
    file = store_file(behind, big)
    proxy.answers = lambda data, passed: data if passed < MIB else bytes(len(data))
    with pytest.raises(Damaged):
        restore_file(behind, file, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["big"]


def test_an_answer_that_comes_too_late_is_asked_for_again_and_what_was_written_is_known_as_ones_own(
    weed, proxy, monkeypatch
):
    """A create-only PUT that the server has carried out is refused when it is sent again."""
    monkeypatch.setattr("runonce.store.s3_client.READ_S", 0.5)
    url = weed.url(f"t/{uuid.uuid4().hex}")
    open_store(url).put("c/aa/other", b"others", create=True)
    late = open_store(url.replace(f":{weed.port}", f":{proxy.port}"))
    late.put("c/aa/first", b"first", create=True)
    delayed: list[bytes] = []
    refused: list[bytes] = []

    def delay(data: bytes, _: int) -> bytes:
        if data.startswith(b"HTTP/1.1 412"):
            refused.append(data)
        if data.startswith(b"HTTP/1.1 200") and len(delayed) < 2:
            delayed.append(data)
            time.sleep(1)
        return data

    proxy.answers = delay
    assert late.get("c/aa/other")[0] == b"others"
    assert len(delayed) == 2
    delayed.clear()
    late.put("c/aa/mine", b"mine", create=True)
    assert (len(delayed) > 0, len(refused) > 0) == (True, True)
    assert late.get("c/aa/mine")[0] == b"mine"
    with pytest.raises(PreconditionFailed):
        late.put("c/aa/other", b"mine", create=True)
    assert late.get("c/aa/other")[0] == b"others"


def test_a_store_that_is_killed_during_a_publish_and_started_again_loses_nothing(tmp_path):
    """Everything that was acknowledged is there, and the publish ends well or can be done again."""
    from weed import KEY as KEY_ID
    from weed import SECRET, running

    out = tmp_path / "out"
    out.mkdir()
    for number in range(6):
        (out / f"{number}").write_bytes(os.urandom(2 * MIB))
    with pytest.MonkeyPatch.context() as patch, running(tmp_path / "weed") as server:
        patch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        backend = open_store(server.url("x"))
        acknowledged: list[str] = []
        third, real = threading.Event(), backend.put_spans

        def put_spans(name, spans, *, sha256):
            real(name, spans, sha256=sha256)
            acknowledged.append(sha256)
            if len(acknowledged) == 3:
                third.set()

        patch.setattr(backend, "put_spans", put_spans)
        shard = Shard(cache_key=KEY, mode="train", round="r", total=1, attempt="a", index=0, files=())
        failed: list[Exception] = []

        def publish() -> None:
            try:
                publish_shard(backend, out, shard)
            except StoreError as error:
                failed.append(error)

        publishing = threading.Thread(target=publish)
        publishing.start()
        assert third.wait(120)
        known = list(acknowledged)
        server.kill()
        server.start()
        publishing.join(300)
        assert not publishing.is_alive()
        for digest in known:
            assert hashlib.sha256(b"".join(backend.read(blob_name(digest), sha256=digest))).hexdigest() == digest
        published = publish_shard(backend, out, shard)
        restore_files(backend, published.files, tmp_path / "in")
        for number in range(6):
            assert (tmp_path / "in" / f"{number}").read_bytes() == (out / f"{number}").read_bytes()
