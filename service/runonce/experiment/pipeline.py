"""What the default engine trains: losses, the stages in which they count, optimizer and metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any

from runonce.errors import EntryError, Fault, near

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    Loss = Callable[[nn.Module, Any], Tensor | tuple[Tensor, dict[str, float]]]
    Metric = Callable[[nn.Module, Any], tuple[Tensor | float, int]]
else:
    Loss = Callable[..., Any]  # (model, batch) -> scalar tensor, or (tensor, {name: number to log})
    Metric = Callable[..., Any]  # (model, batch) -> (sum, count), so that processes and batches merge exactly

PRECISIONS = ("float32", "bfloat16", "float16")
NONFINITE = ("stop", "skip")


@dataclass(frozen=True)
class PipelineStage:
    """A stretch of training with the same losses: for `epochs` passes over the data, or `max_stage_steps` steps.

    loss_weights: one factor for each of loss_names, all 1 where not given. early_stopping_criterion:
    (steps in this stage, steps in all, newest metrics) -> whether to end the stage; asked after every entry of
    metrics.jsonl and every validation, on process 0. Metrics are losses by their names, and metrics of a validation
    as valid/NAME. One with `state_dict` and `load_state_dict` goes on after a resume. Source: AllenAct.
    """

    loss_names: Sequence[str]
    epochs: int | None = None
    max_stage_steps: int | None = None
    loss_weights: Sequence[float] | None = None
    early_stopping_criterion: Callable[[int, int, Mapping[str, float]], bool] | None = None

    def __post_init__(self) -> None:
        faults = []
        if isinstance(self.loss_names, str) or not self.loss_names:
            faults.append(Fault("loss_names", f"is {self.loss_names!r}.", "Give a list with at least one name."))
        if (self.epochs is None) == (self.max_stage_steps is None):
            both = "are both missing" if self.epochs is None else "are both given"
            faults.append(Fault("", f"epochs and max_stage_steps {both}.", "Give one of them."))
        for name in ("epochs", "max_stage_steps"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                faults.append(Fault(name, f"is {value!r}; it is a whole number from 1 on."))
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss_names):
            what = f"has {len(self.loss_weights)} entries for {len(self.loss_names)} losses."
            faults.append(Fault("loss_weights", what, "Give one for each of loss_names."))
        if faults:
            raise EntryError(*(fault.under("PipelineStage") for fault in faults))

    @property
    def weighted_losses(self) -> list[tuple[str, float]]:
        return list(zip(self.loss_names, self.loss_weights or [1.0] * len(self.loss_names), strict=True))


@dataclass(frozen=True)
class TrainingPipeline:
    """Everything that the default engine needs beside model and samplers.

    named_losses: name to (model, batch) -> scalar tensor, the mean over the batch. optimizer_builder: parameters
    of the model -> optimizer; lr_scheduler_builder: optimizer -> scheduler, stepped after every optimizer step.
    named_metrics: name to (model, batch) -> (sum, count). valid_every: steps between validations while training.
    max_grad_norm: gradients are cut to this 2-norm. accumulate: batches to one optimizer step. precision: of the
    forward pass ("float32", "bfloat16", "float16"). keep: which weights become weights.pt: "last"; "best:NAME", those
    with the highest value of a metric when it was validated; "best:-NAME", those with the lowest. samplers: over all
    processes, each of which draws from its part of them in every step; one a process where not given. log_every:
    steps between entries of metrics.jsonl. nonfinite: what to do when a loss or a gradient is nan or inf: "stop", or
    "skip" the step. deterministic_cudnn: let cuDNN choose only algorithms that repeat. checkpoints: how many of the
    newest stay, beside that of the newest end of an epoch. Source: AllenAct.
    """

    named_losses: Mapping[str, Loss]
    pipeline_stages: Sequence[PipelineStage]
    optimizer_builder: Callable[[Iterable[nn.Parameter]], Optimizer]
    lr_scheduler_builder: Callable[[Optimizer], Any] | None = None
    named_metrics: Mapping[str, Metric] = field(default_factory=dict)
    valid_every: int | None = None
    max_grad_norm: float | None = None
    accumulate: int = 1
    precision: str = "float32"
    keep: str = "last"
    samplers: int | None = None
    log_every: int = 10
    nonfinite: str = "stop"
    deterministic_cudnn: bool = False
    checkpoints: int = 2

    @property
    def best(self) -> tuple[str, int] | None:
        """(metric, 1 where the highest is the best, -1 where the lowest is), unless the last weights are kept."""
        if self.keep == "last":
            return None
        name = self.keep.removeprefix("best:")
        return (name, 1) if name in self.named_metrics else (name.removeprefix("-"), -1)

    def __post_init__(self) -> None:
        faults = list(self._faults())
        if faults:
            raise EntryError(*(fault.under("TrainingPipeline") for fault in faults))

    def _faults(self) -> Iterable[Fault]:
        if not self.pipeline_stages:
            yield Fault("pipeline_stages", "is empty.", "Give at least one PipelineStage.")
        for position, stage in enumerate(self.pipeline_stages):
            for name in stage.loss_names:
                if name not in self.named_losses:
                    fix = near(name, list(self.named_losses))
                    yield Fault(f"pipeline_stages[{position}].loss_names", f"names {name!r}, no named loss.", fix)
        for name in ("accumulate", "valid_every", "samplers", "log_every", "checkpoints"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                yield Fault(name, f"is {value!r}; it is a whole number from 1 on.")
        if self.max_grad_norm is not None and not (isfinite(self.max_grad_norm) and self.max_grad_norm > 0):
            yield Fault("max_grad_norm", f"is {self.max_grad_norm!r}; it is a positive number.")
        if self.precision not in PRECISIONS:
            yield Fault("precision", f"is {self.precision!r}; it is one of {', '.join(PRECISIONS)}.")
        if self.nonfinite not in NONFINITE:
            yield Fault("nonfinite", f"is {self.nonfinite!r}; it is one of {', '.join(NONFINITE)}.")
        best = self.best
        if best is not None and (not self.keep.startswith("best:") or best[0] not in self.named_metrics):
            fix = f"Write last, or best: with one of {', '.join(self.named_metrics) or 'named_metrics'}."
            yield Fault("keep", f"is {self.keep!r}.", fix)
