"""What to do about one mode of an experiment, from what is wanted and what was seen. Pure: a table, one row a test.

Order of truth: commit record, shard manifests, Job. Nothing here remembers; a restart at any line decides the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from runonce.experiment.contract import CONFIGURATION, DAMAGED_INPUT, LOST_PEER, STOPPED
from runonce.experiment.job import Failure, JobState, Owner, Round, Verdict
from runonce.experiment.manifest import Commit, Shard

MAX_DISRUPTIONS = 20
MAX_TOKENS = 32

# Failures that say nothing against the experiment: the machine or the runner went away.
_DISRUPTIONS = frozenset(("SupervisorLost", "DisruptionTarget", "Suspended"))


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One mode of one experiment.

    total: processes. token: an overwrite or rerun request that a hit must have honoured, else None.
    inputs: mode to digest of the merged manifest that the result is to be made from; None where one is missing.
    fresh: name for a new round, unique; it begins with `made_from`, as every round of the same inputs does, so that
    nothing made from other inputs is taken over. machine: digest of the machine parameters.
    """

    mode: str
    cache_key: str
    owner: Owner
    total: int
    coupled: bool
    retries: int
    machine: str
    fresh: str
    made_from: str = ""
    token: str | None = None
    inputs: Mapping[str, str] | None = field(default_factory=dict)
    reason: str = ""  # why total is 0


@dataclass(frozen=True, kw_only=True)
class Seen:
    """shards: a complete set of the Job's attempt, or without a Job of the newest unfinished round; None unless
    they are all there. unfinished: that round, without a Job. living: processes of the key outside of any Job.
    """

    commit: Commit | None = None
    etag: str = ""
    job: JobState | None = None
    shards: Sequence[Shard] | None = None
    unfinished: str | None = None
    living: Sequence[str] = ()


@dataclass(frozen=True)
class Hit:
    commit: Commit
    cached: bool  # False: this owner's own Job made it


@dataclass(frozen=True)
class Skip:
    reason: str


@dataclass(frozen=True)
class Block:
    reason: str


@dataclass(frozen=True)
class Create:
    round: Round


@dataclass(frozen=True)
class Replace:
    round: Round
    uid: str


@dataclass(frozen=True)
class Join:
    uid: str


@dataclass(frozen=True)
class Wait:
    reason: str


@dataclass(frozen=True)
class Record:
    """Write the verdict onto the Job before anything that would follow from it."""

    round: Round
    uid: str


@dataclass(frozen=True)
class Publish:
    """Write the commit record from these shards."""

    shards: Sequence[Shard]
    round: Round


@dataclass(frozen=True)
class Fail:
    reason: str
    failures: Sequence[Failure]


Decision = Hit | Skip | Block | Create | Replace | Join | Wait | Record | Publish | Fail


def decide(wanted: Wanted, seen: Seen) -> Decision:
    """The one thing to do next. Asked again after it is done, until it says Hit, Skip, Block or Fail."""
    commit, job = seen.commit, seen.job
    if commit is not None and _honours(commit, wanted):
        mine = job is not None and wanted.owner in job.owners and job.uid == commit.attempt
        return Hit(commit, cached=not mine)
    if wanted.total == 0:
        return Skip(wanted.reason)
    if wanted.inputs is None:
        return Block("the artifacts of train are needed, and train is neither run nor cached")
    if job is None:
        if seen.living:
            return Wait(f"processes of an earlier Job still run: {', '.join(seen.living)}")
        if seen.shards is not None and wanted.token is None:
            return Publish(seen.shards, _round(wanted, seen, seen.shards[0].round))
        resumed = seen.unfinished if wanted.token is None else None
        return Create(_round(wanted, seen, resumed or wanted.fresh))
    if job.cache_key != wanted.cache_key:
        return Fail("JobNameTaken", (Failure(index=-1, exit_code=None, reason=f"{job.name} has another key"),))
    if job.phase == "ending":
        return Wait(f"{job.name} is being deleted")
    if job.phase == "active":
        if wanted.owner not in job.owners:
            return Wait(f"{job.name} is failing") if job.failing else Join(job.uid)
        return Wait(f"{job.name} is running")
    return _after_end(wanted, seen, job)


