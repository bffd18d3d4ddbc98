"""Whose fault it was that an attempt failed, and what to call it: the same in a cluster and on one machine. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from runonce.experiment.contract import CONFIGURATION, DAMAGED_INPUT, LOST_PEER, STALLED, STOPPED
from runonce.experiment.job import Failure, Verdict

ENDED_WITH_GROUP = "EndedWithGroup"  # a coupled process that was told to end because another one had
HUNG = "Hung"
POD_LOST = "PodLost"
OVERTIME = "DeadlineExceeded"
TOO_MANY_STOPS = "TooManyStops"
NO_PROGRAM = "NoProgram"  # an image that cannot run what a pod begins with

_REASONS = {
    STOPPED: "Stopped",
    LOST_PEER: "LostPeer",
    DAMAGED_INPUT: "DamagedInput",
    CONFIGURATION: "ConfigurationError",
    STALLED: "Stalled",
    137: "KilledKill",  # where nobody says who did it it was the kernel, for memory, more often than not
}
# As `worker.run` says it last: the class of the error, in the words of conditions, and all of its text.
_NAMED = re.compile(r"^error \(([A-Z][A-Za-z0-9]{1,62})\): ", re.MULTILINE)

# Failures that say nothing against the experiment: the machine or the runner went away.
_DISRUPTIONS = frozenset(("SupervisorLost", "DisruptionTarget", POD_LOST, "Suspended"))


def error_line(reason: str, text: object) -> str:
    """The last words of a worker that knows why it ends."""
    return f"error ({reason}): {text}"


def reason_of(exit_code: int) -> str:
    """What an exit code above 0 means by the contract."""
    return _REASONS.get(exit_code, "Error")


def named(failure: Failure) -> tuple[str, str]:
    """(reason, text) as a condition shows them; the text is the last line where the worker could not say why."""
    tail = failure.log_tail.strip()
    found = list(_NAMED.finditer(tail))
    if found and failure.reason in (reason_of(failure.exit_code or 0), found[-1][1]):
        return found[-1][1], tail[found[-1].end() :].strip()
    return failure.reason, (tail.splitlines() or [""])[-1].strip()


def ordered(failures: Iterable[Failure]) -> tuple[Failure, ...]:
    """The cause before its victims.

    Where all that ended by themselves had lost a peer, who had to be ended did not answer them: it is the cause.
    """
    found = list(failures)
    if only_victims(failure for failure in found if failure.reason != ENDED_WITH_GROUP):
        found = [replace(f, reason=HUNG) if _was_silent(f) else f for f in found]
    return tuple(sorted(found, key=_rank))


def only_victims(failures: Iterable[Failure]) -> bool:
    """Whether there are some, and each of them had lost a peer."""
    codes = [failure.exit_code for failure in failures]
    return bool(codes) and all(code == LOST_PEER for code in codes)


def merged(before: Sequence[Failure], after: Sequence[Failure]) -> tuple[Failure, ...]:
    """What was known of an attempt, and what its pods say now. Those that are gone by now had not ended before."""
    known = {failure.index: failure for failure in before}
    for failure in after:
        gone = bool(before) and failure.reason == POD_LOST
        known.setdefault(failure.index, replace(failure, reason=ENDED_WITH_GROUP) if gone else failure)
    return ordered(known.values()) if before else tuple(after)


def judge(failures: Sequence[Failure], *, coupled: bool, complete: bool = False) -> Verdict:
    """final: nothing can help. disrupted: nobody's fault. charged: against the owner's retries.

    complete: the Job said so, but its shards are not there.
    """
    codes = [failure.exit_code for failure in failures]
    reasons = {failure.reason for failure in failures}
    if CONFIGURATION in codes or DAMAGED_INPUT in codes or NO_PROGRAM in reasons:
        return "final"  # no retry can help: the input is made anew first, by who asked for this
    if complete:
        return "charged"
    if reasons & _DISRUPTIONS:
        return "disrupted"
    root = [code for failure, code in zip(failures, codes, strict=True) if failure.reason != ENDED_WITH_GROUP]
    if failures and not root:
        return "disrupted"  # all of them were told to end, and none ended first: someone deleted a pod
    # By a limit of the experiment's own it is told to end as by a machine that goes.
    if OVERTIME not in reasons and root and all(code in (STOPPED, LOST_PEER) for code in root) and STOPPED in root:
        return "disrupted"
    # Each index of an independent Job has had its own retries already.
    return "charged" if coupled else "final"


def stopped_unasked(failures: Sequence[Failure]) -> bool:
    """Whether it was the program that ended as if it had been told to, and nobody's machine that went away."""
    stopped = any(f.exit_code == STOPPED and f.reason != ENDED_WITH_GROUP for f in failures)
    return stopped and not {f.reason for f in failures} & _DISRUPTIONS


def _was_silent(failure: Failure) -> bool:
    return failure.reason == ENDED_WITH_GROUP and failure.exit_code not in (STOPPED, LOST_PEER)


def _rank(failure: Failure) -> tuple[int, int]:
    if failure.reason == ENDED_WITH_GROUP:
        return 2, failure.index
    return int(failure.exit_code in (STOPPED, LOST_PEER)), failure.index
