"""What a training loop gets from Runonce: its place among the processes, its folders, its checkpoints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runonce.experiment.config import ExperimentConfig
    from runonce.experiment.params import ExperimentParameters


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What this process saved at `step`; tensors of `state` are on the CPU."""

    step: int
    state: dict[str, Any]


class Run(ABC):
    """One process of one mode of an experiment.

    process_ind: 0 to total_processes - 1. device: torch.device. seed: this process's own; seeds: of all of them.
    output: folder, empty at the start; what lies in it at the end is the artifact set. inputs: mode to the folder
    of its artifacts, as {"train": …} in a test. quick: 0, or the number of steps after which a trial run ends.
    """

    mode: str
    params: ExperimentParameters
    process_ind: int
    total_processes: int
    device: Any
    seed: int
    seeds: list[int]
    output: Path
    inputs: Mapping[str, Path]
    quick: int = 0

    @abstractmethod
    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Append numbers to metrics.jsonl in the artifacts; the last finite value of each name is the result's."""

    @abstractmethod
    def save_checkpoint(self, state: Mapping[str, Any], *, step: int) -> None:
        """Save tensors, numbers, text, lists and mappings; coupled processes all call it at the same step.

        Returns when they are copied; they are written beside the loop, and the last one before the process ends.
        metrics.jsonl as it stands is saved with them. Raises InputError naming what else stands in `state`.
        """

    @abstractmethod
    def latest_checkpoint(self) -> Checkpoint | None:
        """The newest step that every process saved, in this or an earlier attempt; None at the first start.

        Coupled processes all call it. What was logged up to that step is in metrics.jsonl again.
        """

    @abstractmethod
    def should_stop(self) -> bool:
        """Whether the machine asked to stop; coupled processes ask equally often, and hear the same at the same call.

        After True: save a checkpoint and return. The attempt then counts as stopped, not as done. Cheap enough for
        every step: coupled processes speak with each other about twice a second, at the latest at every 64th call.
        """

    @abstractmethod
    def default_loop(self, config: ExperimentConfig) -> None:
        """The engine: runs the training pipeline, or in valid and test the evaluation."""
