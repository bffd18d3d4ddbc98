"""Saves checkpoints beside the loop: a copy in memory, then a thread that writes it, one at a time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from runonce.errors import Fault, InputError, StoreError
from runonce.store.turns import Turns
from runonce.worker.checkpoint import Checkpoints

_PLAIN = (bool, int, float, str, type(None))


class Saver:
    """log: the process's metrics.jsonl, of which every checkpoint holds what was there. scratch: this process's own."""

    def __init__(self, checkpoints: Checkpoints, *, log: Path, scratch: Path) -> None:
        self._checkpoints, self._log, self._copy = checkpoints, log, scratch / log.name
        self._thread: threading.Thread | None = None
        self._turns = Turns()
        self._failed: BaseException | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def save(self, parts: Mapping[str, Mapping[str, Any]], *, step: int, boundary: bool = False) -> None:
        """Copy the states and go on; waits only for the one before. The log has been flushed.

        Raises InputError naming what no checkpoint can hold. A store that fails is told of and tried again next time.
        """
        self._wait()
        faults = [fault for state in parts.values() for fault in _faults(state, ())]
        if faults:
            raise InputError(*faults)
        copies = {name: _copied(state) for name, state in parts.items()}
        size = self._log.stat().st_size if self._log.exists() else 0
        self._turns = Turns()
        arguments = (copies, size, step, boundary, self._turns)
        self._thread = threading.Thread(target=self._write, args=arguments, name=f"checkpoint {step}", daemon=True)
        self._thread.start()

    def close(self, *, needed: bool) -> None:
        """Wait for the last one. needed: it is what the next attempt goes on from. Raises what the store raised."""
        self._wait()
        if needed and self._failed is not None:
            raise self._failed

    def _write(self, parts: Mapping[str, Any], log_size: int, step: int, boundary: bool, turns: Turns) -> None:
        try:
            with self._copy.open("wb") as copy:
                if log_size:
                    with self._log.open("rb") as log:
                        copy.write(log.read(log_size))
            self._checkpoints.save(parts, {self._log.name: self._copy}, step=step, boundary=boundary, turns=turns)
            self._failed = None
        except (StoreError, OSError) as error:
            self._failed = error
            print(f"warning: the checkpoint of step {step} was not saved: {error}", file=sys.stderr, flush=True)

    def _wait(self) -> None:
        if self._thread is not None:
            self._turns.hurry()  # nothing runs beside it any more
            self._thread.join()
            self._thread = None


def _copied(value: Any) -> Any:
    """The same on the CPU, sharing nothing with what the loop goes on changing."""
    if isinstance(value, torch.Tensor):
        tensor = value.detach()
        return tensor.clone() if tensor.device.type == "cpu" else tensor.cpu()
    if isinstance(value, Mapping):
        return {name: _copied(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple | set):
        return type(value)(_copied(entry) for entry in value)
    return value


def _faults(value: Any, path: tuple[str | int, ...]) -> Iterator[Fault]:
    """What `torch.load(weights_only=True)` would refuse, each with its path."""
    if isinstance(value, torch.Tensor) or type(value) in _PLAIN:
        return
    if isinstance(value, Mapping):
        for name, entry in value.items():
            if type(name) not in (str, int, float, bool):
                yield Fault("", f"has the key {name!r}, which is no text and no number.").under(*path)
            yield from _faults(entry, (*path, name if type(name) is str else str(name)))
    elif type(value) in (list, tuple, set):
        for index, entry in enumerate(value):
            yield from _faults(entry, (*path, index))
    else:
        what = f"is a {type(value).__qualname__}; a checkpoint holds tensors, numbers, text, lists and mappings."
        yield Fault("", what, "Save its state_dict, or what it is made of.").under(*path)
