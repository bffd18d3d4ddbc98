"""Checkpoints of a run: one file a process and step, and small records that say which step is complete.

They belong to a round and a number of processes, so another effort or another world size never meets them.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from runonce.errors import Damaged, Fault, InputError
from runonce.experiment.canonical import canonical
from runonce.experiment.run import Checkpoint
from runonce.store.backend import Backend, blob_name, shard_prefix

KEEP = 2  # complete steps whose records stay; what they name is collected with the store's garbage

_PLAIN = (bool, int, float, str, type(None))


class Checkpoints:
    """The checkpoints of one process, `index` of `total`. scratch: a folder that only this process writes."""

    def __init__(
        self, backend: Backend, *, cache_key: str, round_: str, total: int, attempt: str, index: int, scratch: Path
    ) -> None:
        self._backend = backend
        self._prefix = f"{shard_prefix(cache_key, round_)}{total}/k/"
        self._total, self._attempt, self._index, self._scratch = total, attempt, index, scratch

    def save(self, state: Mapping[str, Any], *, step: int) -> None:
        """Write this process's part; the step counts when every process has written its own."""
        faults = list(_faults(state, ()))
        if faults:
            raise InputError(*faults)
        path = self._scratch / f"checkpoint-{step}.pt"
        torch.save(dict(state), path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._backend.put_file(blob_name(digest), path, sha256=digest)
        record = {"format": 1, "kind": "checkpoint", "step": step, "index": self._index, "sha256": digest}
        self._backend.put(f"{self._prefix}{step:012d}/{self._attempt}/i{self._index}", canonical(record))
        path.unlink()
        self._forget()

    def latest(self) -> Checkpoint | None:
        """This process's part of the newest step that all processes have written in one attempt."""
        for name in self._complete():
            found = self._backend.get(f"{name}/i{self._index}")
            if found is None:
                continue
            record = json.loads(found[0])
            path = self._scratch / "restored.pt"
            try:
                self._backend.get_file(blob_name(record["sha256"]), path, sha256=record["sha256"])
            except Damaged:
                continue  # an older one is better than none
            state = torch.load(path, map_location="cpu", weights_only=True)
            path.unlink()
            return Checkpoint(step=record["step"], state=state)
        return None

    def _complete(self) -> list[str]:
        """Names of complete steps, `<prefix><step>/<attempt>`, the newest first."""
        parts: dict[str, int] = defaultdict(int)
        for stat in self._backend.list(self._prefix):
            parts[stat.name.rpartition("/")[0]] += 1
        return sorted((name for name, count in parts.items() if count == self._total), reverse=True)

    def _forget(self) -> None:
        """Drop own records of steps older than the newest complete ones."""
        complete = self._complete()
        if len(complete) <= KEEP:
            return
        oldest = complete[KEEP - 1].removeprefix(self._prefix).partition("/")[0]
        for stat in list(self._backend.list(self._prefix)):
            step, _, rest = stat.name.removeprefix(self._prefix).partition("/")
            if step < oldest and rest.endswith(f"/i{self._index}"):
                self._backend.delete(stat.name)


def _faults(value: Any, path: tuple[str | int, ...]) -> Any:
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
