"""What the engine sees of its losses: the entries of metrics.jsonl, numbers that are none, and the end of a stage."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from runonce.errors import EntryError
from runonce.experiment.pipeline import PipelineStage, TrainingPipeline
from runonce.worker import group
from runonce.worker.place import Place

if TYPE_CHECKING:
    from runonce.worker.loop import WorkerRun


class Journal:
    """Losses since the last entry, in sums and counts; on a GPU they are looked at only then, so no step waits."""

    def __init__(self, run: WorkerRun, place: Place, pipeline: TrainingPipeline) -> None:
        self._run, self._place, self._pipeline = run, place, pipeline
        self._sums: dict[str, tuple[Any, int]] = {}
        self._unseen: list[tuple[int, Tensor]] = []  # totals that are still on the device
        self._on_cpu = run.device.type == "cpu"
        self.newest: dict[str, float] = {}
        self.is_new = False
        self.last_saved: int | None = None

    def see(self, total: Tensor, shown: Mapping[str, tuple[Any, int]], step: int) -> None:
        """One batch's losses. On the CPU raises for a number that is none before it reaches the weights."""
        if self._pipeline.nonfinite == "stop":
            if not self._on_cpu:
                self._unseen.append((step, total.detach()))
            elif not isfinite(number := total.item()):
                raise self._no_number(step, number)
        for name, (sum_, count) in shown.items():
            before, counted = self._sums.get(name, (0.0, 0))
            value = float(sum_) if self._on_cpu else sum_
            if self._pipeline.nonfinite == "skip" and self._on_cpu and not isfinite(value):
                continue
            self._sums[name] = (before + value, counted + count)

    def check(self) -> None:
        """Raises for a number that is none among those that are still on the device."""
        unseen, self._unseen = self._unseen, []
        if not unseen:
            return
        for (step, _), number in zip(unseen, torch.stack([total for _, total in unseen]).tolist(), strict=True):
            if not isfinite(number):
                raise self._no_number(step, number)

    def _no_number(self, step: int, number: float) -> EntryError:
        saved = f"the last good checkpoint is of step {self.last_saved}" if self.last_saved is not None else ""
        return self._place.fault(
            f"the loss of step {step} is {number}; {saved or 'there is no checkpoint yet'}.",
            "Lower the learning rate, give max_grad_norm, or let such steps be left out by "
            'TrainingPipeline(nonfinite="skip").',
            reason="NonFiniteLoss",
        )

    def skipped(self, step: int) -> None:
        if self._run.process_ind == 0:
            print(f"{self._place}: step {step} is left out: a gradient is no number", file=sys.stderr, flush=True)

    def flush(self, step: int, optimizer: Optimizer) -> None:
        """An entry for the steps since the last one; losses are means over all processes, others over this one's."""
        self.check()
        if not self._sums and not self._run.coupled:
            return
        sums, self._sums = self._sums, {}
        names = list(self._pipeline.named_losses)
        pairs = [sums.get(name, (0.0, 0)) for name in names]
        with self._place.calling("adding up the losses of all processes"):
            added = group.totals([number for sum_, count in pairs for number in (float(sum_), float(count))])
        means = {name: added[2 * i] / added[2 * i + 1] for i, name in enumerate(names) if added[2 * i + 1]}
        own = {name: float(sum_) / count for name, (sum_, count) in sums.items() if name not in names and count}
        if not means and not own:
            return  # there was an entry at this very step
        rate = {"lr": float(optimizer.param_groups[0]["lr"])}
        self.add(means | rate if self._run.process_ind == 0 else {}, own, step)

    def add(self, shared: Mapping[str, float], own: Mapping[str, float], step: int) -> None:
        """shared: the same on all processes, so process 0 writes it."""
        entry = {**own, **(shared if self._run.process_ind == 0 else {})}
        if entry:
            self._run.log(entry, step=step)
        self.newest.update(own)
        self.newest.update(shared)
        self.is_new = True

    def ends_stage(self, stage: PipelineStage, stage_step: int, step: int) -> bool:
        """What the stage's criterion says to the newest metrics, on process 0 for all."""
        self.is_new = False
        criterion = stage.early_stopping_criterion
        if criterion is None:
            return False
        ends = False
        if self._run.process_ind == 0:
            with self._place.calling("early_stopping_criterion"):
                ends = bool(criterion(stage_step, step, dict(self.newest)))
        with self._place.calling("hearing whether the stage ends"):
            return group.any_rank(ends)

    def state_dict(self) -> dict[str, Any]:
        """Of all processes: what early stopping knows."""
        stages = self._pipeline.pipeline_stages
        states: list[Any] = [getattr(stage.early_stopping_criterion, "state_dict", dict)() for stage in stages]
        return {"newest": dict(self.newest), "is_new": self.is_new, "criteria": states}

    def load_state_dict(self, state: Mapping[str, Any], step: int) -> None:
        self.newest, self.is_new, self.last_saved = dict(state["newest"]), state["is_new"], step
        for stage, own in zip(self._pipeline.pipeline_stages, state["criteria"], strict=True):
            if own:
                stage.early_stopping_criterion.load_state_dict(own)  # type: ignore[union-attr]

    def window(self) -> dict[str, Any]:
        """Of this process: the losses since the last entry."""
        return {name: [float(sum_), count] for name, (sum_, count) in self._sums.items()}

    def load_windows(self, states: Iterable[Mapping[str, Any]]) -> None:
        """This process's own, or where there were others then, those of all of them on process 0."""
        self._sums = {}
        for state in states:
            for name, (sum_, count) in state.items():
                before, counted = self._sums.get(name, (0.0, 0))
                self._sums[name] = before + sum_, counted + count
