"""The training that is measured: the engine runs this class, `plain.py` the same model, data and loss in a loop."""

from __future__ import annotations

import json
import os
import resource
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from runonce import (
    BatchSampler,
    ExperimentConfig,
    ExperimentParameters,
    MachineParams,
    PipelineStage,
    TrainingPipeline,
)

WARM, LAST = 200, 20  # steps that are not counted at the begin and at the end
FEATURES, CLASSES, ITEMS = 256, 10, 4096


@dataclass
class Params(ExperimentParameters):
    """frozen_mb: weights that are saved with a checkpoint and not trained; every step changes one in 250,000 of them, so
    that no two checkpoints share a blob. sample: makes one key a run.
    """

    steps: int = 3000
    width: int = 512
    batch: int = 32
    frozen_mb: int = 0
    sample: str = ""


class Meter:
    """Asked in every step by both sides; leaves its times in a file of this process when the last step is near."""

    def __init__(self, last: int) -> None:
        self._last = last
        self._at: list[float] = []
        self._saving: list[bool] = []
        self._cpu = 0.0
        self.saving = False  # of the plain loop, which saves between two steps

    def __call__(self) -> None:
        step = len(self._at)
        if step in (WARM, self._last) and torch.cuda.is_available():
            torch.cuda.synchronize()
        if step == WARM:
            self._cpu = time.process_time()
        self._at.append(time.perf_counter())
        self._saving.append(self.saving or any(one.name.startswith("checkpoint") for one in threading.enumerate()))
        if step == self._last:
            self._write(time.process_time() - self._cpu)

    def _write(self, cpu: float) -> None:
        value = {
            "at": self._at[WARM:],
            "saving": self._saving[WARM:],
            "cpu": cpu,
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        (Path(os.environ["MEASURED"]) / f"{os.environ.get('RANK', '0')}.json").write_text(json.dumps(value))


class Network(nn.Module):
    def __init__(self, width: int, frozen_mb: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(FEATURES, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, CLASSES)
        )
        self.register_buffer("frozen", torch.rand(frozen_mb * 250_000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(self.frozen):
            self.frozen[::250_000] += 1
        return self.layers(x)


class Measured(ExperimentConfig):
    Params = Params
    params: Params

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        self.meter = Meter(self.params.steps - LAST)

    def tag(self):
        return "measured"

    def machine_params(self, mode="train", **kwargs):
        if mode != "train":
            raise NotImplementedError
        return MachineParams(nprocesses=1)

    def create_model(self, **kwargs):
        torch.manual_seed(0)
        return Network(self.params.width, self.params.frozen_mb)

    def loss(self, model, batch):
        self.meter()
        return cross_entropy(model(batch[0]), batch[1])

    def optimizer(self, parameters):
        return torch.optim.Adam(parameters, lr=1e-3)

    def training_pipeline(self, **kwargs):
        stage = PipelineStage(["loss"], max_stage_steps=self.params.steps)
        return TrainingPipeline({"loss": self.loss}, [stage], self.optimizer)

    def data(self):
        draw = torch.Generator().manual_seed(1)
        return TensorDataset(
            torch.rand(ITEMS, FEATURES, generator=draw), torch.randint(0, CLASSES, (ITEMS,), generator=draw)
        )

    def make_sampler_fn(self, **kwargs):
        return BatchSampler(self.data(), self.params.batch, shuffle=True, **kwargs)

    def train_task_sampler_args(self, process_ind, total_processes, **kwargs):
        return {"process_ind": process_ind, "total_processes": total_processes}
