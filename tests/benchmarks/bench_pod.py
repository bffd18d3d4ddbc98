"""From the start of a pod's process to its first training step, over a folder and over S3, beside a bare script of the same step.

What a cluster adds (scheduling, the image, the container) is the same for both, so on a cluster the ratio is nearer to 1.
CPU seconds, since wall time on a busy machine says little; medians of pairs.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

SAMPLES = 7

STEP = """
torch.nn.Linear(2, 2)(torch.ones(1, 2)).sum().backward()
usage = resource.getrusage(resource.RUSAGE_SELF)
print("first step after", usage.ru_utime + usage.ru_stime, flush=True)
"""

CODE = """
import resource
from dataclasses import dataclass
from runonce import ExperimentConfig, ExperimentParameters, MachineParams

@dataclass
class Params(ExperimentParameters):
    sample: int = 0

class One(ExperimentConfig):
    Params = Params
    def tag(self): return "one"
    def machine_params(self, mode="train", **kwargs):
        if mode != "train": raise NotImplementedError
        return MachineParams(1)
    def train(self, run):
        import torch
        if run.latest_checkpoint() is None:
{step}
""".format(step="".join(f"            {line}\n" for line in STEP.strip().splitlines()))

SPEC = {"config": "one:One", "codeVersion": "label:v1", "keyMachine": True, "params": {"sample": 0},
        "machineParams": {"train": {"nprocesses": 1}}}  # fmt: skip


def pod_env(folder: Path, store: str) -> dict[str, str]:
    from runonce.experiment.contract import ATTEMPT, INDEX, SPEC_FILE, Contract

    contract = Contract(
        mode="train", cache_key="ab" * 32, round=uuid.uuid4().hex, total=1, store=store, name="one"
    ).to_env()
    return contract | {SPEC_FILE: str(folder / "spec.json"), ATTEMPT: "a", INDEX: "0"}


def first_step(command: list[str], folder: Path, env: dict[str, str]) -> float:
    done = subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True, text=True)
    return float(done.stdout.split("first step after ")[1].split()[0])


def main() -> None:
    from weed import KEY, SECRET, running

    programs = Path(sys.executable).parent
    worker, plain = [str(programs / "runonce"), "worker"], [str(programs / "python"), "plain.py"]
    with tempfile.TemporaryDirectory() as name, running(Path(name) / "weed") as server:
        folder = Path(name)
        (folder / "one.py").write_text(CODE)
        (folder / "plain.py").write_text(f"import resource, torch\n{STEP}")
        (folder / "spec.json").write_text(json.dumps(SPEC))
        env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        env |= {"OMP_NUM_THREADS": "1", "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        stores = {"a folder": str(folder / "store"), "S3": server.url("bench")}
        print(f"{'to the first step':20} {'ours s':>8} {'bare s':>8} {'ratio':>6}")
        for kind, store in stores.items():
            pairs = [
                (first_step(worker, folder, env | pod_env(folder, store)), first_step(plain, folder, env))
                for _ in range(SAMPLES + 1)
            ][1:]
            ours, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(one / two for one, two in pairs)
            print(f"{kind:20} {ours:8.2f} {bare:8.2f} {ratio:6.2f}")


if __name__ == "__main__":
    main()
