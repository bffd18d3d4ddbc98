"""One word for where an experiment stands, out of where its modes stand. The same on a laptop as in a resource."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Phase(StrEnum):
    PENDING = "Pending"  # nothing has been decided, or the Job has not started a process
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    BLOCKED = "Blocked"  # needs the artifacts of a mode that is neither run nor cached
    SKIPPED = "Skipped"  # nprocesses: 0
    FAILED = "Failed"
    SUCCEEDED = "Succeeded"


# The first that any mode has is the experiment's; Skipped counts as done.
_ORDER = (Phase.FAILED, Phase.BLOCKED, Phase.SUSPENDED, Phase.RUNNING, Phase.PENDING)


def phase_of(modes: Iterable[Phase]) -> Phase:
    found = set(modes)
    return next((phase for phase in _ORDER if phase in found), Phase.SUCCEEDED)
