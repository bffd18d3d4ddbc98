"""The default engine: trains a pipeline stage by stage, on torch's own parts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from runonce.experiment.config import ExperimentConfig
from runonce.experiment.pipeline import PipelineStage, TrainingPipeline
from runonce.worker import group
from runonce.worker.evaluate import WEIGHTS, evaluation_loop, set_cudnn
from runonce.worker.feed import Batch, make_feed
from runonce.worker.journal import Journal
from runonce.worker.losses import StageLosses, in_parallel
from runonce.worker.place import Place
from runonce.worker.precision import autocast_of, scaler_of
from runonce.worker.randomness import random_state, restore_random_state, seed_process
from runonce.worker.resume import Found, check_optimizer, newest_checkpoint, taking_up
from runonce.worker.validation import Validation

if TYPE_CHECKING:
    from runonce.worker.loop import WorkerRun


def default_loop(run: WorkerRun, config: ExperimentConfig) -> None:
    """What `train`, `valid` and `test` do unless they are overridden."""
    place = Place(run.mode, run.process_ind, run.total_processes, beat=run.beat)
    if run.mode == "train":
        Trainer(run, config, place).train()
    else:
        evaluation_loop(run, config, place)


@dataclass
class Position:
    """stage: from 0 on. stage_step, stage_epoch: done in it. step, epoch: done in all."""

    stage: int = 0
    stage_step: int = 0
    stage_epoch: int = 0
    step: int = 0
    epoch: int = 0


class Trainer:
    """One process of a training: all of them do the same steps, each with its part of the batches."""

    def __init__(self, run: WorkerRun, config: ExperimentConfig, place: Place) -> None:
        self._run, self._place = run, place
        if run.total_processes > 1 and not run.coupled:
            raise place.fault(
                f"the {run.total_processes} processes are not coupled, and the engine trains one model with all.",
                "Remove coupled: false, ask for nprocesses: 1, or override train.",
            )
        with place.calling(f"{type(config).__qualname__}.training_pipeline"):
            self._pipeline: TrainingPipeline = config.training_pipeline()
        run.checkpoints.keep = self._pipeline.checkpoints
        deterministic = self._pipeline.deterministic_cudnn
        set_cudnn(deterministic)
        seed_process(run.base_seed)  # alike on every rank, so that models begin equal
        with place.calling(f"{type(config).__qualname__}.create_model"):
            self._model: nn.Module = config.create_model().to(run.device)
        self._parameters = [p for p in self._model.parameters() if p.requires_grad]
        self._build_optimizer()
        seed_process(run.seed)
        samplers = self._pipeline.samplers
        options: Any = {"seeds": run.seeds, "deterministic": deterministic}
        self._feed = make_feed(config, "train", place, run.device, samplers=samplers, **options)
        self._autocast = autocast_of(self._pipeline, run.device)
        self._position = Position()
        self._journal = Journal(run, place, self._pipeline)
        self._validation = Validation(config, self._pipeline, run, place, self._journal, self._autocast)

    def _build_optimizer(self) -> None:
        place, pipeline = self._place, self._pipeline
        if not self._parameters:
            raise place.fault(
                "the model has no parameter to train: the optimizer would be over no parameters.",
                "Let create_model return a module with parameters that require gradients.",
            )
        with place.calling("optimizer_builder"):
            self._optimizer = pipeline.optimizer_builder(self._parameters)
        self._scaler = scaler_of(pipeline, self._run.device)
        self._scheduler: Any = None
        if pipeline.lr_scheduler_builder is not None:
            with place.calling("lr_scheduler_builder"):
                self._scheduler = pipeline.lr_scheduler_builder(self._optimizer)
        if isinstance(self._scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            what = "lr_scheduler_builder returned a ReduceLROnPlateau, which is no function of the step."
            raise place.fault(what, "Use a schedule that is stepped without a metric.")

    def train(self) -> None:
        self._resume()
        stages = self._pipeline.pipeline_stages
        while self._position.stage < len(stages):
            stage = stages[self._position.stage]
            self._place.stage = f"stage {self._position.stage + 1} ({', '.join(stage.loss_names)})"
            if not self._train_stage(stage):
                return
            position = self._position
            position.stage, position.stage_step, position.stage_epoch = position.stage + 1, 0, 0
        self._place.stage = ""
        self._validation.at_end(self._model, self._position.step)
        if self._run.process_ind == 0:
            weights = self._validation.best_weights or self._model.state_dict()
            torch.save({name: value.cpu() for name, value in weights.items()}, self._run.output / WEIGHTS)
        self._feed.close()

    def _train_stage(self, stage: PipelineStage) -> bool:
        """False when the machine asked to stop, after a checkpoint."""
        losses = StageLosses(
            self._model, self._pipeline.named_losses, stage.weighted_losses, self._place, self._autocast
        )
        parallel: nn.Module | None = None if self._run.coupled else losses
        self._model.train()
        self._begin_epoch(stage)
        position = self._position
        while not self._stage_is_over(stage):
            if self._feed.left == 0:
                self._end_epoch(stage)
                continue
            batches = self._draw()
            if parallel is None:
                parallel = in_parallel(losses, self._feed.example() or batches[0])
            self._step(parallel, batches)
            position.step, position.stage_step = position.step + 1, position.stage_step + 1
            self._place.step = position.step
            if self._after_step(stage):
                return False
        if self._feed.left == 0:
            self._end_epoch(stage)
        self._journal.flush(position.step, self._optimizer)
        return True

    def _stage_is_over(self, stage: PipelineStage) -> bool:
        position = self._position
        limit = min(stage.max_stage_steps or inf, self._run.quick or inf)
        if position.stage_step >= limit or (stage.epochs is not None and position.stage_epoch >= stage.epochs):
            return True
        return self._journal.is_new and self._journal.ends_stage(stage, position.stage_step, position.step)

    def _begin_epoch(self, stage: PipelineStage) -> None:
        feed = self._feed
        feed.begin()
        if stage.epochs is not None and feed.length == inf and not self._run.quick:
            what = "the sampler is endless, and the stage is to last for epochs, which would never end."
            raise self._place.fault(what, "Give the sampler a length, or the stage max_stage_steps.")
        if self._run.coupled:
            longest, shortest = group.maxima([feed.length, -feed.length])
            if longest != -shortest:
                raise self._place.fault(
                    f"the sampler has length {feed.length}, those of the processes are {-shortest:g} to {longest:g}; "
                    "the longer would wait for the shorter for ever.",
                    "Give all processes equally many tasks an epoch (an empty batch counts).",
                )

    def _end_epoch(self, stage: PipelineStage) -> None:
        position = self._position
        position.epoch, position.stage_epoch = position.epoch + 1, position.stage_epoch + 1
        self._validation.at_epoch_end(self._model, position.step)
        self._feed.reset()
        self._begin_epoch(stage)
        if self._run.boundary_is_due():
            self._journal.check()
            self._save(boundary=True)

    def _draw(self) -> list[list[Batch]]:
        """The batches of one step: `accumulate` times one of each sampler, fewer at the end of an epoch."""
        times = int(min(self._pipeline.accumulate, self._feed.left))
        return [self._feed.next(self._model) for _ in range(times)]

    def _step(self, parallel: nn.Module, batches: Sequence[Sequence[Batch]]) -> None:
        """One optimizer step; its gradient is that of the mean over all items of all processes."""
        processes = self._run.total_processes
        items = self._items(batches)
        self._optimizer.zero_grad(set_to_none=True)
        for position, drawn in enumerate(batches):
            factors = [batch.items * processes / items for batch in drawn]
            last = position == len(batches) - 1
            with nullcontext() if last or not self._run.coupled else parallel.no_sync():  # type: ignore[operator]
                with self._place.calling("the forward pass"):
                    total, shown = parallel(drawn, factors)
                self._journal.see(total, shown, self._position.step + 1)
                with self._place.calling("the backward pass", "See that the loss can be differentiated."):
                    self._scaler.scale(total).backward()
        self._update()

    def _items(self, batches: Sequence[Sequence[Batch]]) -> float:
        """Of the step, over all processes; counted only where the samplers do not know."""
        flat = [batch for drawn in batches for batch in drawn]
        if self._pipeline.samplers is None and all(batch.total is not None for batch in flat):
            return sum(batch.total or 0 for batch in flat)
        own = float(sum(batch.items for batch in flat))
        with self._place.calling("adding up the items of all processes"):
            items = group.totals([own])[0]
        if items == 0:
            raise self._place.fault("no process has an item in this step's batch.", "Give none, rather than nothing.")
        return items

    def _update(self) -> None:
        pipeline, parameters = self._pipeline, self._parameters
        if self._scaler.is_enabled():
            self._scaler.unscale_(self._optimizer)
        if pipeline.max_grad_norm is not None or pipeline.nonfinite == "skip":
            norm = nn.utils.clip_grad_norm_(parameters, pipeline.max_grad_norm or inf)
            if pipeline.nonfinite == "skip" and not torch.isfinite(norm):
                self._journal.skipped(self._position.step + 1)
                self._scaler.update()  # an overflow of the scaled loss: the next one is scaled by less
                return
        with self._place.calling("the optimizer"):
            self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._scheduler is not None:
            with self._place.calling("the schedule"):
                self._scheduler.step()

    def _after_step(self, stage: PipelineStage) -> bool:
        """Log, validate, save; True when the machine asked to stop and a checkpoint was saved."""
        step = self._position.step
        if step % self._pipeline.log_every == 0:
            self._journal.flush(step, self._optimizer)
        self._validation.at_step(self._model, step)
        stop, save = self._run.agree()
        if stop or save:
            self._journal.check()  # no checkpoint of weights that are no numbers
            self._save(boundary=self._feed.length == inf)
        return stop

    # --- checkpoints ------------------------------------------------------------------------------------------

    def _save(self, *, boundary: bool) -> None:
        shared: dict[str, Any] = {}
        if self._run.process_ind == 0:
            shared = {
                "model": self._model.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "scheduler": self._scheduler.state_dict() if self._scheduler is not None else None,
                "scaler": self._scaler.state_dict(),
                "position": asdict(self._position),
                "journal": self._journal.state_dict(),
                "validation": self._validation.state_dict(),
            }
        own = {"feed": self._feed.state_dict(), "random": random_state(), "window": self._journal.window()}
        parts = {"own": own} | ({"shared": shared} if shared else {})
        self._run.save_parts(parts, step=self._position.step, boundary=boundary)
        self._journal.last_saved = self._position.step

    def _resume(self) -> None:
        found = newest_checkpoint(self._run, self._place)
        if found is None:
            return
        with taking_up(found, self._place, self._pipeline):
            self._take_up(found)
        if self._run.process_ind == 0:
            said = f"{self._place}: goes on from {found.described(self._run.total_processes, self._position.epoch)}"
            print(said, file=sys.stderr, flush=True)

    def _take_up(self, found: Found) -> None:
        shared, own = found.shared, found.own
        self._model.load_state_dict(shared["model"])
        check_optimizer(self._optimizer, shared["optimizer"])
        self._optimizer.load_state_dict(shared["optimizer"])
        if self._scheduler is not None:
            self._scheduler.load_state_dict(shared["scheduler"])
        self._scaler.load_state_dict(shared["scaler"])
        self._validation.load_state_dict(shared["validation"])
        self._position = Position(**shared["position"])
        self._journal.load_state_dict(shared["journal"], self._position.step)
        if own is not None:
            self._feed.load_state_dict(own["feed"])
            self._journal.load_windows([own["window"]])
            restore_random_state(own["random"])
        else:
            for _ in range(self._position.epoch if self._feed.length != inf else 0):
                self._feed.reset()
            self._journal.load_windows(found.windows)
            seed_process(self._run.seed + self._position.step)
        self._place.stage, self._place.step = "", self._position.step
