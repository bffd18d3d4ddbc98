"""Experiments for the engine: a small network on data that are drawn from a seed, in float64 where last bits count."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import mse_loss

from runonce import (
    BatchSampler,
    ExperimentConfig,
    ExperimentParameters,
    MachineParams,
    PipelineStage,
    TaskSampler,
    TrainingPipeline,
)


@dataclass
class Params(ExperimentParameters):
    items: int = 37
    batch_size: int = 8
    epochs: int = 3
    lr: float = 0.05
    dropout: float = 0.0
    batch_norm: bool = False
    accumulate: int = 1
    valid_every: int = 0
    keep: str = "last"
    precision: str = "float32"
    max_grad_norm: float = 0.0
    stages: int = 1
    pause: float = 0.0
    nonfinite: str = "stop"
    wrong: str = ""
    width: int = 8
    checkpoints: int = 2


def made(count: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 4, generator=draw, dtype=torch.float64)
    return list(zip(x, x.sum(dim=1, keepdim=True).sin(), strict=True))


class Line(ExperimentConfig):
    """Learns sin of a sum. `wrong` names one thing that is made wrong."""

    Params = Params
    params: Params

    def tag(self):
        return "line"

    def machine_params(self, mode="train", **kwargs):
        return MachineParams(nprocesses=1)

    def create_model(self, **kwargs):
        if self.params.wrong == "no parameters":
            return nn.Identity()
        width = self.params.width
        if self.params.wrong == "models":
            width += int(os.environ["JOB_COMPLETION_INDEX"])
        layers = [nn.Linear(4, width), nn.Tanh(), nn.Dropout(self.params.dropout), nn.Linear(width, width), nn.Tanh()]
        if self.params.batch_norm:
            layers.insert(1, nn.BatchNorm1d(width))
        return nn.Sequential(*layers, nn.Linear(width, 1)).double()

    def training_pipeline(self, **kwargs):
        p = self.params
        losses = {"square": self.square, "size": lambda model, batch: sum(w.square().sum() for w in model.parameters())}
        stages = [PipelineStage(["square"], epochs=p.epochs)]
        if p.stages == 2:
            stages = [
                PipelineStage(["square", "size"], max_stage_steps=7, loss_weights=[1.0, 0.01]),
                PipelineStage(["square"], epochs=p.epochs),
            ]
        metric = {"error": self.error, "near": self.near}
        if p.wrong == "metric":
            metric = {"error": lambda model, batch: 0.5}
        return TrainingPipeline(
            losses, stages, lambda parameters: (torch.optim.SGD if p.wrong == "sgd" else torch.optim.Adam)(parameters, lr=p.lr),
            lr_scheduler_builder=None if p.wrong == "no schedule" else
            lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99),
            named_metrics=metric, accumulate=p.accumulate, valid_every=p.valid_every or None, keep=p.keep,
            precision=p.precision, max_grad_norm=p.max_grad_norm or None, log_every=2, nonfinite=p.nonfinite, checkpoints=p.checkpoints,
        )  # fmt: skip

    def square(self, model, batch):
        x, y = batch
        if self.params.pause:
            time.sleep(self.params.pause)
        if self.params.wrong == "shapes":
            x = x[:, :3]
        loss = mse_loss(model(x), y)
        if self.params.wrong == "no scalar":
            return model(x)
        return loss * float("nan") if self.params.wrong == "nan" else loss

    @staticmethod
    def error(model, batch):
        x, y = batch
        return (model(x) - y).square().sum(), len(x)

    @staticmethod
    def near(model, batch):
        x, y = batch
        return ((model(x) - y).abs() < 0.1).sum(), len(x)

    def make_sampler_fn(self, data, process_ind, total_processes, **kwargs):
        wrong = self.params.wrong
        if wrong == "no data":
            (Path("/nowhere") / "data.bin").read_bytes()
        sampler = BatchSampler(
            data, self.params.batch_size, process_ind=process_ind, total_processes=total_processes, seed=1, **kwargs
        )
        if wrong in ("ends early", "never ends", "uneven"):
            return Lying(sampler, wrong, process_ind)
        return sampler

    def train_task_sampler_args(self, process_ind, total_processes, **kwargs):
        data = made(self.params.items, 1)
        if self.params.wrong == "ragged":
            data[5] = (data[5][0][:3], data[5][1])
        return {"data": data, "process_ind": process_ind, "total_processes": total_processes, "shuffle": True}

    def valid_task_sampler_args(self, process_ind, total_processes, **kwargs):
        return {"data": made(23, 2), "process_ind": process_ind, "total_processes": total_processes}

    test_task_sampler_args = valid_task_sampler_args


class Lying(TaskSampler):
    """Says one length and has another."""

    def __init__(self, inner, wrong, process_ind):
        self.inner, self.wrong, self.process_ind = inner, wrong, process_ind

    @property
    def length(self):
        if self.wrong == "never ends":
            return math.inf
        return self.inner.length + (self.process_ind if self.wrong == "uneven" else 2)

    def next_task(self):
        return self.inner.next_task()

    def reset(self):
        self.inner.reset()

    def set_seed(self, seed):
        self.inner.set_seed(seed)


class Hanging(Line):
    """One rank stops for ever, or ends, at its fourth step."""

    def square(self, model, batch):
        marks = Path(os.environ["MARKS"])
        with (marks / os.environ["RANK"]).open("a") as file:
            file.write(".")
        if os.environ["RANK"] == "1" and (marks / "1").stat().st_size == 6:
            if os.environ["HOW"] == "ends":
                os._exit(9)
            while True:
                time.sleep(60)
        return super().square(model, batch)


class Single(Line):
    """In float32, as autocast wants it."""

    def create_model(self, **kwargs):
        return super().create_model().float()

    def square(self, model, batch):
        return mse_loss(model(batch[0].float()), batch[1].float())

    @staticmethod
    def error(model, batch):
        return Line.error(model, (batch[0].float(), batch[1].float()))


class Stop:
    """After twelve steps; counts its calls, and goes on counting after a resume."""

    def __init__(self):
        self.calls = 0

    def __call__(self, stage_step, step, metrics):
        assert set(metrics) >= {"square", "lr"}
        self.calls += 1
        return self.calls == 6

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


class Early(Line):
    def training_pipeline(self, **kwargs):
        stage = PipelineStage(["square"], epochs=self.params.epochs, early_stopping_criterion=Stop())
        return TrainingPipeline(
            {"square": self.square}, [stage], lambda parameters: torch.optim.SGD(parameters, lr=0.01), log_every=2
        )


class Repeats(Line):
    """Ends with an error where it is not asked for algorithms that repeat."""

    def training_pipeline(self, **kwargs):
        return replace(super().training_pipeline(), deterministic_cudnn=True)

    def make_sampler_fn(self, deterministic_cudnn, **kwargs):
        assert deterministic_cudnn
        assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)
        return super().make_sampler_fn(**kwargs)

    def train_task_sampler_args(self, deterministic_cudnn, **kwargs):
        return {**super().train_task_sampler_args(**kwargs), "deterministic_cudnn": deterministic_cudnn}

    def test_task_sampler_args(self, deterministic_cudnn, **kwargs):
        return {**super().test_task_sampler_args(**kwargs), "deterministic_cudnn": deterministic_cudnn}


class Turns(Line):
    """Its loss is no number in the sixth step of a process; passes that leave no trace do not count."""

    def square(self, model, batch):
        loss = super().square(model, batch)
        if torch.equal(batch[0], self.sixth()):
            loss = loss * float("nan")
        return loss

    def sixth(self):
        """The first batch of the second epoch, as this process has it."""
        rank, total = int(os.environ["JOB_COMPLETION_INDEX"]), int(os.environ["RUNONCE_TOTAL"])
        sampler = self.make_sampler_fn(**self.train_task_sampler_args(rank, total))
        sampler.reset()
        return sampler.next_task()[0]


class Weightless(Line):
    """A loop of its own that leaves nothing."""

    def train(self, run):
        run.log({"loss": 1.0}, step=0)


class Draws:
    """A task: a batch that is drawn at random and labelled by the model itself."""

    def rollout(self, model):
        assert not torch.is_grad_enabled()
        x = torch.rand(int(torch.randint(2, 6, ())), 4, dtype=torch.float64)
        return {"x": x, "y": model(x) + x.sum(dim=1, keepdim=True)}


class DrawSampler(TaskSampler):
    length = math.inf

    def next_task(self):
        return Draws()

    def reset(self): ...

    def set_seed(self, seed): ...


class Acting(Line):
    """Four samplers over all processes, each with tasks to act out."""

    def training_pipeline(self, **kwargs):
        return TrainingPipeline(
            {"square": lambda model, batch: mse_loss(model(batch["x"]), batch["y"])},
            [PipelineStage(["square"], max_stage_steps=30)],
            lambda parameters: torch.optim.SGD(parameters, lr=self.params.lr),
            samplers=2 if self.params.wrong == "too few" else 4,
        )

    def make_sampler_fn(self, seeds, **kwargs):
        assert len(seeds) in (2, 4)
        if self.params.pause:
            time.sleep(self.params.pause)
        return DrawSampler()

    def train_task_sampler_args(self, process_ind, total_processes, **kwargs):
        marks = os.environ.get("MARKS")
        if marks:
            (Path(marks) / f"{process_ind}-of-{total_processes}").write_text(os.environ["JOB_COMPLETION_INDEX"])
        return {"seeds": kwargs["seeds"]}
