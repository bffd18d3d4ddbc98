"""Metrics over what a sampler gives: the loop of valid and test, and the validation while training."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from runonce.experiment.config import ExperimentConfig
from runonce.experiment.pipeline import Loss, Metric, TrainingPipeline
from runonce.worker.feed import Feed, make_feed
from runonce.worker.place import Place
from runonce.worker.precision import autocast_of
from runonce.worker.randomness import seed_process

if TYPE_CHECKING:
    from runonce.worker.loop import WorkerRun

WEIGHTS = "weights.pt"

Sums = dict[str, tuple[float, int]]


def evaluation_loop(run: WorkerRun, config: ExperimentConfig, place: Place) -> None:
    """valid and test: this process's part, handed over as (sum, count), so that the shards merge to one answer."""
    with place.calling(f"{type(config).__qualname__}.training_pipeline"):
        pipeline = config.training_pipeline()
    set_cudnn(pipeline.deterministic_cudnn)
    seed_process(run.base_seed)
    with place.calling(f"{type(config).__qualname__}.create_model"):
        model = config.create_model().to(run.device)
    if "train" in run.inputs:
        load_weights(model, run.inputs["train"] / WEIGHTS, place)
    seed_process(run.seed)
    deterministic = pipeline.deterministic_cudnn
    feed = make_feed(config, run.mode, place, run.device, seeds=run.seeds, deterministic=deterministic)
    sums = evaluate(model, pipeline, feed, place, autocast_of(pipeline, run.device), most=run.quick or inf)
    feed.close()
    run.sums = sums
    run.log({name: sum_ / count for name, (sum_, count) in sums.items() if count}, step=0)


def evaluate(
    model: nn.Module, pipeline: TrainingPipeline, feed: Feed, place: Place, autocast: Any, *, most: float = inf
) -> Sums:
    """(sum, count) of every metric over one epoch of this process; of the last stage's losses where there is none.

    most: batches after which it ends.
    """
    metrics = dict(pipeline.named_metrics) or {
        name: _as_metric(pipeline.named_losses[name]) for name in pipeline.pipeline_stages[-1].loss_names
    }
    feed.begin()
    if feed.length == inf and most == inf:
        raise place.fault("the sampler is endless, and an evaluation ends with its epoch.", "Give it a length.")
    sums: Sums = dict.fromkeys(metrics, (0.0, 0))
    training = model.training
    model.eval()
    with torch.no_grad():
        while feed.left > 0 and feed.served < most:
            for batch in feed.next(model):
                if batch.items == 0:
                    continue
                for name, metric in metrics.items():
                    with place.calling(f"metric {name!r}", batch=batch.data), autocast():
                        sum_, count = _checked(name, metric(model, batch.data), place)
                    before = sums[name]
                    sums[name] = (before[0] + sum_, before[1] + count)
    model.train(training)
    return sums


def _as_metric(loss: Loss) -> Metric:
    from runonce.worker.feed import count_items

    def metric(model: nn.Module, batch: Any) -> tuple[float, int]:
        value = loss(model, batch)
        items = count_items(batch)
        return float(value[0] if isinstance(value, tuple) else value) * items, items

    return metric


def _checked(name: str, result: Any, place: Place) -> tuple[float, int]:
    if isinstance(result, tuple) and len(result) == 2:
        sum_, count = result
        single = isinstance(sum_, int | float) or (isinstance(sum_, torch.Tensor) and sum_.numel() == 1)
        whole = type(count) is int or (isinstance(count, torch.Tensor) and not count.is_floating_point())
        if single and whole and int(count) >= 0:
            number = float(sum_)
            if not isfinite(number):
                raise place.fault(f"metric {name!r} has the sum {number}.", "See what its batch holds.")
            return number, int(count)
    shown = f"{type(result).__qualname__} {result!r}"[:80]
    raise place.fault(
        f"metric {name!r} returned {shown}; a metric is (sum, count), so that batches and processes add up exactly.",
        "Return the sum over the batch and how many items it has: ((predicted == labels).sum(), len(labels)).",
    )


def load_weights(model: nn.Module, path: Path, place: Place) -> None:
    """Raises EntryError when the file is not there or is of another model."""
    if not path.is_file():
        raise place.fault(
            f"the artifacts of train hold no {path.name}; the engine's own training writes it.",
            f"Write torch.save(model.state_dict(), run.output / {path.name!r}) in train, or override {place.mode}.",
        )
    with place.calling(f"loading {path.name}", "Let create_model build the same model in train and here."):
        state: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise place.fault(
                f"{path.name} is of another model: {error}.", "Let create_model build the same model in train and here."
            ) from error


def set_cudnn(deterministic: bool) -> None:
    if deterministic:
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
