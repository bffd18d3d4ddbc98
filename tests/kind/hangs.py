"""The digits, of which the process named by HANG does not go on after some steps. It lies in the image of the examples."""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import replace

import digits
from torch import Tensor, nn

from runonce import TrainingPipeline

_STEPS = itertools.count()


def loss(model: nn.Module, batch: list[Tensor]) -> Tensor:
    if next(_STEPS) == 60 and os.environ.get("HANG") == os.environ["RANK"]:
        time.sleep(600)
    return digits.loss(model, batch)


class Hangs(digits.Digits):
    def training_pipeline(self, **kwargs) -> TrainingPipeline:
        return replace(super().training_pipeline(**kwargs), named_losses={"cross_entropy": loss})
