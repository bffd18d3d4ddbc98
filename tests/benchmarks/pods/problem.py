"""What both sides train, on CPU: a small model on made-up data. Each process says once when its first step was done, and how old it was."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

FEATURES, CLASSES, ITEMS, BATCH = 64, 10, 1024, 64
PAUSE_S = float(
    os.environ.get("BENCH_PAUSE_S", "0")
)  # a step of a training that is to be robbed of a pod is no busy one
SAYS = "first step at"


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(ITEMS, FEATURES, generator=generator)
    return TensorDataset(features, torch.randint(CLASSES, (ITEMS,), generator=generator))


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 128), nn.ReLU(), nn.Linear(128, CLASSES))


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    features, labels = batch
    time.sleep(PAUSE_S)
    return cross_entropy(model(features), labels)


def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    made = torch.optim.Adam(parameters)

    def say(*_: Any) -> None:
        print(SAYS, time.time(), _age(), flush=True)
        hook.remove()

    hook = made.register_step_post_hook(say)
    return made


def _age() -> float:
    """Of this process, in seconds."""
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return float(Path("/proc/uptime").read_text().split()[0]) - started / os.sysconf("SC_CLK_TCK")
