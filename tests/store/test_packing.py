"""Packs and cuts through a real store: exact bytes back, few requests, and what is there is not sent again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from runonce.errors import Damaged
from runonce.experiment.manifest import Shard
from runonce.store.backend import blob_name
from runonce.store.publish import publish_shard, store_file, store_files
from runonce.store.restore import restore_file, restore_files

KEY = "ab" * 32


def count(backend, monkeypatch) -> list[tuple[str, int]]:
    """Requests and the bytes of their bodies, from now on."""
    seen: list[tuple[str, int]] = []

    def look(request, **_):
        seen.append((request.method, int(request.headers.get("Content-Length", 0))))

    backend._client.meta.events.register("before-send.s3", look)
    return seen


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_of_every_size_come_back_byte_for_byte(backend, tmp_path):
    sizes = (0, 1, 1000, (1 << 20) - 1, 1 << 20, 3_000_000)
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    for number, size in enumerate(sizes):
        (out / f"{number}").write_bytes(os.urandom(size))
        (out / "sub" / f"{number}").write_bytes(os.urandom(size))
    (out / "same").write_bytes((out / "5").read_bytes())
    torch.save({"w": torch.rand(600, 600), "b": torch.rand(10)}, out / "model.pt")
    files = store_files(backend, out)
    assert [file.path for file in files] == sorted(content(out))
    restore_files(backend, files, tmp_path / "in")
    assert content(tmp_path / "in") == content(out)


def test_a_file_above_the_size_of_a_blob_is_cut_and_comes_back(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(s3, "blob_size", 1 << 20)
    data = os.urandom(5 * (1 << 20) + 17)
    (tmp_path / "big").write_bytes(data)
    file = store_file(s3, tmp_path / "big", name="model/weights")
    assert file.path == "model/weights"
    assert [part.size for part in file.parts] == [1 << 20] * 5 + [17]
    restore_file(s3, file, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data


@pytest.mark.parametrize(("size", "blobs"), [(100, 1), (64 << 10, 4)])
def test_a_thousand_small_files_are_published_in_at_most_ten_requests(s3, tmp_path, monkeypatch, size, blobs):
    out = tmp_path / "out"
    out.mkdir()
    for number in range(1000):
        (out / f"{number}").write_bytes(os.urandom(size))
    requests = count(s3, monkeypatch)
    shard = Shard(cache_key=KEY, mode="train", round="r", total=1, attempt="a", index=0, files=())
    published = publish_shard(s3, out, shard)
    assert len(requests) <= 10, requests
    requests.clear()
    restore_files(s3, published.files, tmp_path / "in")
    assert [method for method, _ in requests] == ["GET"] * blobs
    assert content(tmp_path / "in") == content(out)


def test_an_unchanged_tensor_under_another_file_name_is_not_sent(s3, tmp_path, monkeypatch):
    state = {f"layer{i}": torch.rand(512, 1024) for i in range(4)}  # 2 MiB each
    torch.save(state, tmp_path / "step_99.pt")
    store_file(s3, tmp_path / "step_99.pt")
    torch.save(state, tmp_path / "step_100.pt")
    requests = count(s3, monkeypatch)
    file = store_file(s3, tmp_path / "step_100.pt")
    assert sum(size for _, size in requests) < 20_000  # what holds the name, and no tensor
    requests.clear()
    state["layer2"] += 1
    torch.save(state, tmp_path / "step_101.pt")
    store_file(s3, tmp_path / "step_101.pt")
    assert 2 << 20 <= sum(size for _, size in requests) < (2 << 20) + 20_000
    restore_files(s3, [file], tmp_path / "in")
    assert (tmp_path / "in" / "step_100.pt").read_bytes() == (tmp_path / "step_100.pt").read_bytes()


def test_the_folder_keeps_whole_files(folder, tmp_path):
    torch.save({"w": torch.rand(600, 600)}, tmp_path / "model.pt")
    file = store_file(folder, tmp_path / "model.pt")
    assert file.parts == ()
    assert (folder.root / blob_name(file.sha256)).read_bytes() == (tmp_path / "model.pt").read_bytes()


def test_a_file_that_is_still_written_is_refused(s3, tmp_path, monkeypatch):
    (tmp_path / "log").write_bytes(b"x" * 2_000_000)
    real = s3.put_spans

    def append(*given, **named):
        with (tmp_path / "log").open("ab") as file:
            file.write(b"y")
        real(*given, **named)

    monkeypatch.setattr(s3, "put_spans", append)
    with pytest.raises(Damaged, match="was changed while it was stored"):
        store_file(s3, tmp_path / "log")


def test_a_damaged_pack_leaves_no_file_at_all(s3, tmp_path, weed):
    out = tmp_path / "out"
    out.mkdir()
    for number in range(5):
        (out / f"{number}").write_bytes(os.urandom(100))
    files = store_files(s3, out)
    (pack,) = {blob for file in files for blob in file.blobs}
    s3._client.put_object(**s3._at(blob_name(pack)), Body=b"x" * 500)
    with pytest.raises(Damaged, match="has the digest"):
        restore_files(s3, files, tmp_path / "in")
    assert list((tmp_path / "in").iterdir()) == []


MEMORY = """
import sys
from pathlib import Path
from runonce.store.publish import store_file
from runonce.store.restore import restore_files
from runonce.store.url import open_store
backend = open_store(sys.argv[1])
path = Path(sys.argv[2])
restore_files(backend, [store_file(backend, path)], path.parent / "in")
assert (path.parent / "in" / path.name).stat().st_size == path.stat().st_size
# Not ru_maxrss: a child's begins with that of its parent.
line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(line.split()[1]) // 1024)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="only Linux tells what a process held at its most")
def test_memory_does_not_grow_with_the_size_of_a_file(weed, tmp_path):
    """MiB at its most, of a process that stores and restores one file, of 32 and of 200 MiB."""
    most = []
    for size in (32, 200):
        path = tmp_path / f"{size}"
        with path.open("wb") as file:
            for _ in range(size):
                file.write(os.urandom(1 << 20))
        arguments = [sys.executable, "-c", MEMORY, weed.url(f"memory/{size}"), str(path)]
        done = subprocess.run(arguments, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        most.append(int(done.stdout))
        path.unlink()
        (tmp_path / "in" / f"{size}").unlink()
    print(f"{most} MiB")
    assert most[1] < most[0] + 40
    assert most[1] < 150
