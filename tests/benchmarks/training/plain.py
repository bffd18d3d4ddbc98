"""The loop as a script has it: python plain.py PARAMS DEVICE SECONDS, with RANK and WORLD_SIZE as torchrun sets them.

SECONDS: between checkpoints, 0 for none. They are saved as most scripts do, by torch.save between two steps.
"""

from __future__ import annotations

import json
import os
import sys
import time

import torch
import torch.distributed as dist
from measured import Measured, Params
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader


def main() -> None:
    config, device, every = Measured(Params(**json.loads(sys.argv[1]))), sys.argv[2], float(sys.argv[3])
    world, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    if world > 1:
        dist.init_process_group("gloo")
    model = config.create_model().to(device)
    parallel = DistributedDataParallel(model) if world > 1 else model
    optimizer = config.optimizer(model.parameters())
    dataset, step, saved = config.data(), 0, time.monotonic()
    with open("plain.jsonl", "w") as log:
        while step < config.params.steps:
            order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(step))
            parts = [part.tensor_split(world)[rank].tolist() for part in order.split(config.params.batch)]
            for batch in DataLoader(dataset, batch_sampler=parts):
                optimizer.zero_grad()
                loss = config.loss(parallel, [part.to(device) for part in batch])
                loss.backward()
                optimizer.step()
                config.meter.saving = False
                step += 1
                if step % 10 == 0:
                    log.write(json.dumps({"step": step, "loss": loss.item()}) + "\n")
                if every and time.monotonic() - saved >= every:
                    config.meter.saving = True
                    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "plain.pt")
                    saved = time.monotonic()
                if step == config.params.steps:
                    break
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