def _after_end(wanted: Wanted, seen: Seen, job: JobState) -> Decision:
    stale = wanted.token is not None and wanted.token not in job.round.tokens
    stale = stale or not job.round.round.startswith(wanted.made_from)
    if seen.shards is not None and not stale:
        # A commit that was damaged since the round began is replaced; any other is as it was then, or adopted.
        return Publish(seen.shards, job.round if seen.commit is not None else replace(job.round, replaces=seen.etag))
    if stale:
        return Replace(_round(wanted, seen, wanted.fresh), job.uid)
    if wanted.owner not in job.owners:
        # Another owner's outcome is not ours: the same round goes on, and with it its checkpoints.
        return Replace(replace(job.round, attempt=job.round.attempt + 1, verdict=None), job.uid)
    if job.round.verdict is None:
        return Record(_judged(wanted, job), job.uid)
    failures = job.failures or (Failure(index=-1, exit_code=None, reason="ShardsMissing"),)
    if job.round.verdict == "final":
        return Fail(_reason(failures), failures)
    if job.round.verdict == "charged" and job.round.charges.get(wanted.owner.uid, 0) > wanted.retries:
        return Fail(_reason(failures), failures)
    if job.round.disruptions > MAX_DISRUPTIONS:
        return Fail("TooManyDisruptions", failures)
    return Replace(replace(job.round, attempt=job.round.attempt + 1, verdict=None), job.uid)


def _honours(commit: Commit, wanted: Wanted) -> bool:
    if wanted.token is not None and wanted.token not in commit.tokens:
        return False
    # A mode that cannot be run again keeps what it has, whatever became of its input.
    return wanted.inputs is None or wanted.total == 0 or dict(commit.inputs) == dict(wanted.inputs)


def _round(wanted: Wanted, seen: Seen, name: str) -> Round:
    before = seen.commit.tokens if seen.commit is not None else ()
    tokens = (*before, wanted.token) if wanted.token is not None and wanted.token not in before else before
    return Round(round=name, machine=wanted.machine, replaces=seen.etag, tokens=tokens[-MAX_TOKENS:])


def _judged(wanted: Wanted, job: JobState) -> Round:
    verdict = judge(job.failures, coupled=wanted.coupled, complete=job.phase == "complete")
    charges = dict(job.round.charges)
    if verdict == "charged":
        charges[wanted.owner.uid] = charges.get(wanted.owner.uid, 0) + 1
    disruptions = job.round.disruptions + (verdict == "disrupted")
    return replace(job.round, verdict=verdict, charges=charges, disruptions=disruptions)


def judge(failures: Sequence[Failure], *, coupled: bool, complete: bool = False) -> Verdict:
    """final: nothing can help. disrupted: nobody's fault. charged: against the owner's retries.

    complete: the Job said so, but its shards are not there.
    """
    codes = [failure.exit_code for failure in failures]
    if CONFIGURATION in codes or DAMAGED_INPUT in codes:
        return "final"  # no retry can help: the input is made anew first, by who asked for this
    if complete:
        return "charged"
    if any(failure.reason in _DISRUPTIONS for failure in failures):
        return "disrupted"
    root = [code for failure, code in zip(failures, codes, strict=True) if failure.reason != "EndedWithGroup"]
    if root and all(code in (STOPPED, LOST_PEER) for code in root) and STOPPED in root:
        return "disrupted"
    # Each index of an independent Job has had its own retries already.
    return "charged" if coupled else "final"


def _reason(failures: Sequence[Failure]) -> str:
    first = failures[0]
    known = {CONFIGURATION: "ConfigurationError", DAMAGED_INPUT: "DamagedInput"}
    return known.get(first.exit_code or 0, first.reason)
