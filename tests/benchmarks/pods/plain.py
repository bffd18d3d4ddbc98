"""The same training as a script has it: python plain.py STEPS, with RANK and WORLD_SIZE as torchrun sets them."""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist
from problem import BATCH, data, loss, model, optimizer
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader


def main() -> None:
    steps, world, rank = int(sys.argv[1]), int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    if world > 1:
        dist.init_process_group("gloo")
    torch.manual_seed(0)
    trained = DistributedDataParallel(model()) if world > 1 else model()
    stepped = optimizer(trained.parameters())
    step = 0
    while step < steps:
        order = torch.randperm(len(data()), generator=torch.Generator().manual_seed(step))
        for batch in DataLoader(
            data(), batch_sampler=[part.tensor_split(world)[rank].tolist() for part in order.split(BATCH)]
        ):
            stepped.zero_grad()
            loss(trained, batch).backward()
            stepped.step()
            step += 1
            if step == steps:
                break
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
