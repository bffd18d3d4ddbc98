"""SIGKILL from outside at seeded moments, of one process, of some, of all; then the same command again."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

MOMENTS = int(os.environ.get("RUNONCE_KILLS", "5"))
SEED = 20261124

CODE = '''
import json, os, pathlib, time
from dataclasses import dataclass
import torch
from runonce import ExperimentConfig, ExperimentParameters, MachineParams

@dataclass
class Params(ExperimentParameters):
    steps: int = 12

class Killed(ExperimentConfig):
    """Adds up, on every rank, what can be known beforehand; a checkpoint every second step."""
    Params = Params
    def tag(self): return "killed"
    def machine_params(self, mode="train", **kwargs):
        if mode == "valid": raise NotImplementedError
        return MachineParams(nprocesses=2, coupled=False)
    def train(self, run):
        with open(os.environ["BASE"] + "/pids", "a") as file:
            file.write(f"{os.getpid()} {os.getppid()}\\n")
        found = run.latest_checkpoint()
        step, total = (found.step, int(found.state["total"])) if found else (0, torch.tensor(0).item())
        while step < self.params.steps:
            step += 1
            total += step * (run.process_ind + 1)
            time.sleep(0.02)
            if step % 2 == 0:
                run.save_checkpoint({"total": torch.tensor(total)}, step=step)
        (run.output / "total.json").write_text(json.dumps(total))
        (run.output / "big").write_bytes(os.urandom(1) * 3_000_000)
    def test(self, run):
        path = run.inputs["train"]
        totals = [json.loads((path / name / "total.json").read_text()) for name in (".", "shard-1")]
        (run.output / "totals.json").write_text(json.dumps(totals))
    def training_pipeline(self, **kwargs): raise NotImplementedError
    def create_model(self, **kwargs): raise NotImplementedError
    def make_sampler_fn(self, **kwargs): raise NotImplementedError
'''

FILE = """
apiVersion: runonce.dev/v1alpha1
kind: Experiment
metadata: {name: killed}
spec:
  config: killed:Killed
  params: {steps: 12}
  keyMachine: true
  machineParams:
    train: {nprocesses: 2, coupled: false}
    test: {nprocesses: 1}
"""


def pids(place) -> set[int]:
    path = place.folder / "pids"
    return {int(pid) for row in path.read_text().splitlines() for pid in row.split()} if path.exists() else set()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_after_a_kill_at_any_moment_the_same_command_finishes_the_work(place, moment):
    draw = random.Random(SEED + moment)
    place.write("killed.py", CODE)
    place.write("killed.yaml", FILE)
    for _ in range(draw.choice((1, 2))):
        process = place.start("run", "killed.yaml", BASE=str(place.folder))
        deadline = time.monotonic() + draw.uniform(0.2, 9.0)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        known = [pid for pid in pids(place) if alive(pid)]
        victims = {"run": [process.pid], "rank": draw.sample(known, min(1, len(known))), "all": [process.pid, *known]}
        for pid in victims[draw.choice(list(victims))]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if process.poll() is None and draw.random() < 0.5:
            process.kill()
        process.communicate(timeout=120)
        wait = time.monotonic() + 30
        while any(map(alive, pids(place))):
            assert time.monotonic() < wait, "a process was left behind"
            time.sleep(0.01)
    done = place.runonce("run", "killed.yaml", "-o", "json", BASE=str(place.folder))
    assert done.code == 0, done.err
    artifacts = Path(done.json["modes"]["test"]["artifacts"])
    assert json.loads((artifacts / "totals.json").read_text()) == [78, 156]
    assert len(place.commits()) == 2
    again = place.runonce("run", "killed.yaml", "-o", "json", BASE=str(place.folder))
    assert [outcome["cacheHit"] for outcome in again.json["modes"].values()] == [True, True]
    assert not any(map(alive, pids(place)))
