"""The author's samplers as the engine draws from them: in step with one another, and refused when they are not.

Every sampler of every process gives equally many tasks an epoch, so that no process waits for one that has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from runonce.experiment.config import ExperimentConfig
from runonce.experiment.machine import process_seeds
from runonce.experiment.sampler import BatchSampler, TaskSampler
from runonce.worker.place import Place
from runonce.worker.randomness import random_state, restore_random_state, seed_process
from runonce.worker.rollout import is_task, roll_out


@dataclass(frozen=True, slots=True)
class Batch:
    """items: of this process. total: over all processes, None where they have to be added up."""

    data: Any
    items: int
    total: int | None


class Feed:
    """The samplers of one process. streams: each draws from random generators of its own."""

    def __init__(self, samplers: Sequence[TaskSampler], place: Place, device: torch.device, *, streams: bool) -> None:
        self._samplers, self._place, self._device = samplers, place, device
        self._streams: list[dict[str, Any]] = []
        self._with_streams = streams
        self.served = 0  # tasks of this epoch
        self.length: int | float = 0  # tasks of an epoch, once it has begun

    def seed_streams(self, seeds: Sequence[int]) -> None:
        if self._with_streams:
            before = random_state()
            for seed in seeds:
                seed_process(seed)
                self._streams.append(random_state())
            restore_random_state(before)

    @property
    def left(self) -> int | float:
        return self.length - self.served

    def begin(self) -> None:
        """Look at what the samplers have left of this epoch; call when they were made, reset or restored."""
        lengths = {self._length(sampler) for sampler in self._samplers}
        if len(lengths) > 1:
            what = f"the samplers of this process have lengths {sorted(lengths)}; they are drawn from in step."
            raise self._place.fault(what, "Give all of them equally many tasks an epoch.")
        self.length = self.served + lengths.pop()
        if self.length == 0:
            raise self._place.fault(
                "the sampler has length 0: an epoch without a task would never end.", "Give it data."
            )

    def reset(self) -> None:
        for sampler in self._samplers:
            with self._place.calling(f"{_name(sampler)}.reset()"):
                sampler.reset()
        self.served = 0

    def next(self, model: nn.Module) -> list[Batch]:
        """One batch of each sampler; call while there is something left."""
        if self._with_streams:
            batches = [self._streamed(index, model) for index in range(len(self._samplers))]
        else:
            batches = [self._batch(sampler, model) for sampler in self._samplers]
        self.served += 1
        return batches

    def example(self) -> list[Batch] | None:
        """A batch of the usual form without drawing one, where the samplers can give it."""
        if not all(isinstance(sampler, BatchSampler) for sampler in self._samplers):
            return None
        with self._place.calling("the data set"):
            data = [sampler.example() for sampler in self._samplers]  # type: ignore[attr-defined]
        return [Batch(self._moved(entry), count_items(entry), None) for entry in data]

    def state_dict(self) -> dict[str, Any]:
        states = []
        for sampler in self._samplers:
            with self._place.calling(f"{_name(sampler)}.state_dict()"):
                states.append(sampler.state_dict())
        return {"samplers": states, "served": self.served, "streams": self._streams}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; a sampler without a state is drawn from until it is there. Raises what a sampler raises."""
        self.served, self._streams = state["served"], list(state["streams"])
        for sampler, own in zip(self._samplers, state["samplers"], strict=True):
            if own:
                sampler.load_state_dict(own)
            elif sampler.length != inf:
                for _ in range(self.served):
                    sampler.next_task()

    def close(self) -> None:
        for sampler in self._samplers:
            with self._place.calling(f"{_name(sampler)}.close()"):
                sampler.close()

    def _batch(self, sampler: TaskSampler, model: nn.Module) -> Batch:
        with self._place.calling(f"{_name(sampler)}.next_task()"):
            task = sampler.next_task()
        if task is None:
            raise self._place.fault(
                f"{_name(sampler)} ended after {self.served} of the {self.length} tasks that its length promised; the "
                "other processes would wait for it.",
                "Let length be the tasks left in this epoch, equally many in all processes (an empty batch counts).",
            )
        if is_task(task):
            task = roll_out(task, model, self._place)
        counts = getattr(sampler, "counts", None)
        items, total = counts if counts is not None else (count_items(task), None)
        return Batch(self._moved(task), items, total)

    def _length(self, sampler: TaskSampler) -> int | float:
        with self._place.calling(f"{_name(sampler)}.length"):
            length = sampler.length
        if length != inf and (type(length) is not int or length < 0):
            raise self._place.fault(
                f"{_name(sampler)}.length is {length!r}; it is the number of tasks left in this epoch.",
                "Give a whole number, or math.inf for an endless sampler.",
            )
        return length

    def _moved(self, data: Any) -> Any:
        if self._device.type == "cpu":
            return data
        move: Callable[[Any], Any] = lambda leaf: (  # noqa: E731
            leaf.to(self._device, non_blocking=True) if isinstance(leaf, torch.Tensor) else leaf
        )
        return tree_map(move, data)

    def _streamed(self, index: int, model: nn.Module) -> Batch:
        """A batch that is drawn from the sampler's own generators."""
        before = random_state()
        restore_random_state(self._streams[index])
        batch = self._batch(self._samplers[index], model)
        self._streams[index] = random_state()
        restore_random_state(before)
        return batch


def make_feed(
    config: ExperimentConfig,
    mode: str,
    place: Place,
    device: torch.device,
    *,
    seeds: Sequence[int],
    samplers: int | None = None,
    deterministic: bool = False,
) -> Feed:
    """The samplers of this process: one, or its part of `samplers` over all processes, each with a seed of its own."""
    first, end, total = place.process_ind, place.process_ind + 1, place.total_processes
    if samplers is not None:
        if samplers < total:
            what = f"the pipeline has samplers={samplers} for {total} processes."
            raise place.fault(what, "Give at least one to each process, or start fewer processes.")
        first, end = (samplers * rank // total for rank in (first, end))
        # Drawn from the first, so alike for any number of processes.
        total, seeds = samplers, process_seeds(seeds[0], samplers)
    devices = [device.index or 0] if device.type == "cuda" else None
    made = []
    for index in range(first, end):
        with place.calling(f"{type(config).__qualname__}.{mode}_task_sampler_args"):
            arguments = getattr(config, f"{mode}_task_sampler_args")(
                process_ind=index,
                total_processes=total,
                devices=devices,
                seeds=list(seeds),
                deterministic_cudnn=deterministic,
            )
        with place.calling(f"{type(config).__qualname__}.make_sampler_fn", "See that its data are there."):
            sampler = config.make_sampler_fn(**arguments)
        if not isinstance(sampler, TaskSampler):
            what = f"make_sampler_fn returned a {type(sampler).__qualname__}."
            raise place.fault(what, "Return a runonce.TaskSampler, as BatchSampler is.")
        made.append(sampler)
    feed = Feed(made, place, device, streams=samplers is not None)
    feed.seed_streams(seeds[first:end])
    return feed


def count_items(data: Any) -> int:
    """The length of the first tensor in a batch; 1 where there is none or it is a number."""
    for leaf in tree_leaves(data):
        if isinstance(leaf, torch.Tensor):
            return leaf.shape[0] if leaf.dim() else 1
    return 1


def _name(sampler: TaskSampler) -> str:
    return type(sampler).__qualname__
