"""SIGKILL from outside at seeded moments, of a process, of all, of the parent; then on, to the very same weights.

`make kills` takes fifty moments and prints a table of them; KILLS=15-28 takes some of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from trainings import Params

from runonce.experiment.params import render

FIRST, _, LAST = os.environ.get("RUNONCE_KILLS", "1-3").rpartition("-")
MOMENTS = range(int(FIRST or 1) - 1, int(LAST))
TABLE = os.environ.get("RUNONCE_KILL_TABLE")
SEED = 13613  # its first three moments are of three kinds, early, in the midst and late

TRAINING = {"pause": 0.03, "epochs": 8, "dropout": 0.3, "stages": 2, "valid_every": 7, "keep": "best:-error"}
STEPS = 7 + 8 * 5
OFTEN = {"RUNONCE_CHECKPOINT_S": "0.03", "RUNONCE_PEER_TIMEOUT_S": "20"}

FILE = """apiVersion: runonce.dev/v1alpha1
kind: Experiment
metadata: {{name: line}}
spec:
  config: trainings:Line
  params: {params}
  machineParams: {{train: {{nprocesses: {processes}}}}}
"""


class Training(ABC):
    """One training, in as many attempts as it takes."""

    def __init__(self, store: Path, scratch: Path, processes: int) -> None:
        self._store, self.scratch, self.processes = store, scratch, processes
        scratch.mkdir(parents=True)

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def pids(self) -> list[int]:
        """Of the ranks that live, in their order."""

    @abstractmethod
    def log(self) -> str: ...

    @abstractmethod
    def kill(self, whom: str, ranks: list[int]) -> None:
        """Kill these; returns when no process is left."""

    @abstractmethod
    def weights(self) -> dict[str, torch.Tensor]:
        """Go on to the end."""

    def saved(self) -> int:
        """The newest step of which every process has written its checkpoint; 0 where there is none."""
        records = Counter(path.parent for path in (self._store / "w").glob("*/*/*/k/*/*/i*"))
        complete = [path.parent.name for path, count in records.items() if count == self.processes]
        return max((int(name.removesuffix("e")) for name in complete), default=0)

    def writes(self) -> bool:
        """Whether a file of a checkpoint is there that is not in the store yet."""
        return any(self._saving())

    def _saving(self) -> Iterator[Path]:
        """Wherever the scratch folder of a process lies, beside its output or in the one for temporary files."""
        for root, folders, names in os.walk(self.scratch.parent):
            folders[:] = [name for name in folders if name != "store"]
            yield from (Path(root) / name for name in names if name.startswith("saving-"))

    def until(self, condition: Callable[[], object], *, every: float) -> None:
        """Returns also when the training has ended, which a strike then finds."""
        deadline, look = time.monotonic() + 180, time.monotonic() + 1
        while not condition():
            assert time.monotonic() < deadline, self.log()
            if time.monotonic() > look:
                look += 1
                if not self.pids():
                    return
            time.sleep(every)


class Ranks(Training):
    """Its processes alone; the test plays the runner, which starts the next attempt."""

    def __init__(self, job, folder: Path, processes: int) -> None:
        super().__init__(folder / "store", folder / "scratch", processes)
        env = {**OFTEN, "TMPDIR": str(self.scratch)}
        self._job = job(processes=processes, folder=folder.name, env=env, **TRAINING)

    def start(self) -> None:
        self._job.start()

    def pids(self) -> list[int]:
        return [process.pid for process in self._job.started if process.is_alive()]

    def log(self) -> str:
        return self._job.log(0)

    def kill(self, whom: str, ranks: list[int]) -> None:
        _kill(ranks)
        codes = self._job.wait()
        assert set(codes) <= {-9, 76, 0}, self.log()
        for path in list(self._saving()):
            path.unlink(missing_ok=True)  # a pod's own disk is gone with it
        self._job = self._job.again()

    def weights(self) -> dict[str, torch.Tensor]:
        assert self._job.wait() == [0] * self.processes, self.log()
        return self._job.weights()


class WithParent(Training):
    """`runonce run` as a user starts it."""

    def __init__(self, folder: Path, processes: int) -> None:
        super().__init__(folder / "home" / "store", folder / "scratch", processes)
        self._folder = folder
        shutil.copy(Path(__file__).parents[1] / "samples" / "trainings.py", folder)
        params = json.dumps(render(replace(Params(), **TRAINING)))
        (folder / "line.yaml").write_text(FILE.format(params=params, processes=processes))

    def start(self) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("RUNONCE_", "PYTHONPATH"))}
        env |= {
            "RUNONCE_HOME": str(self._folder / "home"),
            "TMPDIR": str(self.scratch),
            "OMP_NUM_THREADS": "1",
            **OFTEN,
        }
        command = [sys.executable, "-m", "runonce", "run", "line.yaml", "--mode", "train"]
        with (self._folder / "log").open("ab") as log:
            self._parent = subprocess.Popen(command, cwd=self._folder, env=env, stdout=log, stderr=log)

    def pids(self) -> list[int]:
        mine, found = f"TMPDIR={self.scratch}".encode(), {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                env = (path / "environ").read_bytes().split(b"\0")
                program = (path / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it has just ended
            if mine in env and b"runonce.worker" in program and b"-I" not in program:
                (rank,) = (entry.partition(b"=")[2] for entry in env if entry.startswith(b"JOB_COMPLETION_INDEX="))
                found[int(rank)] = int(path.name)
        return [found[rank] for rank in sorted(found)]

    def log(self) -> str:
        return (self._folder / "log").read_text()

    def kill(self, whom: str, ranks: list[int]) -> None:
        self._parent.kill()
        _kill(ranks if whom == "the parent and all" else [])
        self._parent.wait()
        deadline = time.monotonic() + 180
        while self.pids():
            assert time.monotonic() < deadline, "a process outlives its parent"
            time.sleep(0.01)

    def weights(self) -> dict[str, torch.Tensor]:
        assert self._parent.wait(300) == 0, self.log()
        (path,) = (self._folder / "home" / "store" / "results").glob("*/weights.pt")
        return torch.load(path, weights_only=True)

    def close(self) -> None:
        self._parent.kill()
        self._parent.wait()
        _kill(self.pids())


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def strike(training: Training, whom: str, draw: random.Random, first: int) -> tuple[str, int]:
    """Kill `whom` at some moment after step `first`. Returns a text for the table, and the step that was saved last."""
    kind = draw.choices(("start", "write", "between"), (1, 7, 4))[0]
    step, wait = draw.randrange(min(first, STEPS - 9), STEPS - 8), draw.uniform(0, 0.5 if kind == "start" else 0.05)
    deadline = time.monotonic() + 180
    while len(ranks := training.pids()) < training.processes:
        assert time.monotonic() < deadline, training.log()
        time.sleep(0.01)
    if whom == "a rank":
        rank = draw.randrange(len(ranks))
        ranks, whom = ranks[rank : rank + 1], f"rank {rank}"
    if kind != "start":
        training.until(lambda: training.saved() >= step, every=0.005)
        training.until(training.writes, every=0.0005)
    if kind != "write":
        time.sleep(wait)
    inside, saved = training.writes(), training.saved()
    training.kill(whom, ranks)
    when = "while it starts" if kind == "start" else "in a write" if inside else "between two writes"
    return f"{whom}, {when}, step {saved} saved", saved


@pytest.fixture(scope="module")
def undisturbed():
    """Weights of trainings that nobody disturbed, by the number of processes; made when first asked for."""
    known: dict[int, dict[str, torch.Tensor]] = {}

    def weights(job, processes: int) -> dict[str, torch.Tensor]:
        if processes not in known:
            known[processes] = job(processes=processes, folder="whole", **TRAINING).run().weights()
        return known[processes]

    return weights


@pytest.mark.parametrize("moment", MOMENTS)
def test_after_a_kill_at_any_moment_the_weights_are_those_of_an_undisturbed_training(
    job, undisturbed, tmp_path, moment
):
    draw = random.Random(SEED + moment)
    whom = draw.choices(("a rank", "all ranks", "the parent", "the parent and all"), (5, 3, 1, 1))[0]
    processes, times = (1, 2, 4)[moment % 3], draw.choice((1, 1, 2))
    expected = undisturbed(job, processes)
    folder = tmp_path / "killed"
    folder.mkdir()
    training = WithParent(folder, processes) if "parent" in whom else Ranks(job, folder, processes)
    strikes, saved = [], 0
    with contextlib.ExitStack() as stack:
        training.start()
        if isinstance(training, WithParent):
            stack.callback(training.close)
        for _ in range(times):
            text, saved = strike(training, whom, draw, saved)
            strikes.append(text)
            training.start()
        weights = training.weights()
    equal = weights.keys() == expected.keys() and all(torch.equal(weights[name], expected[name]) for name in weights)
    resumed = re.findall(r"goes on from the checkpoint of step (\d+)", training.log())
    if TABLE:
        row = (
            str(moment + 1),
            str(processes),
            "; ".join(strikes),
            resumed[-1] if resumed else "begin",
            str(equal).lower(),
        )
        with Path(TABLE).open("a", encoding="utf-8") as table:
            table.write(f"| {' | '.join(row)} |\n")
    assert equal
    assert resumed or not saved, training.log()
