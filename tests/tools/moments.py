"""Moments of a run, drawn over all of its writes; and the processes that belong to it, found from outside."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

STOPS = Path(__file__).with_name("stops")

_PHASES = (
    ("/k/", "checkpoint"),
    ("/saving-", "checkpoint"),
    ("/store/w/", "publish: shard"),
    ("/store/b/", "publish: files"),
    ("/store/m/", "commit"),
    ("/store/n/", "commit"),
    ("/store/c/", "commit"),
    ("/store/results", "results"),
    ("/store/l", "lease"),
    ("/inputs/", "inputs"),
    ("/out/", "output"),
    ("/jobs/", "job"),
)


@dataclass(frozen=True)
class Moment:
    """Before the write of this number by this role. phase: what the run was doing."""

    role: str
    number: int
    phase: str

    def __str__(self) -> str:
        return f"{self.role} {self.number}"


def read_moments(trace: str) -> list[Moment]:
    """Every write of a run that nobody disturbed, in the order of time."""
    rows = [line.split(" ", 2) for line in trace.splitlines()]
    moments = []
    for place, (role, number, _) in enumerate(rows):
        # What is written beside its place is of the phase of where it is put next.
        later = (_phase(path) for other, _, path in rows[place:] if other == role)
        moments.append(Moment(role, int(number), next((phase for phase in later if phase), "end")))
    return moments


def _phase(path: str) -> str:
    return next((phase for part, phase in _PHASES if part in path), "")


def spread(moments: list[Moment], number: int, of: int, draw: random.Random) -> Moment:
    """One moment in the part `number` of `of` equal parts of the run."""
    return moments[int((number + draw.random()) / of * len(moments))]


def processes(home: Path) -> dict[int, str]:
    """Living processes of runs under this home, by pid: `parent`, `supervisor`, `rank`, or else `other`."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            words = (entry / "cmdline").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state in "ZX" or f"RUNONCE_HOME={home}".encode() not in environment:
            continue
        found[int(entry.name)] = _kind(os.fsdecode(b" ".join(words)))
    return found


def _kind(command: str) -> str:
    if "guard.py" in command:
        return "supervisor"
    if "runonce.worker" in command:
        return "rank"
    return "parent" if "runonce run" in command else "other"
