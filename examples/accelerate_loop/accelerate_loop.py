"""A loop of Hugging Face Accelerate that a stop or a kill costs little; needs `pip install accelerate`.

runonce run accelerate_loop:AccelerateLoop
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from runonce import ExperimentConfig, ExperimentParameters, MachineParams, Run


@dataclass
class AccelerateParams(ExperimentParameters):
    lr: float = 0.01
    epochs: int = 20
    batch_size: int = 32  # of each process


def waves(count: int, seed: int) -> TensorDataset:
    """x float32 [count, 1] from -3 to 3, and sin(x)."""
    x = torch.rand(count, 1, generator=torch.Generator().manual_seed(seed)) * 6 - 3
    return TensorDataset(x, x.sin())


class AccelerateLoop(ExperimentConfig):
    Params = AccelerateParams
    params: AccelerateParams

    def tag(self) -> str:
        return "accelerate-loop"

    def machine_params(self, mode: str = "train", **kwargs) -> MachineParams:
        if mode == "valid":
            raise NotImplementedError
        return MachineParams(nprocesses=2 if mode == "train" else 1)

    def create_model(self, **kwargs) -> nn.Module:
        return nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))

    def train(self, run: Run) -> None:
        # Runonce has joined the processes already; Accelerate finds their group.
        accelerator = Accelerator(cpu=run.device.type == "cpu")
        model = self.create_model()
        optimizer = torch.optim.Adam(model.parameters(), lr=self.params.lr)
        model, optimizer = accelerator.prepare(model, optimizer)
        found = run.latest_checkpoint()
        first = found.step if found else 0
        if found:
            accelerator.unwrap_model(model).load_state_dict(found.state["model"])
            optimizer.load_state_dict(found.state["optimizer"])
        for epoch in range(first, self.params.epochs):
            # The order follows from the epoch alone, so a resumed run sees what the first would have seen.
            order = torch.Generator().manual_seed(epoch)
            loader = DataLoader(waves(512, 1), self.params.batch_size, shuffle=True, generator=order)
            for x, y in accelerator.prepare(loader):
                loss = mse_loss(model(x), y)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            run.log({"loss": loss.item()}, step=epoch)
            stop = run.should_stop()
            if stop or epoch % 5 == 4:
                state = {"model": accelerator.get_state_dict(model), "optimizer": optimizer.state_dict()}
                run.save_checkpoint(state, step=epoch + 1)
            if stop:
                return
        if accelerator.is_main_process:
            torch.save(accelerator.get_state_dict(model), run.output / "weights.pt")

    def test(self, run: Run) -> None:
        model = self.create_model()
        model.load_state_dict(torch.load(run.inputs["train"] / "weights.pt", weights_only=True))
        x, y = waves(256, 2).tensors
        with torch.no_grad():
            run.log({"error": mse_loss(model(x), y).item()}, step=0)
