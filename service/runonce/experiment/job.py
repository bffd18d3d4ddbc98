"""A Job as a value: what is asked for (`JobPlan`), what is there (`JobState`), and the door to both (`Jobs`).

`local.processes` and `kube.jobs` stand behind the door; one test-suite holds for both.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Protocol

from runonce.experiment.machine import JobShape

if TYPE_CHECKING:
    from runonce.experiment.spec import ExperimentSpec

Verdict = Literal["final", "charged", "disrupted"]
JobPhase = Literal["active", "complete", "failed", "ending"]

MAX_NAME = 57  # with a hyphen and an index of five digits it is a host name of 63


@lru_cache(maxsize=4096)
def job_name(entry: str, mode: str, cache_key: str) -> str:
    """`<entry>-<mode>-<20 base-32 digits of the key>`: a function of the key, so that it is a lock on it."""
    digits = base64.b32encode(bytes.fromhex(cache_key)).decode().lower()[:20]
    clean = re.sub(r"[^a-z0-9]+", "-", entry.rpartition(":")[2].lower()).strip("-")
    start = clean[: MAX_NAME - len(mode) - len(digits) - 2].strip("-") or "experiment"
    return f"{start}-{mode}-{digits}"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Who wants a Job's result: an Experiment, or one `runonce run`."""

    uid: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What is known of one process that did not end with 0. `exit_code` is negative for a signal, as in Python."""

    index: int
    exit_code: int | None
    reason: str
    log_tail: str = ""

    def to_json(self) -> dict[str, Any]:
        code = {} if self.exit_code is None else {"exitCode": self.exit_code}
        return {"index": self.index, **code, "reason": self.reason, "logTail": self.log_tail}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Failure:
        return cls(
            index=value["index"],
            exit_code=value.get("exitCode"),
            reason=value["reason"],
            log_tail=value["logTail"],
        )


@dataclass(frozen=True, kw_only=True)
class Round:
    """What a pass cannot derive from the Job itself; travels in its annotation and into the next attempt's Job.

    round: name of one effort to make the result; shards of different rounds never mix.
    attempt: from 1. charges: failed attempts by owner uid. disruptions: attempts lost without fault.
    machine: digest of the machine parameters of the Job's creator. replaces: ETag of the commit record
    that this round is to replace, empty where there was none. tokens: overwrite and rerun requests honoured.
    deletions: Jobs in a row that someone deleted before they ended.
    """

    round: str
    attempt: int = 1
    charges: Mapping[str, int] = field(default_factory=dict)
    disruptions: int = 0
    verdict: Verdict | None = None
    machine: str = ""
    replaces: str = ""
    tokens: tuple[str, ...] = ()
    deletions: int = 0

    def to_json(self) -> dict[str, Any]:
        verdict = {} if self.verdict is None else {"verdict": self.verdict}
        deletions = {"deletions": self.deletions} if self.deletions else {}
        return {
            "round": self.round,
            "attempt": self.attempt,
            "charges": dict(self.charges),
            "disruptions": self.disruptions,
            **verdict,
            "machine": self.machine,
            "replaces": self.replaces,
            "tokens": list(self.tokens),
            **deletions,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Round:
        return cls(
            round=value["round"],
            attempt=value["attempt"],
            charges=dict(value["charges"]),
            disruptions=value["disruptions"],
            verdict=value.get("verdict"),
            machine=value["machine"],
            replaces=value["replaces"],
            tokens=tuple(value["tokens"]),
            deletions=value.get("deletions", 0),
        )


@dataclass(frozen=True, kw_only=True)
class JobPlan:
    """One Indexed Job to be made. The name is a function of `cache_key` and so a lock on it.

    spec: the Experiment's spec as canonical JSON, for the worker. env: literal variables of the spec and of
    the machine block, then those of the contract, as the process shall see them (nothing is expanded).
    retries: back-off limit of each index where the ranks are independent; 0 where they are coupled, since
    a coupled Job fails as a group. active_deadline_s: seconds one process may run, None for no limit.
    experiment: the same spec as a value, for what a pod is made from; on one machine nobody asks for it.
    """

    name: str
    cache_key: str
    shape: JobShape
    spec: str
    env: Mapping[str, str]
    owner: Owner
    round: Round
    retries: int = 0
    active_deadline_s: int | None = None
    suspend: bool = False
    experiment: ExperimentSpec | None = None


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process or pod that has not ended yet. node: where it runs. due: when it should have ended, as RFC 3339."""

    name: str
    index: int
    job_uid: str
    node: str = ""
    due: str = ""

    def __str__(self) -> str:
        where = f" on node {self.node}" if self.node else ""
        return self.name + where + (f", which should have ended at {self.due}" if self.due else "")


@dataclass(frozen=True, kw_only=True)
class JobState:
    """A Job as it was seen. `uid` tells this one from others of its name; shards carry it as their attempt.

    phase: `active` until the outcome is certain and no process is left; `ending` while it is being deleted.
    failing: the outcome is failure, but processes are still alive; the next attempt must wait for `failed`.
    failures: one for each process that did not end with 0, the root cause first where it is known.
    On a cluster too: ready: processes that run. missing: pods that are due and not there. ttl_s: after which it
    vanishes. queued: whether a queue decides when it runs. started: since when its pods are due, as RFC 3339.
    terminating: pods that were told to end and have not.
    """

    name: str
    uid: str
    cache_key: str
    completions: int
    round: Round
    owners: tuple[Owner, ...]
    phase: JobPhase
    failing: bool = False
    active: int = 0
    succeeded: tuple[int, ...] = ()
    failures: tuple[Failure, ...] = ()
    suspended: bool = False
    ready: int = 0
    missing: int = 0
    ttl_s: int | None = None
    queued: bool = False
    started: str = ""
    terminating: int = 0


class Jobs(Protocol):
    """Names are used again by the next attempt, so every write carries the uid of the Job that it means."""

    def get(self, name: str) -> JobState | None: ...

    def owned(self, owner: Owner) -> list[JobState]: ...

    def living(self, cache_key: str) -> list[Process]:
        """Processes or pods of the key that have not ended, whoever started them."""

    def create(self, plan: JobPlan) -> JobState:
        """Raises `JobExists` when the name is taken, `JobNameTaken` where that is seen to be by something else."""

    def replace(self, plan: JobPlan, *, uid: str) -> JobState:
        """Put the next attempt in the place of the Job `uid`. Raises `StillEnding`; never blocks."""

    def join(self, name: str, owner: Owner, *, uid: str, cache_key: str) -> JobState:
        """Add an owner to a running Job. Raises `JobGone` when it is not there, ended, or another one."""

    def leave(self, name: str, owner: Owner, *, uid: str) -> None:
        """Drop the owner; the last one out ends the Job. Nothing happens when it is gone already."""

    def record(self, name: str, *, uid: str, data: Round) -> None:
        """Write the round's record (the verdict) onto the Job. Raises `JobGone`."""

    def expire(self, name: str, *, uid: str, seconds: int) -> None:
        """Let the Job vanish `seconds` after it finished; called after the commit."""

    def suspend(self, name: str, *, uid: str, value: bool) -> None: ...
