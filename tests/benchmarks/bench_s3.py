"""Publish and verified restore through S3 beside s5cmd, rclone, obstore and plain boto3 on the same server, in turns.

Ours hashes every file, writes a record, and verifies all that it reads; the others copy. Ratios are medians of the rates'
ratios of one round, ours to theirs: above 1 is faster than theirs. CPU is the client's own, in seconds.

Times are those of the clients and the server where the files lie in memory (TMPDIR=/dev/shm); a disk adds its own.

`delayed`: small files again with 10 ms added to each round trip, by a relay that takes CPU of the same machine.
`growth`: files from 10 on, one file from 1 MiB on, ours alone, each in a process of its own, with the most that it held.
"""

from __future__ import annotations

import argparse
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

DELAY_S = 0.005  # each way
FILES, MIB = (10, 1000, 10_000, 100_000), (1, 64, 1024, 4096)
LOADS = {"small": ("1000 × 64 KiB", 1000, 64 << 10), "large": ("10 × 100 MiB", 10, 100 << 20)}
ROWS = ("small", "delayed", "large", "growth")
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


def once(out: Path, folder: Path, turn: int, *, delayed: bool) -> dict[str, tuple[tuple[float, float], ...]]:
    """Times of publish and restore by tool, each with a server of its own: what is there already slows the next."""
    found = {}
    names = list(TOOLS)
    for name in names[turn % len(names) :] + names[: turn % len(names)]:
        back = folder / "back"
        back.mkdir()
        with running(folder / "weed") as server:
            proxy = Proxy(server.port, delay_s=DELAY_S)
            steps = TOOLS[name](Delayed(server, proxy) if delayed else server, out, back, f"bench/{uuid.uuid4().hex}")
            found[name] = tuple(timed(step) for step in steps)
            proxy.close()
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


def beside(title: str, out: Path, folder: Path, samples: int, *, delayed: bool) -> None:
    rounds = [once(out, folder, turn, delayed=delayed) for turn in range(samples)]
    gib = sum(path.stat().st_size for path in out.iterdir()) / (1 << 30)
    print(f"{title:26} {'tool':8} {'s':>7} {'CPU s':>6} {'CPU s/GiB':>9} {'ours / theirs':>14}  rounds")
    for what, step in (("publish", 0), ("restore", 1)):
        for tool in TOOLS:
            seconds = statistics.median(found[tool][step][0] for found in rounds)
            cpu = statistics.median(found[tool][step][1] for found in rounds)
            ratios = [found[tool][step][0] / found["ours"][step][0] for found in rounds]
            each = " ".join(f"{ratio:.2f}" for ratio in ratios)
            figures = f"{seconds:7.2f} {cpu:6.2f} {cpu / gib:9.2f} {statistics.median(ratios):14.2f}"
            print(f"{what:26} {tool:8} {figures}  {each}", flush=True)


def grow(server: Weed, folder: Path) -> None:
    print(f"{'':26} {'publish s':>10} {'restore s':>10} {'MiB held':>9}  for each file, or each MiB: ms")
    for what, number, size in [("files of 1 KiB", n, 1 << 10) for n in FILES] + [
        ("MiB in one file", n, 0) for n in MIB
    ]:
        out = filled(folder / "out", number if size else 1, size or number << 20)
        call = [sys.executable, "-c", GROWTH, server.url(f"grow/{uuid.uuid4().hex}"), out, folder / "back"]
        done = subprocess.run(call, capture_output=True, text=True, check=True)
        up, down, held = map(float, done.stdout.split())
        each = f"{1000 * up / number:8.2f} {1000 * down / number:8.2f}"
        print(f"{number:8} {what:17} {up:10.2f} {down:10.2f} {held:9.0f}  {each}", flush=True)
        shutil.rmtree(out)
        shutil.rmtree(folder / "back")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all if none is named")
    asked.add_argument("--samples", type=int, default=3, help="rounds of each row that has other tools beside it")
    asked.add_argument("--tools", default=",".join(TOOLS), help="of %(default)s")
    given = asked.parse_args()
    for unknown in {*given.rows} - {*ROWS}:
        asked.error(f"no row {unknown!r}: there are {', '.join(ROWS)}")
    for name in [name for name in TOOLS if name not in given.tools.split(",")]:
        del TOOLS[name]
    os.environ |= {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for row in given.rows or ROWS:
            if row == "growth":
                with running(folder / "weed") as server:
                    grow(server, folder)
                continue
            title, number, size = LOADS["small" if row == "delayed" else row]
            out = filled(folder / "out", number, size)
            delayed = row == "delayed"
            beside(title + ", 10 ms away" * delayed, out, folder, given.samples, delayed=delayed)
            shutil.rmtree(out)


if __name__ == "__main__":
    main()
