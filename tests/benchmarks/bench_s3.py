"""Publish and verified restore through S3 beside s5cmd, rclone, obstore and plain boto3 on the same server, in turns.

Ours hashes every file, writes a record, and verifies all that it reads; the others copy. Ratios are medians of the rates'
ratios of one round, ours to theirs: above 1 is faster than theirs. CPU is the client's own, in seconds.

Then small files again with 10 ms added to each round trip, by a relay that takes CPU of the same machine. Last, how ours
grows: files from 10 on, one file from 1 MiB on, each in a process of its own, with the most that it held.
RUNONCE_FILES and RUNONCE_MIB say how far, RUNONCE_SAMPLES how many rounds.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import boto3
import obstore
from obstore.store import S3Store
from proxy import Proxy
from weed import KEY, RECORDS, REGION, SECRET, Weed, running

from runonce.experiment.manifest import Shard
from runonce.store.publish import publish_shard
from runonce.store.restore import restore_files
from runonce.store.url import open_store

SAMPLES = int(os.environ.get("RUNONCE_SAMPLES", "3"))
MOST_FILES = int(os.environ.get("RUNONCE_FILES", "100000"))
MOST_MIB = int(os.environ.get("RUNONCE_MIB", "4096"))
DELAY_S = 0.005  # each way
ROWS = {"1000 × 64 KiB": (1000, 64 << 10), "10 × 100 MiB": (10, 100 << 20)}
BIN = Path(sys.executable).parent

Tool = Callable[[Weed, Path, Path, str], tuple[Callable[[], object], Callable[[], object]]]


def ours(server: Weed, out: Path, back: Path, prefix: str):
    backend = open_store(server.url(prefix))
    shard = Shard(cache_key="ab" * 32, mode="train", round="r", total=1, attempt="a", index=0, files=())
    made: list[Shard] = []
    return lambda: made.append(publish_shard(backend, out, shard)), lambda: restore_files(backend, made[0].files, back)


def s5cmd(server: Weed, out: Path, back: Path, prefix: str):
    env = {**os.environ, "S3_ENDPOINT_URL": server.endpoint, "AWS_REGION": REGION}
    call = [BIN / "s5cmd", "--log", "error", "cp"]
    there = f"s3://{RECORDS}/{prefix}/"
    return (
        lambda: subprocess.run([*call, f"{out}/", there], env=env, check=True),
        lambda: subprocess.run([*call, f"{there}*", f"{back}/"], env=env, check=True),
    )


def rclone(server: Weed, out: Path, back: Path, prefix: str):
    env = {
        **os.environ, "RCLONE_CONFIG": "/dev/null", "RCLONE_S3_PROVIDER": "SeaweedFS", "RCLONE_S3_ENDPOINT": server.endpoint,
        "RCLONE_S3_ENV_AUTH": "true", "RCLONE_S3_REGION": REGION, "RCLONE_S3_NO_CHECK_BUCKET": "true",
    }  # fmt: skip
    call = [BIN / "rclone", "-q", "copy"]
    there = f":s3:{RECORDS}/{prefix}"
    return (
        lambda: subprocess.run([*call, out, there], env=env, check=True),
        lambda: subprocess.run([*call, there, back], env=env, check=True),
    )


def plain_boto3(server: Weed, out: Path, back: Path, prefix: str):
    client = boto3.client("s3", endpoint_url=server.endpoint, region_name=REGION)

    def each(work: Callable[[str], object]) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, os.listdir(out)))

    return (
        lambda: each(lambda name: client.upload_file(str(out / name), RECORDS, f"{prefix}/{name}")),
        lambda: each(lambda name: client.download_file(RECORDS, f"{prefix}/{name}", str(back / name))),
    )


def with_obstore(server: Weed, out: Path, back: Path, prefix: str):
    store = S3Store(
        RECORDS, prefix=prefix, endpoint=server.endpoint, region=REGION, access_key_id=KEY, secret_access_key=SECRET,
        client_options={"allow_http": True},
    )  # fmt: skip

    def get(name: str) -> None:
        with (back / name).open("wb") as file:
            for chunk in obstore.get(store, name).stream():
                file.write(chunk)

    def each(work: Callable[[str], object]) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, os.listdir(out)))

    return lambda: each(lambda name: obstore.put(store, name, out / name)), lambda: each(get)


TOOLS: dict[str, Tool] = {
    "ours": ours,
    "s5cmd": s5cmd,
    "rclone": rclone,
    "boto3": plain_boto3,
    "obstore": with_obstore,
}


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and seconds of CPU of this process and of those it started."""
    before = _cpu()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started, _cpu() - before


