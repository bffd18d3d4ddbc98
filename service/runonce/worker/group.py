"""The one process group of coupled ranks, and what must come out the same on all of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist

from runonce.errors import Fault, LostPeer, MachineError
from runonce.experiment.machine import JobShape


def join(shape: JobShape, *, process_ind: int, timeout_s: float) -> torch.device:
    """Choose the device and enter the group; reads RANK and MASTER_ADDR.

    nccl on GPUs, gloo on the CPU, and also where ranks share a GPU, which nccl refuses. A rank that does not answer
    for timeout_s makes every collective of the others raise. Raises MachineError when there are too few GPUs.
    """
    device = _device(shape, process_ind)
    if shape.coupled and shape.completions > 1:
        try:
            dist.init_process_group(backend_of(shape, device), timeout=timedelta(seconds=timeout_s))
        except Exception as error:
            if is_lost_peer(error):
                raise LostPeer(f"the processes of {shape.mode} did not all meet: {error}") from error
            raise
    return device


def backend_of(shape: JobShape, device: torch.device) -> str:
    return "nccl" if device.type == "cuda" and not shape.shares_devices else "gloo"


def _device(shape: JobShape, process_ind: int) -> torch.device:
    if shape.gpus_per_process == 0:
        return torch.device("cpu")
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if seen < shape.gpus_per_process:
        raise MachineError(
            Fault(
                f"{shape.mode}, process {process_ind} of {shape.completions}: spec.machineParams.{shape.mode}.gpuIds",
                f"gives each process {shape.gpus_per_process} GPUs (nccl), and this one sees {seen} of them.",
                "Give ids that this machine has, or [] for the CPU (gloo); and see that torch is built for its driver.",
            )
        )
    torch.cuda.set_device(0)
    return torch.device("cuda", 0)


def is_lost_peer(error: BaseException) -> bool:
    """Whether a collective failed because of another rank. gloo has no error class of its own, only its name in it."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo/" in str(error))


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def any_rank(value: bool) -> bool:
    """Whether `value` is true on any rank; every rank has to ask."""
    return bool(maxima([float(value)])[0])


def maxima(values: Sequence[float]) -> list[float]:
    """The largest of each over all ranks; every rank gives equally many."""
    if not dist.is_initialized():
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64, device=_control_device())
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor.tolist()


def totals(values: Sequence[float]) -> list[float]:
    """The sum of each over all ranks, added in rank order, so that it is the same number everywhere."""
    if not dist.is_initialized():
        return list(values)
    own = torch.tensor(values, dtype=torch.float64, device=_control_device())
    rows = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, own)
    return [sum(column) for column in zip(*(row.tolist() for row in rows), strict=True)]


def _control_device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
