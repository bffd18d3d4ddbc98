"""Validation while training, and the weights that did best in it."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING, Any

from torch import nn

from runonce.experiment.config import ExperimentConfig
from runonce.experiment.pipeline import TrainingPipeline
from runonce.worker import group
from runonce.worker.evaluate import evaluate
from runonce.worker.feed import make_feed
from runonce.worker.journal import Journal
from runonce.worker.place import Place
from runonce.worker.randomness import random_state, restore_random_state

if TYPE_CHECKING:
    from runonce.worker.loop import WorkerRun


class Validation:
    """Every `valid_every` steps; at the end of epochs where the best weights are kept and nothing else is said.

    All processes of the training share the work. It draws the same data each time and leaves no trace in the training.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        pipeline: TrainingPipeline,
        run: WorkerRun,
        place: Place,
        journal: Journal,
        autocast: Any,
    ) -> None:
        self._pipeline, self._run, self._place = pipeline, run, place
        self._journal, self._autocast = journal, autocast
        self._validated_at: int | None = None
        self._best_value = -inf
        self.best_weights: dict[str, Any] | None = None
        self._wanted = pipeline.valid_every is not None or pipeline.best is not None
        if self._wanted:
            before = random_state()
            options: Any = {"seeds": run.seeds, "deterministic": pipeline.deterministic_cudnn}
            self._feed = make_feed(config, "valid", place, run.device, **options)
            self._start = self._feed.state_dict()
            restore_random_state(before)

    def at_step(self, model: nn.Module, step: int) -> None:
        if self._pipeline.valid_every is not None and step % self._pipeline.valid_every == 0:
            self._validate(model, step)

    def at_epoch_end(self, model: nn.Module, step: int) -> None:
        if self._wanted and self._pipeline.valid_every is None:
            self._validate(model, step)

    def at_end(self, model: nn.Module, step: int) -> None:
        if self._wanted:
            self._validate(model, step)

    def _validate(self, model: nn.Module, step: int) -> None:
        if self._validated_at == step:
            return
        self._validated_at = step
        before = random_state()
        most = self._run.quick or inf
        sums = evaluate(model, self._pipeline, self._feed, self._place, self._autocast, most=most)
        self._feed.reset()
        with self._place.calling("the sampler of valid taking up its state"):
            self._feed.load_state_dict(self._start)
        restore_random_state(before)
        with self._place.calling("adding up the metrics of all processes"):
            added = group.totals([float(number) for pair in sums.values() for number in pair])
        values = {name: added[2 * i] / added[2 * i + 1] for i, name in enumerate(sums) if added[2 * i + 1]}
        self._journal.add({f"valid/{name}": value for name, value in values.items()}, {}, step)
        if self._pipeline.best is not None:
            name, sign = self._pipeline.best
            if sign * values.get(name, -sign * inf) > self._best_value:
                self._best_value = sign * values[name]
                self.best_weights = {
                    key: value.detach().to("cpu", copy=True) for key, value in model.state_dict().items()
                }

    def state_dict(self) -> dict[str, Any]:
        return {"at": self._validated_at, "best": self._best_value, "weights": self.best_weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._validated_at, self._best_value, self.best_weights = state["at"], state["best"], state["weights"]
