"""Collection of 100,000 blobs of a folder store, half of them of no use, beside `find -printf` and `xargs rm` of the same half.

The two plain programs are told beforehand what is to go; a collection has to find it out from 1,000 results, and deletes
each blob only if it is still the one that it saw.
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


def fill(root: Path, names: list[str]) -> None:
    for name in names:
        path = root / blob_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"0123456789abcdef")


def results(backend: FolderBackend, used: list[str]) -> None:
    """Every one of the blobs is a file of a result."""
    each = len(used) // RESULTS
    for i in range(RESULTS):
        files = tuple(File(path=f"{j}", size=16, sha256=used[i * each + j]) for j in range(each))
        shard = Shard(cache_key=digest(f"key {i}"), mode="train", round="r", total=1, attempt="a", index=0, files=files)
        commit(
            backend, [shard], name="x", parts={}, params={}, inputs={}, tokens=(), replaces="", missing=(), nonce="n",
            created=1,
        )  # fmt: skip


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and CPU seconds of this process and its children."""
    started, cpu = time.perf_counter(), cpu_seconds()
    work()
    return time.perf_counter() - started, cpu_seconds() - cpu


def cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def once(folder: Path, number: int) -> tuple[float, ...]:
    """Seconds and CPU seconds of a collection and of the plain programs."""
    backend = FolderBackend(folder / f"{number}")
    names = [digest(f"{number} {i}") for i in range(BLOBS)]
    results(backend, names[::2])
    fill(backend.root, names)
    ours = timed(lambda: collect(backend, Limits(grace=-1.0), delete=True))
    left = sum(1 for _ in backend.list("b/"))
    assert left == BLOBS // 2, left
    fill(backend.root, names[1::2])
    (folder / "unused").write_text("\0".join(str(backend.root / blob_name(name)) for name in names[1::2]))

    def plainly() -> None:
        subprocess.run(["find", backend.root, "-printf", "%p %s %T@\n"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["xargs", "-0", "-a", folder / "unused", "rm"], check=True)

    return *ours, *timed(plainly)


def main() -> None:
    os.fsync = lambda _: None  # type: ignore[assignment]  # filling is not measured, and a collection flushes nothing
    with tempfile.TemporaryDirectory() as name:
        samples = [once(Path(name), number) for number in range(SAMPLES)]
    wall, cpu, plain_wall, plain_cpu = (statistics.median(column) for column in zip(*samples, strict=True))
    ratio = statistics.median(sample[1] / sample[3] for sample in samples)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("100,000 blobs, 50,000 to go        s    CPU s  CPU ratio")
    print(f"gc of a folder store        {wall:8.2f} {cpu:8.2f} {ratio:10.1f}   {memory:.0f} MiB at most")
    print(f"find, and rm of what goes   {plain_wall:8.2f} {plain_cpu:8.2f}")


if __name__ == "__main__":
    main()
