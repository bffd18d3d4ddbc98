"""Training through the engine beside the same loop as a plain script: seconds a step, ratio of medians.

Both take 3,000 steps of about 5 ms with the same model, data and order, log every 10 steps; the engine also saves a
checkpoint every 10 s. Plain and engine take turns, so that a machine that slows down slows both.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

STEPS, ROUNDS, TARGET = 3000, 3, 1.03

CODE = textwrap.dedent(
    """
    import time
    from dataclasses import dataclass
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy
    from torch.utils.data import TensorDataset
    from runonce import (BatchSampler, ExperimentConfig, ExperimentParameters, MachineParams, PipelineStage,
                         TrainingPipeline)

    STEPS = %(steps)d

    def data():
        draw = torch.Generator().manual_seed(1)
        return TensorDataset(torch.rand(4096, 256, generator=draw), torch.randint(0, 10, (4096,), generator=draw))

    def network():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))

    @dataclass
    class Params(ExperimentParameters):
        round: int = 0

    def loss(model, batch):
        return cross_entropy(model(batch[0]), batch[1])

    class Timed(BatchSampler):
        pass

    class Bench(ExperimentConfig):
        Params = Params
        def tag(self): return "bench"
        def machine_params(self, mode="train", **kwargs):
            if mode != "train": raise NotImplementedError
            return MachineParams(nprocesses=1)
        def create_model(self, **kwargs): return network()
        def training_pipeline(self, **kwargs):
            return TrainingPipeline(
                {"loss": loss}, [PipelineStage(["loss"], max_stage_steps=STEPS)],
                lambda parameters: torch.optim.Adam(parameters, lr=1e-3))
        def make_sampler_fn(self, **kwargs): return BatchSampler(data(), 128, shuffle=True, **kwargs)
        def train_task_sampler_args(self, process_ind, total_processes, **kwargs):
            return {"process_ind": process_ind, "total_processes": total_processes}
    """
) % {"steps": STEPS}

PLAIN = textwrap.dedent(
    """
    import json, os, sys, time
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.data import DataLoader
    from bench_code import STEPS, data, loss, network

    world, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    if world > 1:
        dist.init_process_group("gloo")
    model = network()
    parallel = DistributedDataParallel(model) if world > 1 else model
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    dataset, step, log = data(), 0, open(os.devnull, "w")
    times = []
    while step < STEPS:
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(step)).split(128)
        parts = [part.tensor_split(world)[rank].tolist() for part in order]
        for batch in DataLoader(dataset, batch_sampler=parts):
            optimizer.zero_grad()
            value = loss(parallel, batch)
            value.backward()
            optimizer.step()
            step += 1
            if step %% 10 == 0:
                log.write(json.dumps({"step": step, "loss": value.item()}) + "\\n")
                times.append((step, time.time()))
            if step == STEPS:
                break
    if rank == 0:
        print((times[-1][1] - times[9][1]) / (times[-1][0] - times[9][0]))
    """
).replace("%%", "%")


def environment(folder: Path) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return env | {"RUNONCE_HOME": str(folder / "home"), "RUNONCE_CHECKPOINT_S": "10"}


def plain(folder: Path, processes: int, port: int) -> float:
    """Seconds a step, from the 100th on."""
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    started = []
    for rank in range(processes):
        env = environment(folder) | {
            "WORLD_SIZE": str(processes), "RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": threads,
        }  # fmt: skip
        command = [sys.executable, "plain.py"]
        started.append(subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True))
    outs = [process.communicate()[0] for process in started]
    return float(outs[0])


def engine(folder: Path, processes: int, number: int) -> float:
    """The same, read from the times in metrics.jsonl."""
    (folder / "bench.yaml").write_text(
        f"""apiVersion: runonce.dev/v1alpha1
kind: Experiment
metadata: {{name: bench-{processes}-{number}}}
spec:
  config: bench_code:Bench
  params: {{round: {number}}}
  machineParams: {{train: {{nprocesses: {processes}}}}}
"""
    )
    command = [sys.executable, "-m", "runonce", "run", "bench.yaml", "-o", "json"]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=True)
    artifacts = Path(json.loads(done.stdout)["modes"]["train"]["artifacts"])
    lines = [json.loads(line) for line in (artifacts / "metrics.jsonl").read_text().splitlines()]
    times = [(line["step"], line["time"]) for line in lines if line["name"] == "loss"]
    return (times[-1][1] - times[9][1]) / (times[-1][0] - times[9][0])


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bench_code.py").write_text(CODE)
        (folder / "plain.py").write_text(PLAIN)
        for processes in (1, 2):
            ours, theirs = [], []
            for number in range(ROUNDS):
                theirs.append(plain(folder, processes, 29500 + 10 * processes + number))
                ours.append(engine(folder, processes, number))
            a, b = statistics.median(ours), statistics.median(theirs)
            verdict = "met" if a / b <= TARGET else "MISSED"
            print(
                f"{processes} processes: engine {a * 1e3:.3f} ms a step, plain {b * 1e3:.3f} ms: "
                f"{a / b:.3f} (target {TARGET}: {verdict})"
            )


if __name__ == "__main__":
    begun = time.perf_counter()
    main()
    print(f"{time.perf_counter() - begun:.0f} s")
