"""Where the engine is, for messages; and what becomes of an error of the author's code: its place, and how to go on."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from runonce.errors import EntryError, Fault, LoopError, LostPeer, RunonceError
from runonce.worker.group import is_lost_peer
from runonce.worker.misfit import is_misfit

# The same at every try; anything else (memory, a driver, a network) may go better at the next.
_FINAL = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    NameError,
    NotImplementedError,
    AssertionError,
    ImportError,
    FileNotFoundError,
)
_NOT_THE_AUTHORS = (str(Path(__file__).parents[1]), *(sysconfig.get_paths()[name] for name in ("stdlib", "purelib")))


@dataclass
class Place:
    """stage: its number from 1 on and its losses, empty outside of stages. step: of the whole training.

    beat: told whenever the author's code is about to be called.
    """

    mode: str
    process_ind: int
    total_processes: int
    stage: str = ""
    step: int | None = None
    beat: Callable[[], None] = lambda: None

    def __str__(self) -> str:
        parts = [self.mode, f"process {self.process_ind} of {self.total_processes}"]
        if self.stage:
            parts.append(self.stage)
        if self.step is not None:
            parts.append(f"step {self.step}")
        return ", ".join(parts)

    def fault(self, what: str, fix: str = "", *, reason: str | None = None) -> EntryError:
        return EntryError(Fault(str(self), what, fix), reason=reason)

    def calling(self, what: str, fix: str = "Mend it.", *, batch: Any = None) -> _Calling:
        """Errors of the author's code become ours, with the place, the line and the shapes of the batch."""
        self.beat()
        return _Calling(self, what, fix, batch)


class _Calling:
    """A class, because a generator would cost several times as much, half a dozen times a step."""

    __slots__ = ("_batch", "_fix", "_place", "_what")

    def __init__(self, place: Place, what: str, fix: str, batch: Any) -> None:
        self._place, self._what, self._fix, self._batch = place, what, fix, batch

    def __enter__(self) -> None:
        return

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if not isinstance(error, Exception) or isinstance(error, RunonceError):
            return
        if is_lost_peer(error):
            raise LostPeer(f"{self._place}: another process is gone or hangs: {error}") from error
        shown = f"{self._what} raised {type(error).__name__}: {str(error).rstrip('.')}{_line(error)}."
        if self._batch is not None:
            shown += f" The batch: {shapes(self._batch)}."
        if is_misfit(error):
            raise self._place.fault(shown, self._fix, reason="TensorMismatch") from error
        if isinstance(error, _FINAL):
            raise self._place.fault(shown, self._fix) from error
        raise LoopError(str(Fault(str(self._place), shown, self._fix))) from error


def shapes(batch: Any) -> str:
    """`float32 [64, 3], int64 [64]`; the first six tensors of a nest."""
    tensors = [leaf for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor)]
    shown = [f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}" for tensor in tensors]
    return ", ".join(shown[:6]) + (", …" if len(shown) > 6 else "") or "no tensors"


def _line(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith((*_NOT_THE_AUTHORS, "<"))]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
