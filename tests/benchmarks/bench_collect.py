"""Collection of 100,000 blobs of a folder store, half of them of no use, beside `find -printf` and `xargs rm` of the same half.

The two plain programs are told beforehand what is to go; a collection has to find it out from 1,000 results.
"""

from __future__ import annotations

import hashlib
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from runonce.experiment.manifest import File, Shard
from runonce.store.backend import blob_name
from runonce.store.collect import Limits, collect
from runonce.store.commit import commit
from runonce.store.folder import FolderBackend

BLOBS, RESULTS, SAMPLES = 100_000, 1_000, 3


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def fill(root: Path) -> tuple[FolderBackend, list[Path]]:
    """Every second blob is a file of a result; returns the others."""
    backend = FolderBackend(root)
    names = [digest(f"{root.name} {i}") for i in range(BLOBS)]
    for name in names:
        path = root / blob_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"0123456789abcdef")
    used, unused = names[::2], names[1::2]
    each = len(used) // RESULTS
    for i in range(RESULTS):
        files = tuple(File(path=f"{j}", size=16, sha256=used[i * each + j]) for j in range(each))
        shard = Shard(cache_key=digest(f"key {i}"), mode="train", round="r", total=1, attempt="a", index=0, files=files)
        commit(
            backend, [shard], name="x", parts={}, params={}, inputs={}, tokens=(), replaces="", missing=(), nonce="n",
            created=1,
        )  # fmt: skip
    return backend, [root / blob_name(name) for name in unused]


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def once(folder: Path, number: int) -> tuple[float, float, float]:
    """Seconds: of a look, of a collection, of the plain programs."""
    backend, _ = fill(folder / f"ours{number}")
    everything = Limits(grace=-1.0)
    looked = timed(lambda: collect(backend, everything, delete=False))
    collected = timed(lambda: collect(backend, everything, delete=True))
    left = sum(1 for _ in backend.list("b/"))
    assert left == BLOBS // 2, left
    other, unused = fill(folder / f"theirs{number}")
    (folder / "unused").write_text("\0".join(map(str, unused)))

    def plainly() -> None:
        subprocess.run(["find", other.root, "-printf", "%p %s %T@\n"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["xargs", "-0", "-a", folder / "unused", "rm"], check=True)

    return looked, collected, timed(plainly)


def main() -> None:
    os.fsync = lambda _: None  # type: ignore[assignment]  # filling is not measured, and a collection flushes nothing
    with tempfile.TemporaryDirectory() as name:
        samples = [once(Path(name), number) for number in range(SAMPLES)]
    looked, collected, plain = (statistics.median(column) for column in zip(*samples, strict=True))
    ratio = statistics.median(ours / theirs for _, ours, theirs in samples)
    print(
        f"{'100,000 blobs, 50,000 to go':28} {'look s':>8} {'gc s':>8} {'find, rm s':>11} {'ratio':>6} {'blobs/s':>8} {'MiB':>5}"
    )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{'folder store':28} {looked:8.2f} {collected:8.2f} {plain:11.2f} {ratio:6.1f} {BLOBS / collected:8.0f} {memory:5.0f}"
    )


if __name__ == "__main__":
    main()
