"""Reinforcement learning: a task whose data come from acting with the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from runonce.worker.place import Place


def is_task(task: Any) -> bool:
    return callable(getattr(task, "rollout", None))


def roll_out(task: Any, model: nn.Module, place: Place) -> Any:
    """Act with the model as it is now, without gradients; the losses compute what they differentiate from the batch."""
    with place.calling(f"{type(task).__qualname__}.rollout"), torch.no_grad():
        batch = task.rollout(model)
    if batch is None:
        raise place.fault(f"{type(task).__qualname__}.rollout returned None.", "Return the batch to learn from.")
    return batch
