"""What a process trains on: `TaskSampler`, and `BatchSampler` for a data set of torch."""

from __future__ import annotations

import hashlib
import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn


class TaskSampler(ABC):
    """The tasks of one process; a task is what one step consumes. Source: AllenAct.

    length: tasks left in this epoch, math.inf if endless; the same in all processes. counts: (items in the batch
    that next_task gave last, items over all processes), where the sampler knows them; else the engine takes the
    length of the first tensor, and the processes add theirs up.
    """

    length: int | float
    counts: tuple[int, int] | None = None

    @abstractmethod
    def next_task(self) -> Any | None:
        """A batch (any nest of tensors) or a `Task`; None at the end of the epoch."""

    @abstractmethod
    def reset(self) -> None:
        """Begin the next epoch."""

    @abstractmethod
    def set_seed(self, seed: int) -> None:
        """Draw from this seed, from the next reset on."""

    def close(self) -> None:
        """Let go of files and processes; no other call follows. Nothing to do by default."""
        return

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, as checkpoints hold it; empty where an epoch always begins anew."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        if state:
            raise NotImplementedError(f"{type(self).__qualname__} cannot take up the state {sorted(state)}.")


class Task(Protocol):
    """For reinforcement learning: a step's data depend on the model."""

    def rollout(self, model: nn.Module) -> Any:
        """Act with the model; returns the batch to learn from. Called without gradients."""


class BatchSampler(TaskSampler):
    """Batches of a data set, the same whatever the number of processes.

    dataset: has `len` and `[index]`. batch_size: items of one step over all processes; the last batch of an epoch
    may be smaller. The order is drawn from (seed, epoch) for the whole data set, and process r of n takes the r-th
    of n slices of each batch, which differ in length by at most one and may be empty (tensors of length 0). What a
    data set draws from torch's generator depends on (seed, epoch, batch, process), not on num_workers or on where a
    run resumed; so does with num_workers > 0 what it draws from Python's and numpy's.
    seed: the same for all processes. num_workers: processes that read ahead, 0 for none.
    collate_fn: list of items -> batch; torch's default_collate where not given.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        process_ind: int = 0,
        total_processes: int = 1,
        seed: int = 0,
        shuffle: bool = False,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        if batch_size < 1 or not 0 <= process_ind < total_processes:
            raise ValueError(
                f"batch_size={batch_size}, process_ind={process_ind}, total_processes={total_processes}: a batch has "
                "at least one item, and process_ind is one of 0 to total_processes - 1."
            )
        from torch.utils.data import default_collate

        self._dataset, self._batch_size = dataset, batch_size
        self._process_ind, self._total = process_ind, total_processes
        self._seed, self._shuffle, self._num_workers = seed, shuffle, num_workers
        self._collate = collate_fn or default_collate
        self._batches = -(-len(dataset) // batch_size)
        self._epoch = 0
        self._next = 0
        self._loaded: Iterator[Any] | None = None

    @property
    def length(self) -> int:  # type: ignore[override]
        return self._batches - self._next

    def next_task(self) -> Any | None:
        if self._next == self._batches:
            return None
        if self._loaded is None:
            self._loaded = self._load()
        size = min(self._batch_size, len(self._dataset) - self._next * self._batch_size)
        first, end = _slice(size, self._process_ind, self._total)
        self.counts = (end - first, size)
        self._next += 1
        return next(self._loaded)

    def example(self) -> Any:
        """A batch of the form of the others and of this process's usual size, of at least one item; none is used up."""
        size = max(1, min(self._batch_size // self._total, len(self._dataset)))
        return self._collate([self._dataset[item] for item in range(size)])

    def reset(self) -> None:
        self._epoch, self._next, self._loaded = self._epoch + 1, 0, None

    def set_seed(self, seed: int) -> None:
        self._seed = seed

    def close(self) -> None:
        self._loaded = None

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "next": self._next, "seed": self._seed, "batch_size": self._batch_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["batch_size"] != self._batch_size:
            raise ValueError(f"the state is of batch_size={state['batch_size']}, the sampler of {self._batch_size}.")
        self._epoch, self._next, self._seed, self._loaded = state["epoch"], state["next"], state["seed"], None

    def _load(self) -> Iterator[Any]:
        data, steps = _Slices(self._dataset, self._collate, self._draw_from), list(self._slices())
        if self._num_workers == 0:
            return map(data.__getitem__, steps)  # a loader that only stands between costs a tenth of a small step
        import torch
        from torch.utils.data import DataLoader

        # With a generator of its own the loader leaves the global one alone, so that a resumed run draws the same.
        return iter(
            DataLoader(
                data,  # type: ignore[arg-type]
                batch_size=None,
                sampler=steps,
                collate_fn=_as_it_is,
                num_workers=self._num_workers,
                generator=torch.Generator().manual_seed(_mixed(self._seed, self._epoch)),
            )
        )

    @property
    def _draw_from(self) -> str:
        return f"{self._seed}/{self._epoch}/{self._process_ind}/{self._total}"

    def _slices(self) -> Iterator[tuple[int, list[int]]]:
        import torch

        size = len(self._dataset)
        if self._shuffle:
            generator = torch.Generator().manual_seed(_mixed(self._seed, self._epoch))
            order = torch.randperm(size, generator=generator).tolist()
        else:
            order = list(range(size))
        for batch in range(self._next, self._batches):
            items = order[batch * self._batch_size : (batch + 1) * self._batch_size]
            first, end = _slice(len(items), self._process_ind, self._total)
            yield batch, items[first:end]


def _as_it_is(batch: Any) -> Any:
    """The slices are put together already; the loader would look through them once more."""
    return batch


def _slice(size: int, process_ind: int, total: int) -> tuple[int, int]:
    return size * process_ind // total, size * (process_ind + 1) // total


class _Slices:
    """A data set of whole slices; an empty one has the form of a batch, with no items in it."""

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Any], draw_from: str) -> None:
        self._dataset, self._collate, self._draw_from = dataset, collate, draw_from

    def __getitem__(self, numbered: tuple[int, list[int]]) -> Any:
        batch, items = numbered
        with _DrawingFrom(f"{self._draw_from}/{batch}"):
            if items:
                several = getattr(self._dataset, "__getitems__", None)
                return self._collate(several(items) if several else [self._dataset[item] for item in items])
            return _emptied(self._collate([self._dataset[0]]))

    def __len__(self) -> int:
        raise TypeError("the sampler says how many slices there are")


class _DrawingFrom:
    """torch's global generator seeded from a text, and put back as it was; in a loader's process the others too.

    To put numpy's back costs more than many a step, so in the process itself they are left alone.
    """

    __slots__ = ("_before", "_seed")

    def __init__(self, text: str) -> None:
        self._seed = _digest(text)

    def __enter__(self) -> None:
        import torch

        self._before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(self._seed)
        if torch.utils.data.get_worker_info() is not None:
            random.seed(self._seed)
            if numpy := sys.modules.get("numpy"):
                numpy.random.seed(self._seed % 2**32)

    def __exit__(self, *_: object) -> None:
        import torch

        torch.default_generator.set_state(self._before)


def _emptied(batch: Any) -> Any:
    import torch
    from torch.utils._pytree import tree_map

    return tree_map(lambda leaf: leaf[:0] if isinstance(leaf, torch.Tensor) else leaf, batch)


def _mixed(seed: int, epoch: int) -> int:
    """One number of 63 bits out of both, so that (seed 0, epoch 1) is not (seed 1, epoch 0)."""
    return _digest(f"{seed}/{epoch}")


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
