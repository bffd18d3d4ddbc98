"""The training as Runonce has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import problem

from runonce import (
    BatchSampler,
    ExperimentConfig,
    ExperimentParameters,
    MachineParams,
    PipelineStage,
    TrainingPipeline,
)


@dataclass
class Params(ExperimentParameters):
    steps: int = 3


class Trial(ExperimentConfig):
    Params = Params

    def tag(self) -> str:
        return "trial"

    def machine_params(self, mode: str = "train", **kwargs: Any) -> MachineParams:
        if mode != "train":
            raise NotImplementedError
        return MachineParams(nprocesses=1)

    def training_pipeline(self, **kwargs: Any) -> TrainingPipeline:
        return TrainingPipeline(
            named_losses={"loss": problem.loss},
            pipeline_stages=[PipelineStage(["loss"], max_stage_steps=self.params.steps)],
            optimizer_builder=problem.optimizer,
        )

    def create_model(self, **kwargs: Any) -> Any:
        return problem.model()

    def make_sampler_fn(self, **kwargs: Any) -> BatchSampler:
        return BatchSampler(**kwargs)

    def train_task_sampler_args(self, process_ind: int, total_processes: int, **kwargs: Any) -> dict[str, Any]:
        place = {"process_ind": process_ind, "total_processes": total_processes}
        return {"dataset": problem.data(), "batch_size": problem.BATCH, "shuffle": True, **place}
