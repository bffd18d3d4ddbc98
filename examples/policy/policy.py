"""Learn to balance a pole on a cart by policy gradients: reinforcement learning through the engine.

runonce run policy:Policy
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from runonce import (
    ExperimentConfig,
    ExperimentParameters,
    MachineParams,
    PipelineStage,
    TaskSampler,
    TrainingPipeline,
)

LIMIT = 200  # steps of an episode, and so the highest return
DISCOUNT = 0.98


@dataclass
class PolicyParams(ExperimentParameters):
    lr: float = 0.01
    updates: int = 50
    samplers: int = 4  # over all processes, two in each of two
    episodes: int = 8  # of each sampler in each update
    hidden: int = 32


def moved(state: Tensor, action: Tensor) -> Tensor:
    """One step of 0.02 s of n carts. state: float32 [n, 4], place, speed, angle, its speed; action: 0 left, 1 right.

    Source: Barto, Sutton, Anderson, Neuronlike adaptive elements that can solve difficult learning control problems,
    1983; without friction.
    """
    x, speed, angle, turning = state.unbind(dim=1)
    force = 20.0 * action - 10.0
    cos, sin = angle.cos(), angle.sin()
    push = (force + 0.05 * turning.square() * sin) / 1.1
    bend = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - 0.1 * cos.square() / 1.1))
    drive = push - 0.05 * bend * cos / 1.1
    return torch.stack([x + 0.02 * speed, speed + 0.02 * drive, angle + 0.02 * turning, turning + 0.02 * bend], dim=1)


def fallen(state: Tensor) -> Tensor:
    return (state[:, 0].abs() > 2.4) | (state[:, 2].abs() > math.radians(12))


class Episodes:
    """A task: so many episodes at once, played with the model as it is when the step comes."""

    def __init__(self, count: int) -> None:
        self._count = count

    def rollout(self, model: nn.Module) -> dict[str, Tensor]:
        """state [m, 4], action [m], advantage [m] of all m steps; length [count], the return of each episode."""
        state = torch.rand(self._count, 4) * 0.1 - 0.05
        alive = torch.ones(self._count, dtype=torch.bool)
        states, actions, lives = [], [], []
        while alive.any() and len(states) < LIMIT:
            action = torch.bernoulli(model(state).softmax(dim=1)[:, 1])
            states.append(state)
            actions.append(action)
            lives.append(alive)
            state = moved(state, action)
            alive = alive & ~fallen(state)
        alive_at = torch.stack(lives)
        to_go, value = [], torch.zeros(self._count)
        for alive in reversed(lives):
            value = alive * (1.0 + DISCOUNT * value)
            to_go.append(value)
        worth = torch.stack(to_go[::-1])[alive_at]
        return {
            "state": torch.stack(states)[alive_at],
            "action": torch.stack(actions)[alive_at],
            "advantage": (worth - worth.mean()) / (worth.std() + 1e-6),
            "length": alive_at.sum(dim=0),
        }


class EpisodeSampler(TaskSampler):
    """tasks: of an epoch; math.inf for training, which ends after its steps."""

    def __init__(self, episodes: int, tasks: float = math.inf) -> None:
        self._episodes, self._tasks = episodes, tasks
        self.length = tasks

    def next_task(self) -> Episodes | None:
        if self.length == 0:
            return None
        self.length -= 1
        return Episodes(self._episodes)

    def reset(self) -> None:
        self.length = self._tasks

    def set_seed(self, seed: int) -> None:
        torch.manual_seed(seed)


def policy_loss(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    chosen = Categorical(logits=model(batch["state"])).log_prob(batch["action"])
    return -(chosen * batch["advantage"]).mean(), {"return": float(batch["length"].float().mean())}


def episode_return(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
    return batch["length"].sum(), len(batch["length"])


class Policy(ExperimentConfig):
    Params = PolicyParams
    params: PolicyParams

    def tag(self) -> str:
        return "policy"

    def machine_params(self, mode: str = "train", **kwargs) -> MachineParams:
        if mode == "valid":
            raise NotImplementedError
        return MachineParams(nprocesses=2 if mode == "train" else 1)

    def create_model(self, **kwargs) -> nn.Module:
        return nn.Sequential(nn.Linear(4, self.params.hidden), nn.Tanh(), nn.Linear(self.params.hidden, 2))

    def training_pipeline(self, **kwargs) -> TrainingPipeline:
        return TrainingPipeline(
            named_losses={"policy": policy_loss},
            pipeline_stages=[PipelineStage(["policy"], max_stage_steps=self.params.updates)],
            optimizer_builder=lambda parameters: torch.optim.Adam(parameters, lr=self.params.lr),
            named_metrics={"return": episode_return},
            samplers=self.params.samplers,
        )

    def make_sampler_fn(self, **kwargs) -> TaskSampler:
        return EpisodeSampler(**kwargs)

    def train_task_sampler_args(
        self, process_ind, total_processes, devices=None, seeds=None, deterministic_cudnn=False
    ):
        return {"episodes": self.params.episodes}

    def test_task_sampler_args(self, process_ind, total_processes, devices=None, seeds=None, deterministic_cudnn=False):
        return {"episodes": 50, "tasks": 2}
