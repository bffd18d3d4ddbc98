"""The precision of the forward pass, by torch's autocast."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch

from runonce.experiment.pipeline import TrainingPipeline

_AS_TORCH = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast_of(pipeline: TrainingPipeline, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """What a forward pass runs under; nothing for float32."""
    if pipeline.precision == "float32":
        return nullcontext
    return partial(torch.autocast, device.type, dtype=_AS_TORCH[pipeline.precision])


def scaler_of(pipeline: TrainingPipeline, device: torch.device) -> torch.amp.GradScaler:
    """Scales losses where small gradients would vanish, in float16; otherwise it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=pipeline.precision == "float16")
