"""Machine parameters, and the Indexed Job that they ask for: the table of docs/machines.md as one function."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import index as to_index
from typing import Any

from runonce.errors import Fault, MachineError, near, shown

MAX_PROCESSES = 100_000  # completions of one Indexed Job; its parallelism has the same limit
DEFAULT_GPU = "nvidia.com/gpu"

_SHARED = re.compile(r"\.shared$|/mig-")  # resources of which one device has several units
_MODES_COUPLED = ("train",)


@dataclass(frozen=True, slots=True)
class MachineParams:
    """How many processes a mode has and what each of them gets.

    nprocesses: whole number from 0 on, or one count for each of `gpu_ids`. gpu_ids: devices of one machine, the
    same one as often as liked; empty or all -1 is the CPU; on a cluster only the number of different ids counts.
    gpu_resource: what a device is called on a cluster, nvidia.com/gpu where not given. coupled: whether the
    processes form one group and live or fail together; train: yes, others: no. env: literal variables, not in
    the key. Source: AllenAct.
    """

    nprocesses: int | Sequence[int]
    gpu_ids: Sequence[int] = ()
    gpu_resource: str | None = None
    coupled: bool | None = None
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class JobShape:
    """The Indexed Job of a mode.

    device_slots: for each index the ids that its process sees on one machine; empty where there is no GPU.
    gpu_resource: empty where there is no GPU. reason: why nothing runs, where completions is 0.
    """

    mode: str
    completions: int
    parallelism: int
    gpus_per_process: int = 0
    gpu_resource: str = ""
    coupled: bool
    device_slots: tuple[tuple[int, ...], ...] = ()
    reason: str = ""

    @property
    def shares_devices(self) -> bool:
        """Whether several processes may run on one GPU at one time."""
        return self.gpus_per_process > 0 and len(set(self.device_slots)) < self.parallelism

    @property
    def gpus(self) -> int:
        """The most GPUs that the Job holds at one time."""
        return self.parallelism * self.gpus_per_process


def machine_params_of(value: Any, *, mode: str) -> MachineParams:
    """What `machine_params` returned: MachineParams, or a mapping of its arguments. Raises MachineError."""
    if isinstance(value, MachineParams):
        return value
    if not isinstance(value, Mapping):
        raise MachineError(
            Fault(
                "",
                f"machine_params(mode={mode!r}) returned a {type(value).__qualname__}.",
                'Return MachineParams(nprocesses=…), or {"nprocesses": …, "gpu_ids": […]}.',
            )
        )
    known = [entry.name for entry in fields(MachineParams)]
    faults = [
        Fault(str(name), "is no machine parameter.", near(str(name), known)) for name in value if name not in known
    ]
    if "nprocesses" not in value:
        faults.append(Fault("nprocesses", "is missing.", "Give the number of processes."))
    if faults:
        raise MachineError(*faults)
    return MachineParams(**value)


def process_count(value: Any) -> int:
    """`value` as a number of processes; ValueError in the words that file and class hear alike."""
    number = _whole(value)
    if number is None or not 0 <= number <= MAX_PROCESSES:
        raise ValueError(f"is {shown(value)}; a number of processes is a whole number from 0 to {MAX_PROCESSES}.")
    return number


def gpu_id(value: Any) -> int:
    """`value` as the id of a GPU, or -1 for the CPU; ValueError in the words that file and class hear alike."""
    number = _whole(value)
    if number is None or number < -1:
        raise ValueError(f"is {shown(value)}; the id of a GPU is a whole number from 0 on, or -1 for the CPU.")
    return number


def _whole(value: Any) -> int | None:
    if isinstance(value, bool | float | str):
        return None
    try:
        return to_index(value)
    except TypeError:
        return None


def plan_job(machine: MachineParams, *, mode: str, local: bool = False, gpu: str = DEFAULT_GPU) -> JobShape:
    """The Job of one mode. local: on one machine, where coupled processes may share a device (gloo). gpu: what a GPU
    is called where the machine does not say it.

    Raises MachineError with every fault; paths are those of the resource's mode block.
    """
    counts, ids = _checked(machine)
    several = isinstance(machine.nprocesses, Sequence)
    total = sum(counts)
    coupled = machine.coupled if machine.coupled is not None else mode in _MODES_COUPLED
    if total == 0:
        return JobShape(mode=mode, completions=0, parallelism=0, coupled=coupled, reason="nprocesses is 0")
    if all(id_ == -1 for id_ in ids):
        return JobShape(mode=mode, completions=total, parallelism=total, coupled=coupled, device_slots=((),) * total)
    slots = _slots_of_counts(counts, ids) if several else _slots_of_total(total, ids)
    devices = {id_ for slot in slots for id_ in slot}
    resource = machine.gpu_resource or gpu
    at_once = total
    if len(devices) < total and not _SHARED.search(resource):
        if not coupled:
            at_once = len(devices)  # indexes take turns: never more GPUs than were granted
        elif not local:
            raise MachineError(Fault("gpuIds", *_too_few(total, len(devices))))
    return JobShape(
        mode=mode,
        completions=total,
        parallelism=at_once,
        gpus_per_process=len(slots[0]),
        gpu_resource=resource,
        coupled=coupled,
        device_slots=slots,
    )


def _checked(machine: MachineParams) -> tuple[list[int], list[int]]:
    faults: list[Fault] = []
    several = isinstance(machine.nprocesses, Sequence) and not isinstance(machine.nprocesses, str | bytes)
    name = "nprocessesPerDevice" if several else "nprocesses"
    given: Sequence[Any] = machine.nprocesses if several else [machine.nprocesses]  # type: ignore[assignment]
    counts, ids = [], []
    for position, value in enumerate(given):
        try:
            counts.append(process_count(value))
        except ValueError as error:
            faults.append(Fault(f"{name}[{position}]" if several else name, str(error)))
    if not isinstance(machine.gpu_ids, Sequence) or isinstance(machine.gpu_ids, str | bytes):
        faults.append(
            Fault("gpuIds", f"is {shown(machine.gpu_ids)}; a list is meant.", "Write [0, 1], or [] for the CPU.")
        )
    else:
        for position, value in enumerate(machine.gpu_ids):
            try:
                ids.append(gpu_id(value))
            except ValueError as error:
                faults.append(Fault(f"gpuIds[{position}]", str(error)))
    if machine.gpu_resource is not None and (not isinstance(machine.gpu_resource, str) or not machine.gpu_resource):
        faults.append(
            Fault("gpuResource", f"is {shown(machine.gpu_resource)}; text is meant.", "Write nvidia.com/gpu.")
        )
    if not isinstance(machine.env, Mapping):
        faults.append(Fault("env", f"is {shown(machine.env)}; a mapping is meant."))
    else:
        bad = {name: value for name, value in machine.env.items() if type(name) is not str or type(value) is not str}
        faults += [
            Fault("", f"is {shown(value)}; text is meant.").under("env", str(name)) for name, value in bad.items()
        ]
    if machine.coupled is not None and not isinstance(machine.coupled, bool):
        faults.append(Fault("coupled", f"is {shown(machine.coupled)}; true or false is meant."))
    if not faults:
        faults += _disagreements(counts, ids, several)
    if faults:
        raise MachineError(*faults)
    return counts, ids


def _disagreements(counts: list[int], ids: list[int], several: bool) -> list[Fault]:
    faults = []
    if several and not counts:
        faults.append(Fault("nprocessesPerDevice", "is empty.", "Give one count for each device, or nprocesses: 0."))
    if several and ids and len(counts) != len(ids):
        what = f"has {len(counts)} counts, and gpuIds has {len(ids)} ids."
        faults.append(Fault("nprocessesPerDevice", what, "Give one count for each id, or nprocesses as one number."))
    if sum(counts) > MAX_PROCESSES:
        what = f"add up to {sum(counts)} processes; one Job has at most {MAX_PROCESSES}."
        faults.append(Fault("nprocessesPerDevice", what, "Ask for fewer."))
    if -1 in ids and any(id_ >= 0 for id_ in ids):
        what = f"is {ids}: the CPU (-1) and GPUs in one Job, whose processes are all alike."
        faults.append(Fault("gpuIds", what, "Give ids of GPUs alone, or [] for the CPU."))
    distinct = len({id_ for id_ in ids if id_ >= 0})
    total = sum(counts)
    if not several and total and distinct > total and distinct % total:
        faults.append(Fault("gpuIds", *_uneven(total, distinct)))
    return faults


def _too_few(total: int, devices: int) -> tuple[str, str]:
    return (
        f"has {devices} different ids for {total} coupled processes, which must all run at once, and whole GPUs "
        "cannot be shared between pods.",
        f"Give {total} ids; or coupled: false; or a gpuResource that is shared, as nvidia.com/gpu.shared or a MIG "
        "profile.",
    )


def _uneven(total: int, devices: int) -> tuple[str, str]:
    lower, upper = devices - devices % total, devices + total - devices % total
    return (
        f"has {devices} different ids for {total} processes, and all processes of a Job get equally many GPUs.",
        f"Give {lower} or {upper} ids, or a number of processes that divides {devices}.",
    )


def _slots_of_total(total: int, ids: list[int]) -> tuple[tuple[int, ...], ...]:
    """Contiguous blocks: of devices where there are at least as many, else of processes."""
    devices = list(dict.fromkeys(ids))
    if len(devices) >= total:
        each = len(devices) // total
        return tuple(tuple(devices[i * each : (i + 1) * each]) for i in range(total))
    each, more = divmod(total, len(devices))
    return _slots_of_counts([each + (i < more) for i in range(len(devices))], devices)


def _slots_of_counts(counts: list[int], ids: list[int]) -> tuple[tuple[int, ...], ...]:
    return tuple((id_,) for count, id_ in zip(counts, ids, strict=True) for _ in range(count))


def process_seeds(base: int, total: int) -> list[int]:
    """One seed from 0 to 2^31 - 1 for each process; the first n of more processes are those of n. Source: AllenAct."""
    draw = random.Random(base)  # noqa: S311 - the same numbers for ever are what is wanted
    return [draw.randint(0, 2**31 - 1) for _ in range(total)]
