"""`ExperimentConfig`: an experiment as a class, whose class variables cannot be changed after it is made."""

from __future__ import annotations

import dataclasses
from abc import ABCMeta, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from runonce.experiment.frozen import freeze
from runonce.experiment.key import MODES
from runonce.experiment.params import ExperimentParameters

if TYPE_CHECKING:
    from torch import nn

    from runonce.experiment.machine import MachineParams
    from runonce.experiment.pipeline import TrainingPipeline
    from runonce.experiment.run import Run
    from runonce.experiment.sampler import TaskSampler

_MARK = "__runonce_frozen__"
# What only the engine calls: a class that brings a loop of its own may leave it out.
ENGINE_METHODS = ("training_pipeline", "create_model", "make_sampler_fn")

_FIELDS_BELONG = "an ExperimentConfig is no dataclass: fields belong into Params, a dataclass of its own."


class FrozenClassVariables(ABCMeta):
    """Metaclass of `ExperimentConfig`: class variables cannot be set, deleted or changed in place.

    Every process imports the class anew, so a change here would be lost there. Instances are free. Raises
    RuntimeError naming class and attribute. Source: AllenAct.
    """

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **kwargs: Any) -> Any:
        for attribute, value in namespace.items():
            if isinstance(value, dataclasses.Field):
                raise RuntimeError(f"{name}.{attribute} is a dataclass field; {_FIELDS_BELONG}")
        values = {
            attribute: value if attribute.startswith("__") else freeze(value, f"{name}.{attribute}")
            for attribute, value in namespace.items()
        }
        cls = super().__new__(mcs, name, bases, values, **kwargs)
        if bases and issubclass(cls, ExperimentConfig) and own_loops(cls):
            cls.__abstractmethods__ -= frozenset(ENGINE_METHODS)
        type.__setattr__(cls, _MARK, True)
        return cls

    def __setattr__(cls, name: str, value: Any) -> None:
        cls._check(name, "set")
        super().__setattr__(name, value)

    def __delattr__(cls, name: str) -> None:
        cls._check(name, "deleted")
        super().__delattr__(name)

    def _check(cls, name: str, what: str) -> None:
        # Until it is marked, the class is being made: Generic[...] writes its parameters then.
        if _MARK not in cls.__dict__ or name == "__abstractmethods__" or name.startswith("_abc_"):
            return
        if name.startswith("__dataclass"):
            raise RuntimeError(f"{cls.__qualname__}: {_FIELDS_BELONG}")
        raise RuntimeError(
            f"{cls.__qualname__}.{name} cannot be {what}: class variables of an experiment are frozen, since pods "
            "import the class anew and would not see the change. Set it on the instance, or make it a parameter."
        )


class ExperimentConfig(metaclass=FrozenClassVariables):
    """An experiment: what to train, with what, on what machines. All parameters come from `self.params`.

    Abstract: `tag`, `training_pipeline`, `machine_params`, `create_model`, `make_sampler_fn`; each may be a
    classmethod. A class with its own `train` (or `valid`, `test`) may leave out what the engine calls: ENGINE_METHODS
    are then asked for where a mode that exists keeps the engine's loop. Source: AllenAct.
    """

    Params: ClassVar[type[ExperimentParameters]] = ExperimentParameters

    def __init__(self, params: ExperimentParameters | None = None) -> None:
        """Raises TypeError when `params` is of another class than `Params`."""
        if params is None:
            params = self.Params()
        if not isinstance(params, self.Params):
            raise TypeError(
                f"{type(self).__qualname__} takes {self.Params.__qualname__}, not a {type(params).__qualname__}."
            )
        self.params = params

    @abstractmethod
    def tag(self) -> str:
        """What the experiment is called; the resource's name begins with it."""

    @abstractmethod
    def training_pipeline(self, **kwargs: Any) -> TrainingPipeline:
        """Losses, stages and optimizer of the default engine."""
        raise NotImplementedError(f"{type(self).__qualname__} has no training_pipeline.")

    @abstractmethod
    def machine_params(self, mode: str = "train", **kwargs: Any) -> MachineParams | dict[str, Any]:
        """Processes and GPUs of "train", "valid" or "test"; NotImplementedError for a mode that does not exist."""

    @abstractmethod
    def create_model(self, **kwargs: Any) -> nn.Module:
        """The network, with fresh weights."""
        raise NotImplementedError(f"{type(self).__qualname__} has no create_model.")

    @abstractmethod
    def make_sampler_fn(self, **kwargs: Any) -> TaskSampler:
        """The sampler of one process, from what the mode's `*_task_sampler_args` returned."""
        raise NotImplementedError(f"{type(self).__qualname__} has no make_sampler_fn.")

    def train_task_sampler_args(
        self,
        process_ind: int,
        total_processes: int,
        devices: list[int] | None = None,
        seeds: list[int] | None = None,
        deterministic_cudnn: bool = False,
    ) -> dict[str, Any]:
        """Arguments of `make_sampler_fn` for one process of training.

        process_ind: 0 to total_processes - 1. devices: GPUs as this process sees them, None on the CPU.
        seeds: one for each process. deterministic_cudnn: whether cuDNN was told to be deterministic.
        """
        raise NotImplementedError(f"{type(self).__qualname__} has no train_task_sampler_args.")

    def valid_task_sampler_args(
        self,
        process_ind: int,
        total_processes: int,
        devices: list[int] | None = None,
        seeds: list[int] | None = None,
        deterministic_cudnn: bool = False,
    ) -> dict[str, Any]:
        """As `train_task_sampler_args`, for validation."""
        raise NotImplementedError(f"{type(self).__qualname__} has no valid_task_sampler_args.")

    def test_task_sampler_args(
        self,
        process_ind: int,
        total_processes: int,
        devices: list[int] | None = None,
        seeds: list[int] | None = None,
        deterministic_cudnn: bool = False,
    ) -> dict[str, Any]:
        """As `train_task_sampler_args`, for the test."""
        raise NotImplementedError(f"{type(self).__qualname__} has no test_task_sampler_args.")

    def train(self, run: Run) -> None:
        """The training loop; the engine unless overridden."""
        run.default_loop(self)

    def valid(self, run: Run) -> None:
        """The validation loop; the engine unless overridden."""
        run.default_loop(self)

    def test(self, run: Run) -> None:
        """The test loop; the engine unless overridden."""
        run.default_loop(self)


def own_loops(cls: type[ExperimentConfig]) -> list[str]:
    """The modes whose loop is the author's own: nobody can know whether it minds the number of processes."""
    return [mode for mode in MODES if getattr(cls, mode) is not getattr(ExperimentConfig, mode)]
