"""Handwritten digits, 8 by 8 pixels: two processes train one small network through the engine.

runonce run digits:Digits
runonce run digits.yaml
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
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

HELD_OUT = 5  # every fifth of the 1797 digits is not trained on


@dataclass
class DigitsParams(ExperimentParameters):
    lr: float = 0.003
    epochs: int = 30
    batch_size: int = 128  # over all processes
    hidden: int = 128


def digits(*, held_out: bool) -> TensorDataset:
    """Images float32 [n, 64] from 0 to 1, and labels int64 [n]."""
    data = load_digits()
    images, labels = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    part = (torch.arange(len(labels)) % HELD_OUT == 0) == held_out
    return TensorDataset(images[part], labels[part])


def loss(model: nn.Module, batch: list[Tensor]) -> Tensor:
    images, labels = batch
    return cross_entropy(model(images), labels)


def accuracy(model: nn.Module, batch: list[Tensor]) -> tuple[Tensor, int]:
    images, labels = batch
    return (model(images).argmax(dim=1) == labels).sum(), len(labels)


class Digits(ExperimentConfig):
    Params = DigitsParams
    params: DigitsParams

    def tag(self) -> str:
        return "digits"

    def machine_params(self, mode: str = "train", **kwargs) -> MachineParams:
        if mode == "valid":
            raise NotImplementedError
        return MachineParams(nprocesses=2 if mode == "train" else 1)

    def create_model(self, **kwargs) -> nn.Module:
        hidden = self.params.hidden
        return nn.Sequential(
            nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 10)
        )

    def training_pipeline(self, **kwargs) -> TrainingPipeline:
        return TrainingPipeline(
            named_losses={"cross_entropy": loss},
            pipeline_stages=[PipelineStage(["cross_entropy"], epochs=self.params.epochs)],
            optimizer_builder=lambda parameters: torch.optim.Adam(parameters, lr=self.params.lr),
            named_metrics={"accuracy": accuracy},
        )

    def make_sampler_fn(self, **kwargs) -> BatchSampler:
        return BatchSampler(batch_size=self.params.batch_size, **kwargs)

    def train_task_sampler_args(
        self, process_ind, total_processes, devices=None, seeds=None, deterministic_cudnn=False
    ):
        place = {"process_ind": process_ind, "total_processes": total_processes}
        return {"dataset": digits(held_out=False), "shuffle": True, **place}

    def test_task_sampler_args(self, process_ind, total_processes, devices=None, seeds=None, deterministic_cudnn=False):
        return {"dataset": digits(held_out=True), "process_ind": process_ind, "total_processes": total_processes}
