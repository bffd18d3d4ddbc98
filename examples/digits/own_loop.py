"""The digits once more, by a plain torch loop of our own: two processes, and a stop or a kill loses little.

runonce run own_loop:OwnLoop
"""

from __future__ import annotations

import json

import torch
from digits import Digits, digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from runonce import Run


class OwnLoop(Digits):
    """Parameters, processes and network are those of `Digits`; losses and samplers are for the engine, unused here."""

    def tag(self) -> str:
        return "own-loop"

    def train(self, run: Run) -> None:
        images, labels = digits(held_out=False).tensors
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
        images, labels = digits(held_out=True).tensors
        model = self.create_model()
        model.load_state_dict(torch.load(run.inputs["train"] / "weights.pt", weights_only=True))
        with torch.no_grad():
            predicted = model(images).argmax(dim=1)
        accuracy = (predicted == labels).float().mean().item()
        run.log({"accuracy": accuracy}, step=0)
        (run.output / "predictions.json").write_text(json.dumps(predicted.tolist()))
