"""Publish and verified restore through the folder store beside `cp -r` of the same files, in turns, medians of ratios.

Publishing hashes every file, copies it, and puts it on the disk (fsync) before a record names it; restoring hashes again.
`cp -r` does none of this, and so `cp -r` with `sync -d` of every file stands beside it too.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from runonce.experiment.manifest import Shard, merge
from runonce.store.folder import FolderBackend
from runonce.store.publish import publish_shard
from runonce.store.restore import restore

SAMPLES = 5
ROWS = {"1000 × 64 KiB": (1000, 64 << 10), "10 × 100 MiB": (10, 100 << 20)}


def timed(work: Callable[[], object]) -> float:
    os.sync()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def once(folder: Path, store: Path) -> dict[str, tuple[float, float]]:
    """Ours and theirs of each row, in seconds."""
    backend = FolderBackend(store)
    shard = Shard(cache_key="ab" * 32, mode="train", round="r", total=1, attempt="a", index=0, files=())
    made: list[Shard] = []
    publish = timed(lambda: made.append(publish_shard(backend, folder / "out", shard)))
    plain = timed(lambda: subprocess.run(["cp", "-r", folder / "out", folder / "copy"], check=True))
    on_disk = plain + timed(lambda: subprocess.run(["sync", "-d", *(folder / "copy").iterdir()], check=True))
    manifest = merge(made, name="x", parts={}, params={})
    back = timed(lambda: restore(backend, manifest, folder / "back"))
    for path in (store, folder / "copy", folder / "back"):
        shutil.rmtree(path)
    return {"publish": (publish, plain), "publish, cp on disk": (publish, on_disk), "restore": (back, plain)}


def main() -> None:
    print(f"{'folder store':33} {'ours s':>8} {'cp s':>8} {'ratio':>6}")
    for row, (number, size) in ROWS.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "out").mkdir()
            for i in range(number):
                (folder / "out" / f"{i}").write_bytes(os.urandom(size))
            samples = [once(folder, folder / f"store{i}") for i in range(SAMPLES)]
        for what in samples[0]:
            pairs = [sample[what] for sample in samples]
            ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(one / two for one, two in pairs)
            print(f"{row + ' ' + what:33} {ours:8.3f} {theirs:8.3f} {ratio:6.2f}")


if __name__ == "__main__":
    main()
