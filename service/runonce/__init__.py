"""Runonce: experiments on Kubernetes, each one run only once."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name to its module. Importing runonce imports none of them, so it stays cheap wherever it is named.
_PUBLIC = {
    "ExperimentParameters": "runonce.experiment.params",
    "set_hash_functions": "runonce.experiment.params",
    "only_in": "runonce.experiment.params",
    "render": "runonce.experiment.params",
    "load": "runonce.experiment.params",
    "ExperimentConfig": "runonce.experiment.config",
    "FrozenClassVariables": "runonce.experiment.config",
    "MachineParams": "runonce.experiment.machine",
    "TrainingPipeline": "runonce.experiment.pipeline",
    "PipelineStage": "runonce.experiment.pipeline",
    "Loss": "runonce.experiment.pipeline",
    "Metric": "runonce.experiment.pipeline",
    "TaskSampler": "runonce.experiment.sampler",
    "BatchSampler": "runonce.experiment.sampler",
    "Task": "runonce.experiment.sampler",
    "Run": "runonce.experiment.run",
    "Checkpoint": "runonce.experiment.run",
    "run": "runonce.api.calls",
    "sweep": "runonce.api.calls",
    "Ran": "runonce.api.calls",
    "submit": "runonce.api.submitted",
    "Submitted": "runonce.api.submitted",
    "results": "runonce.api.results",
    "Result": "runonce.api.results",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from runonce.api.calls import Ran, run, sweep
    from runonce.api.results import Result, results
    from runonce.api.submitted import Submitted, submit
    from runonce.experiment.config import ExperimentConfig, FrozenClassVariables
    from runonce.experiment.machine import MachineParams
    from runonce.experiment.params import ExperimentParameters, load, only_in, render, set_hash_functions
    from runonce.experiment.pipeline import Loss, Metric, PipelineStage, TrainingPipeline
    from runonce.experiment.run import Checkpoint, Run
    from runonce.experiment.sampler import BatchSampler, Task, TaskSampler


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'runonce' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
