"""What to do about one mode of an experiment, from what is wanted and what was seen. Pure: a table, one row a test.

Order of truth: commit record, shard manifests, Job. Nothing here remembers; a restart at any line decides the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from runonce.experiment.blame import TOO_MANY_STOPS, judge, named, stopped_unasked
from runonce.experiment.job import Failure, JobState, Owner, Round
from runonce.experiment.manifest import Commit, Shard

MAX_DISRUPTIONS = 20
MAX_DELETIONS = 5
MAX_TOKENS = 32
MAX_OWNERS = 100  # each one that joins rewrites the Job


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """What the status says of this key. uid: of the Job; empty where `round` is that of an attempt still to be made.

    given_up: it had failed for good, and what was asked for has changed since.
    """

    uid: str
    round: Round
    given_up: bool = False


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One mode of one experiment.

    total: processes. tokens: requests to overwrite or to run again that a hit must have honoured.
    inputs: mode to digest of the merged manifest that the result is to be made from; None where one is missing.
    fresh: name for a new round, unique; it begins with `made_from`, as every round of the same inputs does, so that
    nothing made from other inputs is taken over. machine: digest of the machine parameters.

    What a resource adds. suspend: nothing is to run. ttl_s: how long a Job stays after the commit. start_deadline_s:
    how long it may take to start. earlier: the Job that the status names, with its record.
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
    tokens: Sequence[str] = ()
    inputs: Mapping[str, str] | None = field(default_factory=dict)
    reason: str = ""  # why total is 0
    suspend: bool = False
    ttl_s: int | None = None
    start_deadline_s: int | None = None
    earlier: Earlier | None = None

    def is_late(self, waited_s: float) -> bool:
        """Whether pods that have been due for so long should have begun by now."""
        return self.start_deadline_s is not None and waited_s > self.start_deadline_s


@dataclass(frozen=True, kw_only=True)
class Seen:
    """shards: a complete set of the Job's attempt, or without a Job of the newest unfinished round; None unless
    they are all there. unfinished: that round, without a Job. living: processes of the key outside of any Job.
    others_want: another owner of the Job wants it to run. waited_s: since its pods were due, where none ran yet.
    held_up: what keeps them from it, where that is too long.
    """

    commit: Commit | None = None
    etag: str = ""
    job: JobState | None = None
    shards: Sequence[Shard] | None = None
    unfinished: str | None = None
    living: Sequence[str] = ()
    others_want: bool = False
    waited_s: float = 0.0
    held_up: str = ""


@dataclass(frozen=True)
class Hit:
    commit: Commit
    cached: bool  # False: this owner's own Job made it


@dataclass(frozen=True)
class Skip:
    reason: str


@dataclass(frozen=True)
class Block:
    """Only somebody else can help. cause: CamelCase, for a condition."""

    reason: str
    cause: str = "InputMissing"


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
    """cause: CamelCase, for a condition."""

    reason: str
    cause: str = "Running"


@dataclass(frozen=True)
class Pause:
    """Nothing is to run until the user says so."""

    reason: str


@dataclass(frozen=True)
class Suspend:
    uid: str
    value: bool


@dataclass(frozen=True)
class Leave:
    uid: str


@dataclass(frozen=True)
class Expire:
    uid: str
    seconds: int


@dataclass(frozen=True)
class Record:
    """Write the verdict, or a request that the Job honours too, onto the Job before anything that follows from it."""

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


Decision = (
    Hit | Skip | Block | Pause | Create | Replace | Join | Suspend | Leave | Expire | Wait | Record | Publish | Fail
)


def decide(wanted: Wanted, seen: Seen) -> Decision:
    """The one thing to do next. Asked again after it is done, until it says Hit, Skip, Block, Pause or Fail."""
    commit, job = seen.commit, seen.job
    if commit is not None and honours(commit, wanted):
        return _hit(wanted, commit, job)
    if wanted.total == 0:
        return Skip(wanted.reason)
    if wanted.suspend:
        return _suspended(wanted, seen)
    if wanted.inputs is None:
        return Block("the artifacts of train are needed, and train is neither run nor cached")
    if job is None:
        return _without_job(wanted, seen)
    if job.cache_key != wanted.cache_key:
        return Block(f"{job.name} is there, and is of another key: remove or rename it", "JobNameTaken")
    if job.phase == "ending":
        return Wait(f"{job.name} is being deleted", "Ending")
    if job.phase == "active":
        return _while_active(wanted, seen, job)
    return _after_end(wanted, seen, job)


def _hit(wanted: Wanted, commit: Commit, job: JobState | None) -> Decision:
    mine = job is not None and wanted.owner in job.owners
    if job is not None and mine and job.phase == "active" and job.uid != commit.attempt:
        return Leave(job.uid)  # somebody else was faster
    if job is not None and mine and job.phase in ("complete", "failed") and job.ttl_s is None and wanted.ttl_s:
        return Expire(job.uid, wanted.ttl_s)
    made = job is not None and mine and job.uid == commit.attempt
    earlier = wanted.earlier
    made = made or (earlier is not None and (earlier.uid == commit.attempt or earlier.round.round == commit.round))
    return Hit(commit, cached=not made)


def _suspended(wanted: Wanted, seen: Seen) -> Decision:
    job = seen.job
    if job is not None and job.phase == "active" and wanted.owner in job.owners:
        if job.queued:
            return Leave(job.uid)  # its `suspend` is the queue's
        if not (job.suspended or job.failing or seen.others_want):
            return Suspend(job.uid, True)
    return Pause("spec.suspend is true")


def _without_job(wanted: Wanted, seen: Seen) -> Decision:
    earlier = wanted.earlier
    if seen.living:
        return Wait(f"processes of an earlier Job still run: {', '.join(seen.living)}", "WaitingForPods")
    fits = earlier is not None and _serves(wanted, earlier.round)
    asked_for = earlier.round.round if earlier is not None and fits else ""
    if seen.shards is not None and (not wanted.tokens or seen.shards[0].round == asked_for):
        return Publish(seen.shards, _round(wanted, seen, seen.shards[0].round))
    if earlier is not None and fits and earlier.given_up:
        return Create(_taken_up(wanted, earlier.round))
    if earlier is not None and fits and not earlier.uid:
        return Create(earlier.round)
    if earlier is not None and fits:
        return _after_deletion(wanted, earlier.round)
    resumed = seen.unfinished if not wanted.tokens else None
    return Create(_round(wanted, seen, resumed or wanted.fresh))


def _after_deletion(wanted: Wanted, lost: Round) -> Decision:
    """The status names a Job that is gone. Where it is there after all, the POST will say so, and nothing counts."""
    if lost.verdict is not None:
        if lost.verdict == "final" or lost.charges.get(wanted.owner.uid, 0) > wanted.retries:
            return Fail("JobDeleted", (Failure(index=-1, exit_code=None, reason="JobDeleted"),))
        return Create(_next(wanted, lost))
    if lost.deletions >= MAX_DELETIONS:
        return Fail("JobDeleted", (Failure(index=-1, exit_code=None, reason="JobDeleted"),))
    return Create(replace(_next(wanted, lost), deletions=lost.deletions + 1))


def _while_active(wanted: Wanted, seen: Seen, job: JobState) -> Decision:
    if job.failing and job.suspended and not job.active:
        # It stays so: the API server refuses a failed Job without a start time, and suspension takes that away.
        return _after_end(wanted, seen, job)
    if wanted.owner not in job.owners:
        if job.failing:
            return Wait(f"{job.name} is failing", "Failing")
        if len(job.owners) >= MAX_OWNERS:
            return Wait(f"{job.name} has {len(job.owners)} owners, and its result is waited for", "SharedJob")
        return Join(job.uid)
    if job.failing:
        if job.round.verdict is None and job.failures:
            return Record(_judged(wanted, job), job.uid)
        return Wait(f"{job.name} is failing", "Failing")
    if not _has(job.round.tokens, wanted):
        return Record(replace(job.round, tokens=_with(job.round.tokens, wanted)), job.uid)
    if _edited(wanted, job) and (job.suspended or not (job.ready or job.succeeded)):
        # Nothing is lost: what was suspended goes on from its checkpoints, and what never ran, an image that cannot be
        # pulled say, would never end, and so there would never be a next attempt.
        return Replace(_next(wanted, job.round), job.uid)
    if job.suspended and not job.queued:
        return Suspend(job.uid, False)
    if wanted.is_late(seen.waited_s):
        late = Failure(index=-1, exit_code=None, reason="StartDeadlineExceeded", log_tail=seen.held_up)
        return Fail("StartDeadlineExceeded", (late,))
    return Wait(f"{job.name} is running")


def _edited(wanted: Wanted, job: JobState) -> bool:
    """Whether its creator would make the Job another way today."""
    return wanted.owner == job.owners[0] and job.round.machine not in ("", wanted.machine)


def _after_end(wanted: Wanted, seen: Seen, job: JobState) -> Decision:
    earlier = wanted.earlier
    stale = not _serves(wanted, job.round)
    if seen.shards is not None and not stale:
        if wanted.tokens and seen.commit is not None and seen.etag != job.round.replaces:
            return Hit(seen.commit, cached=True)  # replaced by another meanwhile: the request is honoured
        # What stands there is damaged, or made from other inputs, or asked to be made anew.
        return Publish(seen.shards, replace(job.round, replaces=seen.etag))
    if (
        earlier is not None
        and not earlier.uid
        and _serves(wanted, earlier.round)
        and _follows(earlier.round, job.round)
    ):
        return Replace(earlier.round, job.uid)  # decided already, and not yet done
    if stale:
        return Replace(_round(wanted, seen, wanted.fresh), job.uid)
    if earlier is not None and earlier.given_up and not _follows(job.round, earlier.round):
        return Replace(_taken_up(wanted, job.round), job.uid)
    if wanted.owner not in job.owners:
        # Another owner's outcome is not ours: the same round goes on, and with it its checkpoints.
        return Replace(_next(wanted, job.round), job.uid)
    if job.round.verdict is None:
        return Record(_judged(wanted, job), job.uid)
    failures = job.failures or (Failure(index=-1, exit_code=None, reason="ShardsMissing"),)
    if job.round.verdict == "final":
        return Fail(named(failures[0])[0], failures)
    if job.round.verdict == "charged" and job.round.charges.get(wanted.owner.uid, 0) > wanted.retries:
        return Fail(named(failures[0])[0], failures)
    if job.round.disruptions > MAX_DISRUPTIONS:
        return Fail(TOO_MANY_STOPS if stopped_unasked(failures) else "TooManyDisruptions", failures)
    return Replace(_next(wanted, job.round), job.uid)


def _serves(wanted: Wanted, round_: Round) -> bool:
    """Whether a round is made from the inputs of now, and honours the request."""
    return round_.round.startswith(wanted.made_from) and _has(round_.tokens, wanted)


def _follows(later: Round, earlier: Round) -> bool:
    return later.round != earlier.round or later.attempt > earlier.attempt


def _next(wanted: Wanted, before: Round) -> Round:
    return replace(before, attempt=before.attempt + 1, verdict=None, machine=wanted.machine, deletions=0)


def _taken_up(wanted: Wanted, given_up: Round) -> Round:
    """After an edit: the same round goes on, from its checkpoints and from what is published, with all its retries."""
    charges = {uid: count for uid, count in given_up.charges.items() if uid != wanted.owner.uid}
    return replace(_next(wanted, given_up), charges=charges, disruptions=0)


def honours(commit: Commit, wanted: Wanted) -> bool:
    """Whether it is the result that is wanted: a hit."""
    return _has(commit.tokens, wanted) and is_current(commit, wanted.inputs, total=wanted.total)


def is_current(commit: Commit, inputs: Mapping[str, str] | None, *, total: int) -> bool:
    """Whether it was made from these inputs. A mode that cannot run again keeps what it has, whatever became of them.

    inputs: as in Wanted. total: processes of the mode.
    """
    return inputs is None or total == 0 or dict(commit.inputs) == dict(inputs)


def _round(wanted: Wanted, seen: Seen, name: str) -> Round:
    before = seen.commit.tokens if seen.commit is not None else ()
    return Round(round=name, machine=wanted.machine, replaces=seen.etag, tokens=_with(before, wanted))


def _has(tokens: Sequence[str], wanted: Wanted) -> bool:
    return set(wanted.tokens) <= set(tokens)


def _with(tokens: Sequence[str], wanted: Wanted) -> tuple[str, ...]:
    return (*tokens, *(token for token in wanted.tokens if token not in tokens))[-MAX_TOKENS:]


def _judged(wanted: Wanted, job: JobState) -> Round:
    verdict = judge(job.failures, coupled=wanted.coupled, complete=job.phase == "complete")
    charges = dict(job.round.charges)
    if verdict == "charged":
        # Whoever joined with other machine parameters is not to blame for those of the creator, who stands first.
        to_blame = {job.owners[0].uid} if wanted.machine != job.round.machine else {wanted.owner.uid}
        for uid in to_blame:
            charges[uid] = charges.get(uid, 0) + 1
    disruptions = job.round.disruptions + (verdict == "disrupted")
    return replace(job.round, verdict=verdict, charges=charges, disruptions=disruptions)
