"""The losses of one stage as a module: what DistributedDataParallel wraps, so that a loss meets the model itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from runonce.experiment.pipeline import Loss
from runonce.worker.feed import Batch
from runonce.worker.group import any_rank
from runonce.worker.place import Place
from runonce.worker.randomness import random_state, restore_random_state


class StageLosses(nn.Module):
    """forward: batches, and a factor for each -> (their losses added up, {name: (sum over items, items)})."""

    def __init__(
        self,
        model: nn.Module,
        losses: Mapping[str, Loss],
        weights: Sequence[tuple[str, float]],
        place: Place,
        autocast: Any,
    ) -> None:
        super().__init__()
        self.model = model
        self._losses = [(name, losses[name], weight) for name, weight in weights]
        self.place, self._autocast = place, autocast

    def forward(self, batches: Sequence[Batch], factors: Sequence[float]) -> tuple[Tensor, dict[str, Any]]:
        total: Tensor | None = None
        shown: dict[str, Any] = {}
        for batch, factor in zip(batches, factors, strict=True):
            if batch.items == 0:
                continue  # a mean over nothing is no number
            own: Tensor | None = None
            for name, loss, weight in self._losses:
                with self.place.calling(f"loss {name!r}", batch=batch.data), self._autocast():
                    value, extra = self._checked(name, loss(self.model, batch.data))
                number = value.item() if value.device.type == "cpu" else value.detach()  # which no GPU waits for
                _add(shown, name, number * batch.items, batch.items)
                for more, given in extra.items():
                    _add(shown, more, given * batch.items, batch.items)
                part = value if weight == 1.0 else value * weight
                own = part if own is None else own + part
            if own is not None:
                own = own if factor == 1.0 else own * factor
                total = own if total is None else total + own
        if total is None:
            # Every parameter gets a gradient of zero, so that this rank takes part in the sum.
            total = sum((p.sum() for p in self.model.parameters() if p.requires_grad), torch.zeros(())) * 0.0
        return total, shown

    def _checked(self, name: str, result: Any) -> tuple[Tensor, Mapping[str, Any]]:
        value, extra = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
        if not isinstance(value, Tensor) or value.numel() != 1 or not isinstance(extra, Mapping):
            what = f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__qualname__}"
            raise self.place.fault(
                f"loss {name!r} returned {what}; a loss is a tensor with one number, the mean over the batch.",
                "Return that, or (it, {name: number to log}).",
            )
        if not value.requires_grad and torch.is_grad_enabled():
            raise self.place.fault(
                f"loss {name!r} does not depend on any parameter that is trained.", "Compute it with the model."
            )
        return (value if value.dim() == 0 else value.reshape(())), extra


def in_parallel(losses: StageLosses, batches: Sequence[Batch]) -> nn.Module:
    """`losses` with gradients averaged over the ranks, its buckets settled. batches: of the stage's usual form.

    The order in which gradients come first decides how later ones are put together, and with it their last bits from
    three ranks on. So it is found out before the first step, by passes that leave no trace: a resumed run then adds
    up as the one that was killed did.
    """
    before = random_state()
    buffers = [buffer.clone() for buffer in losses.buffers()]
    parameters = [p for p in losses.parameters() if p.requires_grad]
    factors = [1.0] * len(batches)
    with losses.place.calling("the backward pass"):
        losses(batches, factors)[0].backward()
    unused = any_rank(any(p.grad is None for p in parameters))
    _drop_gradients(parameters)
    with losses.place.calling("joining the processes", "See that they build the same model."):
        wrapped = DistributedDataParallel(losses, find_unused_parameters=unused, gradient_as_bucket_view=True)
    for _ in range(2):
        with losses.place.calling("the backward pass"):
            wrapped(batches, factors)[0].backward()
        _drop_gradients(parameters)
    for buffer, value in zip(losses.buffers(), buffers, strict=True):
        buffer.copy_(value)
    restore_random_state(before)
    return wrapped


def _drop_gradients(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None


def _add(shown: dict[str, Any], name: str, value: Any, items: int) -> None:
    before, count = shown.get(name, (0.0, 0))
    shown[name] = (before + value, count + items)
