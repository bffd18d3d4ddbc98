"""Training through the engine beside the same loop as a plain script: time, CPU time and memory, and what a checkpoint costs.

    bench_train.py [1] [2] [checkpoint] [gpu]

Both run the model, data and loss of `training/measured.py`, which takes the times of both, on one thread a process. Of two
processes they take turns. Of one process they run at the same time and share one core, which gives each its half in slices
of milliseconds: a core that slows down slows both alike, whereas turns of seconds, or a core each, differed by a third from
round to round. What counts then are the steps of each in the time in which both ran. A ratio is the median of the rounds'.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "4"))
SCALE = float(os.environ.get("BENCH_SCALE", "1"))  # of the number of steps
TRAINING = Path(__file__).parent / "training"

FILE = """apiVersion: runonce.dev/v1alpha1
kind: Experiment
metadata: {{name: measured}}
spec:
  config: measured:Measured
  params: {params}
  machineParams: {{train: {{nprocesses: {processes}, gpuIds: {gpus}}}}}
"""


@dataclass(frozen=True)
class Case:
    """One training. checkpoint_s: seconds between checkpoints of both; the engine alone saves where plain_saves is False.

    store: where the engine's go, instead of a folder.
    """

    params: Mapping[str, Any]
    processes: int = 1
    device: str = "cpu"
    checkpoint_s: float = 5
    plain_saves: bool = False
    store: str = ""


@dataclass(frozen=True)
class Times:
    """Of rank 0: when its steps began, and whether one was saving. cpu_s and memory are those of all processes."""

    at: list[float]
    saving: list[bool]
    cpu_s: float
    memory: int

    @property
    def step_s(self) -> float:
        return (self.at[-1] - self.at[0]) / (len(self.at) - 1)

    def within(self, other: Times) -> Times:
        """Its steps while the other was at its own too."""
        begin, end = max(self.at[0], other.at[0]), min(self.at[-1], other.at[-1])
        at = [moment for moment in self.at if begin <= moment <= end]
        return replace(self, at=at)

    @property
    def stall_s(self) -> float:
        """What one checkpoint adds to the steps in which it is saved, the mean over all checkpoints."""
        steps = [
            (end - begin, saving) for begin, end, saving in zip(self.at, self.at[1:], self.saving[1:], strict=False)
        ]
        usual = statistics.fmean(length for length, saving in steps if not saving)
        begun = sum(now and not before for before, now in zip(self.saving, self.saving[1:], strict=False))
        return sum(length - usual for length, saving in steps if saving) / max(1, begun)


def plain(case: Case, cores: set[int], sample: str) -> Times:
    with tempfile.TemporaryDirectory() as name:
        seconds = str(case.checkpoint_s if case.plain_saves else 0)
        port = 29500 + os.getpid() % 1000 + len(sample)
        command = [sys.executable, str(TRAINING / "plain.py"), json.dumps(case.params), case.device, seconds]
        started = [
            _start(command, Path(name), cores, RANK=str(rank), WORLD_SIZE=str(case.processes), MASTER_PORT=str(port))
            for rank in range(case.processes)
        ]
        return _finish(started, Path(name))


def engine(case: Case, cores: set[int], sample: str) -> Times:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(TRAINING / "measured.py", folder)
        gpus = "[0]" if case.device == "cuda" else "[]"
        params = json.dumps({**case.params, "sample": sample})
        (folder / "measured.yaml").write_text(FILE.format(params=params, processes=case.processes, gpus=gpus))
        command = [sys.executable, "-m", "runonce", "run", "measured.yaml"]
        env = {"RUNONCE_HOME": str(folder / "home"), "RUNONCE_CHECKPOINT_S": str(case.checkpoint_s)}
        env |= {"RUNONCE_STORE": case.store} if case.store else {}
        return _finish([_start(command, folder, cores, **env)], folder)


def _start(command: list[str], folder: Path, cores: set[int], **env: str) -> subprocess.Popen[bytes]:
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    given = {**inherited, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MEASURED": str(folder), **env}
    # Handed down to every process and thread of it.
    pinned = ["taskset", "--cpu-list", ",".join(map(str, sorted(cores))), *command]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(pinned, cwd=folder, env=given, stdout=log, stderr=log)


def _finish(started: list[subprocess.Popen[bytes]], folder: Path) -> Times:
    if any(process.wait() for process in started):
        raise RuntimeError((folder / "log").read_text())
    seen = [json.loads(path.read_text()) for path in sorted(folder.glob("[0-9]*.json"))]
    cpu_s = sum(one["cpu"] for one in seen)
    return Times(seen[0]["at"], seen[0]["saving"], cpu_s, sum(one["memory"] for one in seen))


def rounds(case: Case) -> list[tuple[Times, Times]]:
    """(plain, engine) of each round; the first to run, or the core that they share, changes from round to round."""
    cores = sorted(os.sched_getaffinity(0))
    found = []
    for number in range(ROUNDS):
        sides: list[Callable[..., Times]] = [plain, engine]
        order = [0, 1] if number % 2 == 0 else [1, 0]
        sample = f"{case.processes} {number}"
        if case.processes == 1 and case.device == "cpu" and not case.plain_saves:
            with ThreadPoolExecutor() as pool:
                shared = {cores[number % len(cores)]}
                running = [pool.submit(sides[side], case, shared, sample) for side in order]
                one, other = (running[order.index(side)].result() for side in (0, 1))
            done = [one.within(other), other.within(one)]
        else:
            measured = {side: sides[side](case, set(cores), sample) for side in order}
            done = [measured[0], measured[1]]
        found.append((done[0], done[1]))
    return found


def compared(found: list[tuple[Times, Times]], what: Callable[[Times], float]) -> tuple[float, float, float]:
    """Medians of plain and engine, and of the ratios of the rounds."""
    pairs = [(what(theirs), what(ours)) for theirs, ours in found]
    theirs, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    return theirs, ours, statistics.median(mine / other for other, mine in pairs)


def loops(title: str, case: Case, *, target: float) -> None:
    found = rounds(case)
    theirs, ours, ratio = compared(found, lambda times: times.step_s)
    each = ", ".join(f"{ours.step_s / theirs.step_s:.3f}" for theirs, ours in found)
    print(
        f"{title}: engine {ours * 1e3:.2f} ms a step, plain {theirs * 1e3:.2f} ms: {ratio:.3f} "
        f"(target {target}: {'met' if ratio <= target else 'MISSED'}; rounds {each})"
    )
    steps = case.params["steps"]
    theirs, ours, ratio = compared(found, lambda times: times.cpu_s / steps)
    print(f"    CPU time of its processes: {ours * 1e3:.2f} and {theirs * 1e3:.2f} ms a step: {ratio:.3f}")
    theirs, ours, ratio = compared(found, lambda times: times.memory)
    print(f"    memory: {ours / 1e6:.0f} and {theirs / 1e6:.0f} MB: {ratio:.3f}", flush=True)


def checkpoints(store: str = "") -> None:
    case = Case({"steps": int(6000 * SCALE), "frozen_mb": 200}, checkpoint_s=5, plain_saves=True, store=store)
    found = rounds(case)
    theirs, ours, _ = compared(found, lambda times: times.stall_s)
    more = statistics.median((mine.stall_s - other.stall_s) / 30 for other, mine in found)
    print(
        f"a checkpoint of 200 MB: the engine's loop loses {ours * 1e3:.0f} ms by it, torch.save to a local disk "
        f"{theirs * 1e3:.0f} ms. Every 30 s: {ours / 30:.2%}, beside the other {more:+.2%} "
        f"(target +1%: {'met' if more <= 0.01 else 'MISSED'})"
    )
    theirs, ours, ratio = compared(found, lambda times: times.memory)
    print(f"    memory: {ours / 1e6:.0f} and {theirs / 1e6:.0f} MB: {ratio:.3f}", flush=True)


def main() -> None:
    steps = int(3000 * SCALE)
    wanted = sys.argv[1:] or ["1", "2", "checkpoint", "gpu"]
    for processes in (1, 2):
        if str(processes) in wanted:
            title = f"{processes} process{'es' if processes > 1 else ''}"
            loops(title, Case({"steps": steps}, processes=processes), target=1.03)
    if "checkpoint" in wanted:
        checkpoints()
    if "gpu" in wanted and torch.cuda.is_available():
        loops("a GPU", Case({"steps": steps, "width": 8192, "batch": 2048}, device="cuda"), target=1 / 0.98)
    elif "gpu" in wanted:
        print("a GPU: there is none here, so nothing was measured")


if __name__ == "__main__":
    begun = time.perf_counter()
    main()
    print(f"{time.perf_counter() - begun:.0f} s")
