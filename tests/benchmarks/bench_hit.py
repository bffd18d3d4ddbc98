"""`runonce run FILE` on a hit beside an interpreter that only imports what it cannot do without: CPU time, medians."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SAMPLES = 15
TARGET = 1.5

CODE = """
from dataclasses import dataclass
from runonce import ExperimentConfig, ExperimentParameters, MachineParams

@dataclass
class Params(ExperimentParameters):
    lr: float = 0.1

class Tiny(ExperimentConfig):
    Params = Params
    def tag(self): return "tiny"
    def machine_params(self, mode="train", **kwargs):
        if mode != "train": raise NotImplementedError
        return MachineParams(1)
    def train(self, run): (run.output / "done").write_text("")
"""

FILE = """
apiVersion: runonce.dev/v1alpha1
kind: Experiment
metadata: {name: tiny}
spec: {config: "tiny:Tiny", params: {lr: 0.1}, keyMachine: true, machineParams: {train: {nprocesses: 1}}}
"""


def cpu_seconds(command: list[str], folder: Path, env: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode or (command[-1] == "tiny.yaml" and "hit" not in done.stdout):
        sys.exit(f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tiny.py").write_text(CODE)
        (folder / "tiny.yaml").write_text(FILE)
        env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        env["RUNONCE_HOME"] = str(folder / "home")
        run = [str(Path(sys.executable).with_name("runonce")), "run", "tiny.yaml"]
        base = [sys.executable, "-c", "import click, yaml, pydantic"]
        subprocess.run(run, cwd=folder, env=env, check=True, capture_output=True)
        for command in (run, base):
            cpu_seconds(command, folder, env)
        pairs = [(cpu_seconds(run, folder, env), cpu_seconds(base, folder, env)) for _ in range(SAMPLES)]
    ours, imports = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
    ratio = statistics.median(one / two for one, two in pairs)
    print(f"{'run FILE, hit':18} {'ours ms':>9} {'base ms':>9} {'ratio':>6}  target")
    print(f"{'CPU time':18} {ours:9.1f} {imports:9.1f} {ratio:6.2f}  ≤ {TARGET}")


if __name__ == "__main__":
    main()