def _cpu() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def once(
    server: Weed, out: Path, folder: Path, turn: int
) -> dict[str, tuple[tuple[float, float], tuple[float, float]]]:
    found = {}
    names = list(TOOLS)
    for name in names[turn % len(names) :] + names[: turn % len(names)]:
        back = folder / "back"
        back.mkdir()
        put, get = TOOLS[name](server, out, back, f"bench/{uuid.uuid4().hex}")
        found[name] = timed(put), timed(get)
        assert len(os.listdir(back)) == len(os.listdir(out)), name
        shutil.rmtree(back)
    return found


GROWTH = """
import sys, time
from pathlib import Path
from runonce.experiment.manifest import Shard
from runonce.store.publish import publish_shard
from runonce.store.restore import restore_files
from runonce.store.url import open_store
backend, out, back = open_store(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
shard = Shard(cache_key="ab" * 32, mode="train", round="r", total=1, attempt="a", index=0, files=())
start = time.perf_counter()
made = publish_shard(backend, out, shard)
middle = time.perf_counter()
restore_files(backend, made.files, back)
end = time.perf_counter()
held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(middle - start, end - middle, int(held.split()[1]) / 1024)
"""


class Delayed:
    """The server by the way of a relay that takes its time."""

    def __init__(self, server: Weed, proxy: Proxy) -> None:
        self._server, self.endpoint = server, f"http://127.0.0.1:{proxy.port}"

    def url(self, prefix: str) -> str:
        return self._server.url(prefix).replace(self._server.endpoint, self.endpoint)


def filled(out: Path, number: int, size: int) -> Path:
    out.mkdir()
    for i in range(number):
        with (out / f"{i}").open("wb") as file:
            for start in range(0, size, 1 << 20):
                file.write(os.urandom(min(1 << 20, size - start)))
    return out


def beside(row: str, server: Any, out: Path, folder: Path) -> None:
    rounds = [once(server, out, folder, turn) for turn in range(SAMPLES)]
    for what, step in (("publish", 0), ("restore", 1)):
        for tool in TOOLS:
            seconds = statistics.median(found[tool][step][0] for found in rounds)
            cpu = statistics.median(found[tool][step][1] for found in rounds)
            ratio = statistics.median(found[tool][step][0] / found["ours"][step][0] for found in rounds)
            print(f"{row + ' ' + what:26} {tool:8} {seconds:7.2f} {cpu:6.2f} {ratio:14.2f}", flush=True)


def grow(server: Weed, folder: Path) -> None:
    print(f"{'':26} {'publish s':>10} {'restore s':>10} {'MiB held':>9}  for each file, or each MiB: ms")
    sizes = [("files of 1 KiB", number, 1 << 10) for number in (10, 1000, 10_000, 100_000) if number <= MOST_FILES]
    sizes += [("MiB in one file", mib, mib << 20) for mib in (1, 64, 1024, 4096) if mib <= MOST_MIB]
    for what, number, size in sizes:
        many = "files" in what
        out = filled(folder / "out", number if many else 1, size)
        call = [sys.executable, "-c", GROWTH, server.url(f"grow/{uuid.uuid4().hex}"), out, folder / "back"]
        done = subprocess.run(call, capture_output=True, text=True, check=True)
        up, down, held = map(float, done.stdout.split())
        each = f"{1000 * up / number:8.2f} {1000 * down / number:8.2f}"
        print(f"{number:8} {what:17} {up:10.2f} {down:10.2f} {held:9.0f}  {each}", flush=True)
        shutil.rmtree(out)
        shutil.rmtree(folder / "back")


def main() -> None:
    os.environ |= {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    with tempfile.TemporaryDirectory() as name, running(Path(name) / "weed") as server:
        folder = Path(name)
        print(f"{'':26} {'tool':8} {'s':>7} {'CPU s':>6} {'ours / theirs':>14}")
        for row, (number, size) in ROWS.items():
            out = filled(folder / "out", number, size)
            beside(row, server, out, folder)
            if number == 1000:
                proxy = Proxy(server.port, delay_s=DELAY_S)
                beside("the same, 10 ms away", Delayed(server, proxy), out, folder)
                proxy.close()
            shutil.rmtree(out)
        grow(server, folder)


if __name__ == "__main__":
    main()
