"""The one process group of coupled ranks, and what must come out the same on all of them."""

from __future__ import annotations

import torch
import torch.distributed as dist


def join(*, coupled: bool, total: int, shared: bool) -> torch.device:
    """Choose the device and enter the group; reads RANK and MASTER_ADDR.

    nccl on GPUs, gloo on the CPU, and also where ranks share a GPU, which nccl refuses.
    """
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if coupled and total > 1:
        dist.init_process_group("nccl" if device.type == "cuda" and not shared else "gloo")
    return device


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def any_rank(value: bool, device: torch.device) -> bool:
    """Whether `value` is true on any rank; every rank has to ask."""
    if not dist.is_initialized():
        return value
    flag = torch.tensor([int(value)], device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag.item())


def wait_for_all() -> None:
    if dist.is_initialized():
        dist.barrier()


def seed_all(seed: int) -> None:
    """The global generators, alike on every rank, so that models begin equal; `run.seed` is each rank's own."""
    torch.manual_seed(seed)
