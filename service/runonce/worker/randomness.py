"""The random generators of a process: torch's, Python's, and numpy's where it is there."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch


def seed_process(seed: int) -> None:
    """All global generators from one seed of 0 to 2^63 - 1."""
    torch.manual_seed(seed)
    random.seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed % 2**32)


def random_state() -> dict[str, Any]:
    """Where they stand, as a checkpoint holds it: tensors and numbers."""
    version, numbers, gauss = random.getstate()
    state = {"torch": torch.get_rng_state(), "python": [version, torch.tensor(numbers), gauss]}
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state()
    if numpy := sys.modules.get("numpy"):
        _, keys, *rest = numpy.random.get_state()
        state["numpy"] = [torch.from_numpy(keys.astype("int64")), *rest]
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
    if "numpy" in state:
        import numpy as np

        keys, *rest = state["numpy"]
        np.random.set_state(("MT19937", keys.numpy().astype("uint32"), *rest))
