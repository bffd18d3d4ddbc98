"""A run of two coupled processes that do nothing but one all-reduce, beside the same under `torchrun`: wall time, medians."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SAMPLES = 5

CODE = """
from dataclasses import dataclass
import torch, torch.distributed as dist
from runonce import ExperimentConfig, ExperimentParameters, MachineParams

@dataclass
class Params(ExperimentParameters):
    sample: int = 0

class Pair(ExperimentConfig):
    Params = Params
    def tag(self): return "pair"
    def machine_params(self, mode="train", **kwargs):
        if mode != "train": raise NotImplementedError
        return MachineParams(2)
    def train(self, run): dist.all_reduce(torch.ones(1))
"""

FILE = """
apiVersion: runonce.dev/v1alpha1
kind: Experiment
metadata: {name: pair}
spec: {config: "pair:Pair", params: {sample: 0}, codeVersion: label:v1, keyMachine: true, machineParams: {train: {nprocesses: 2}}}
"""

PLAIN = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
dist.all_reduce(torch.ones(1))
dist.destroy_process_group()
"""


def wall(command: list[str], folder: Path, env: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    programs = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pair.py").write_text(CODE)
        (folder / "pair.yaml").write_text(FILE)
        (folder / "plain.py").write_text(PLAIN)
        env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        env |= {"RUNONCE_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
        torchrun = [str(programs / "torchrun"), "--standalone", "--nproc-per-node=2", "plain.py"]
        pairs = []
        for sample in range(SAMPLES + 1):
            run = [str(programs / "runonce"), "run", "pair.yaml", "-p", f"sample={sample}"]
            pairs.append((wall(run, folder, env), wall(torchrun, folder, env)))
    ours, theirs = (statistics.median(column) for column in zip(*pairs[1:], strict=True))
    ratio = statistics.median(one / two for one, two in pairs[1:])
    print(f"{'start of 2 processes':26} {'ours s':>8} {'torchrun':>8} {'ratio':>6}")
    print(f"{'one all-reduce':26} {ours:8.2f} {theirs:8.2f} {ratio:6.2f}")


if __name__ == "__main__":
    main()
