"""Handwritten digits once more, by a plain torch loop of our own: two processes, and a stop or a kill loses little.

runonce run own_loop:OwnLoop
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from runonce import ExperimentConfig, ExperimentParameters, MachineParams, Run

HELD_OUT = 5  # every fifth of the 1797 digits is not trained on


@dataclass
class OwnLoopParams(ExperimentParameters):
    lr: float = 0.003
    epochs: int = 30
    batch_size: int = 128  # over all processes
    hidden: int = 128


def digits(*, held_out: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Images float32 [n, 64] from 0 to 1, and labels int64 [n]."""
    data = load_digits()
    images, labels = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    part = (torch.arange(len(labels)) % HELD_OUT == 0) == held_out
    return images[part], labels[part]


class OwnLoop(ExperimentConfig):
    Params = OwnLoopParams
    params: OwnLoopParams

    def tag(self) -> str:
        return "own-loop"

    def machine_params(self, mode: str = "train", **kwargs) -> MachineParams:
        if mode == "valid":
            raise NotImplementedError
        return MachineParams(nprocesses=2 if mode == "train" else 1)

    def create_model(self, **kwargs) -> nn.Module:
        hidden = self.params.hidden
        return nn.Sequential(
            nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 10)
        )

    def train(self, run: Run) -> None:
        images, labels = digits(held_out=False)
        model = self.create_model().to(run.device)
        optimizer = torch.optim.Adam(model.parameters(), lr=self.params.lr)
        first = self._resume(run, model, optimizer)
        parallel = DistributedDataParallel(model) if run.total_processes > 1 else model
        for epoch in range(first, self.params.epochs):
            # Every process draws the same order and takes its slice of each batch.
            order = torch.randperm(len(images), generator=torch.Generator().manual_seed(epoch))
            for batch in order.split(self.params.batch_size)[:-1]:
                own = batch.tensor_split(run.total_processes)[run.process_ind]
                loss = cross_entropy(parallel(images[own].to(run.device)), labels[own].to(run.device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            run.log({"loss": loss.item()}, step=epoch)
            stop = run.should_stop()
            if stop or epoch % 10 == 9:
                run.save_checkpoint({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, step=epoch + 1)
            if stop:
                return
        if run.process_ind == 0:
            torch.save(model.state_dict(), run.output / "weights.pt")

    def _resume(self, run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        checkpoint = run.latest_checkpoint()
        if checkpoint is None:
            return 0
        model.load_state_dict(checkpoint.state["model"])
        optimizer.load_state_dict(checkpoint.state["optimizer"])
        return checkpoint.step

    def test(self, run: Run) -> None:
        images, labels = digits(held_out=True)
        model = self.create_model()
        model.load_state_dict(torch.load(run.inputs["train"] / "weights.pt", weights_only=True))
        with torch.no_grad():
            predicted = model(images).argmax(dim=1)
        accuracy = (predicted == labels).float().mean().item()
        run.log({"accuracy": accuracy}, step=0)
        (run.output / "predictions.json").write_text(json.dumps(predicted.tolist()))

    # The loops above are all there is: nothing here goes through the engine.

    def training_pipeline(self, **kwargs):
        raise NotImplementedError

    def make_sampler_fn(self, **kwargs):
        raise NotImplementedError
