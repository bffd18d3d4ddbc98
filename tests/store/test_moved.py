"""Transfers tell how far they are and how fast; and how many are under way at a time is a setting."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from runonce.errors import InputError
from runonce.experiment.manifest import Shard
from runonce.settings import Settings
from runonce.store.moved import Moved
from runonce.store.publish import publish_shard
from runonce.store.restore import restore_files
from runonce.store.url import open_store, open_yours

SIZES = {"small": 10, "empty": 0, "large": 3 << 20, "copy": 3 << 20}


def publish(backend, tmp_path, moved):
    out = tmp_path / "out"
    out.mkdir()
    content = os.urandom(3 << 20)
    for name, size in SIZES.items():
        (out / name).write_bytes(content[:size])
    shard = Shard(cache_key="ab" * 32, mode="train", round="r", total=1, attempt="a", index=0, files=())
    return publish_shard(backend, out, shard, moved=moved)


def test_every_byte_of_a_transfer_is_told_once_each_way(backend, tmp_path):
    up, down = [], []
    shard = publish(backend, tmp_path, up.append)
    restore_files(backend, shard.files, tmp_path / "in", moved=down.append)
    assert sum(up) == sum(down) == sum(SIZES.values())
    assert len(down) > 6  # not only at its end


def test_it_is_said_with_bytes_and_rate_and_now_and_then():
    said = []
    moved = Moved("reading", 4_000_000, said.append, every_s=0.0)
    moved(1_000_000)
    moved(500_000)
    assert said[1].startswith("reading: 1.5 MB of 4 MB, ")
    assert said[1].endswith("/s")
    assert moved.text(0.5) == "reading: 1.5 MB of 4 MB, 3 MB/s"
    assert moved.text(0.0).endswith("0 B/s")
    seldom = []
    rare = Moved("reading", 10, seldom.append, every_s=1000.0)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(rare, [1] * 100))
    assert (rare.text(1.0), seldom) == ("reading: 100 B of 10 B, 100 B/s", [])


@pytest.mark.parametrize("text", ["0", "33", "-1", "many", "1.5"])
def test_a_number_of_transfers_that_cannot_be_is_refused(tmp_path, text):
    with pytest.raises(InputError, match="RUNONCE_TRANSFERS: is .* Give a number from 1 to 32"):
        open_store(str(tmp_path / "store"), transfers=text)


def test_no_more_requests_are_under_way_than_the_setting_says(store_url, tmp_path, monkeypatch):
    env = {"RUNONCE_HOME": str(tmp_path), "RUNONCE_STORE": store_url}
    assert open_yours(Settings.from_env(env)).threads == 8
    backend = open_yours(Settings.from_env(env | {"RUNONCE_TRANSFERS": "2"}))
    lock, now, most = threading.Lock(), [0], [0]
    for name in ("put_spans", "put_file"):
        real = getattr(backend, name)

        def counted(*given, real=real, **more):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            try:
                return real(*given, **more)
            finally:
                with lock:
                    now[0] -= 1

        monkeypatch.setattr(backend, name, counted)
    out = tmp_path / "out"
    out.mkdir()
    for number in range(20):
        (out / f"{number}").write_bytes(os.urandom(1 << 20))
    backend.blob_size = backend.blob_size and 1 << 20
    shard = Shard(cache_key="ab" * 32, mode="train", round="r", total=1, attempt="a", index=0, files=())
    publish_shard(backend, out, shard)
    limit = 2 if backend.blob_size else 4  # a folder's put_file calls put_spans
    assert 1 < most[0] <= limit
