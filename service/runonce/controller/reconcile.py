"""One pass over one mode: observe, decide, apply. The same on a laptop and in a cluster."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from runonce.controller import decide as rules
from runonce.controller.decide import Decision, Earlier, Seen, Wanted
from runonce.errors import JobExists, JobGone, JobNameTaken, JobRefused, StillEnding
from runonce.experiment.blame import HUNG
from runonce.experiment.canonical import canonical, digest
from runonce.experiment.contract import HEALING, Contract, Input
from runonce.experiment.job import Failure, JobPlan, Jobs, JobState, Owner, Round, job_name
from runonce.experiment.key import KeyParts
from runonce.experiment.machine import DEFAULT_GPU, JobShape
from runonce.experiment.manifest import Commit, Shard
from runonce.experiment.spec import ExperimentSpec
from runonce.store.backend import Backend
from runonce.store.commit import DamagedCommit, complete_attempt, newest_round, probe
from runonce.store.commit import commit as write_commit
from runonce.store.failures import record_failure
from runonce.store.lease import Leases

DAMAGED = "damaged-"  # a token that begins so asks for a result anew whose bytes in the store are damaged


@dataclass(frozen=True, kw_only=True)
class ModeOf:
    """One mode of one experiment with all that its Job is made from.

    inputs: None where one is missing. gpu: what a GPU is called on a cluster where the machine does not say it.
    earlier: what the status of the resource says. others_want: whether any of these owners wants the Job to run.
    waited_s: how long a Job's pods have been due while none of them runs. held_up: what keeps them from it.
    """

    name: str
    spec: ExperimentSpec
    mode: str
    parts: KeyParts
    cache_key: str
    owner: Owner
    store: str
    inputs: Mapping[str, Input] | None
    tokens: Sequence[str] = ()
    local: bool = True
    gpu: str = DEFAULT_GPU
    extra_env: Mapping[str, str] | None = None
    earlier: Earlier | None = None
    others_want: Callable[[Sequence[Owner]], bool] = lambda owners: False
    quick: int = 0  # as in the contract
    waited_s: Callable[[JobState], float] = lambda job: 0.0
    held_up: Callable[[JobState], str] = lambda job: ""

    @property
    def job_name(self) -> str:
        return job_name(self.spec.config or "command", self.mode, self.cache_key)

    @property
    def manifests(self) -> dict[str, str] | None:
        return None if self.inputs is None else {mode: given.manifest for mode, given in self.inputs.items()}

    @property
    def made_from(self) -> str:
        """What the names of this mode's rounds begin with: they hold nothing that was made from other inputs."""
        return f"{digest(self.manifests or {})[:12]}-"

    @property
    def heals(self) -> bool:
        return any(token.startswith(DAMAGED) for token in self.tokens)

    def shape(self) -> JobShape:
        return self.spec.shape(self.mode, local=self.local, gpu=self.gpu)

    def wanted(self) -> Wanted:
        shape = self.shape()
        return Wanted(
            mode=self.mode,
            cache_key=self.cache_key,
            owner=self.owner,
            total=shape.completions,
            coupled=shape.coupled,
            retries=self.spec.retries,
            machine=machine_digest(self.spec, self.mode),
            fresh=f"{self.made_from}{uuid.uuid4().hex}{HEALING if self.heals else ''}",
            made_from=self.made_from,
            tokens=self.tokens,
            inputs=self.manifests,
            reason=shape.reason,
            suspend=self.spec.suspend and not self.local,
            ttl_s=None if self.local else self.spec.ttl_seconds_after_finished,
            start_deadline_s=None if self.local else self.spec.start_deadline_seconds,
            earlier=self.earlier,
        )

    def plan(self, round_: Round) -> JobPlan:
        shape = self.shape()
        block = self.spec.block(self.mode)
        contract = Contract(
            mode=self.mode,
            cache_key=self.cache_key,
            round=round_.round,
            total=shape.completions,
            store=self.store,
            name=self.name,
            inputs=self.inputs or {},
            quick=self.quick,
        )
        env = {**(self.extra_env or {}), **self.spec.env, **(block.env if block else {}), **contract.to_env()}
        return JobPlan(
            name=self.job_name,
            cache_key=self.cache_key,
            shape=shape,
            spec=canonical(self.spec.to_json()).decode(),
            env=env,
            owner=self.owner,
            round=round_,
            retries=0 if shape.coupled else self.spec.retries,
            active_deadline_s=self.spec.active_deadline_seconds,
            suspend=self.spec.suspend,
            experiment=self.spec,
        )


# Beside the mode's machine parameters: what shapes its pods and is in no key.
_OF_PODS = (
    "image", "imagePullSecrets", "profile", "resources", "nodeSelector", "tolerations", "envFrom", "volumes",
    "serviceAccountName", "priorityClassName", "queueName", "store", "activeDeadlineSeconds",
)  # fmt: skip
_OF_INDEXES = ("retries",)  # of a group the controller counts them, and needs no other Job for it


def machine_digest(spec: ExperimentSpec, mode: str) -> str:
    """Of what a Job's pods are made from, as it is written; an edit of it makes no other result."""
    written = spec.to_json()
    names = _OF_PODS if spec.shape(mode, local=True).coupled else _OF_PODS + _OF_INDEXES
    given = {name: written[name] for name in names if name in written}
    return digest(given | {"machineParams": written.get("machineParams", {}).get(mode, {})})


def reconcile(
    wanted: ModeOf,
    jobs: Jobs,
    backend: Backend,
    leases: Leases,
    *,
    before: Callable[[Decision], None] = lambda decision: None,
    told: Callable[[DamagedCommit], None] = lambda error: None,
) -> Decision:
    """Decide and do it; the caller asks again until the decision is Hit, Skip, Block, Pause or Fail.

    before: told of what is about to be done. told: why a record that is there is no result.
    """
    asked = wanted.wanted()
    seen = observe(wanted, asked, jobs, backend, told)
    decision = rules.decide(asked, seen)
    try:
        if _begins(decision) and (holder := leases.hold(wanted.cache_key)):
            return rules.Wait(f"its lease in the store is held by {holder}", "OtherCluster")
        before(decision)
        _do(wanted, decision, seen, jobs, backend)
    except StillEnding:
        return rules.Wait(f"{wanted.job_name} is being deleted", "Ending")
    except (JobExists, JobGone) as error:
        return rules.Wait(str(error), "Moved")  # the world moved on between the look and the deed; look again
    except JobNameTaken as error:
        return rules.Block(str(error), "JobNameTaken")
    except JobRefused as error:
        return rules.Wait(str(error), "JobRefused")
    return decision


def _begins(decision: Decision) -> bool:
    """Whether processes of the key will run that did not run before."""
    return isinstance(decision, rules.Create | rules.Replace) or (
        isinstance(decision, rules.Suspend) and not decision.value
    )


def _do(
    wanted: ModeOf,
    decision: Decision,
    seen: Seen,
    jobs: Jobs,
    backend: Backend,
) -> None:
    name = wanted.job_name
    match decision:
        case rules.Create(round_):
            jobs.create(wanted.plan(round_))
        case rules.Replace(round_, uid):
            _complete_record(wanted, seen, backend)
            jobs.replace(wanted.plan(round_), uid=uid)
        case rules.Fail():
            _complete_record(wanted, seen, backend)
        case rules.Join(uid):
            jobs.join(name, wanted.owner, uid=uid, cache_key=wanted.cache_key)
        case rules.Suspend(uid, value):
            jobs.suspend(name, uid=uid, value=value)
        case rules.Leave(uid):
            jobs.leave(name, wanted.owner, uid=uid)
        case rules.Expire(uid, seconds):
            jobs.expire(name, uid=uid, seconds=seconds)
        case rules.Record(round_, uid):
            if round_.verdict is not None:
                _record(wanted, backend, uid, round_, _failures(seen))
            jobs.record(name, uid=uid, data=round_)
        case rules.Publish():
            _publish(wanted, decision, backend)


def _complete_record(wanted: ModeOf, seen: Seen, backend: Backend) -> None:
    """A verdict is recorded while processes still end; which of them hung is known when all have."""
    job = seen.job
    if job is not None and any(failure.reason == HUNG for failure in job.failures):
        _record(wanted, backend, job.uid, job.round, job.failures)


def _record(wanted: ModeOf, backend: Backend, uid: str, round_: Round, failures: Sequence[Failure]) -> None:
    record_failure(
        backend,
        wanted.cache_key,
        name=wanted.name,
        mode=wanted.mode,
        attempt=uid,
        round_=round_,
        failures=failures,
    )


def _failures(seen: Seen) -> tuple[Failure, ...]:
    return seen.job.failures if seen.job is not None else ()


def observe(wanted: ModeOf, asked: Wanted, jobs: Jobs, backend: Backend, told: Callable[[DamagedCommit], None]) -> Seen:
    """One GET of the commit, and no more on a hit; shards are listed only where no Job could still write them."""
    commit, etag = seen_commit(backend, wanted.cache_key, told)
    job = jobs.get(wanted.job_name)
    if commit is not None and rules.honours(commit, asked):
        return Seen(commit=commit, etag=etag, job=job)
    if job is not None and job.phase in ("active", "ending"):
        others_want = wanted.others_want([owner for owner in job.owners if owner != wanted.owner])
        waited_s = wanted.waited_s(job)
        held_up = wanted.held_up(job) if asked.is_late(waited_s) else ""
        return Seen(commit=commit, etag=etag, job=job, others_want=others_want, waited_s=waited_s, held_up=held_up)
    if job is not None:
        shards = complete_attempt(backend, wanted.cache_key, job.round.round, attempt=job.uid)
        return Seen(commit=commit, etag=etag, job=job, shards=shards)
    unfinished = newest_round(backend, wanted.cache_key, prefix=wanted.made_from, than=commit.round if commit else None)
    shards = complete_attempt(backend, wanted.cache_key, unfinished) if unfinished else None
    living = tuple(map(str, jobs.living(wanted.cache_key)))
    return Seen(commit=commit, etag=etag, shards=shards, unfinished=unfinished, living=living)


def seen_commit(backend: Backend, cache_key: str, told: Callable[[DamagedCommit], None]) -> tuple[Commit | None, str]:
    """The commit and its ETag; a damaged or unsigned one is no result, but its ETag lets the next one replace it."""
    try:
        found = probe(backend, cache_key)
    except DamagedCommit as error:
        told(error)
        return None, error.etag
    return found if found is not None else (None, "")


def _publish(wanted: ModeOf, decision: rules.Publish, backend: Backend) -> None:
    write_commit(
        backend,
        decision.shards,
        name=wanted.name,
        parts=wanted.parts.to_json(),
        params=dict(wanted.spec.hash_form(wanted.mode)),
        inputs=wanted.manifests or {},
        tokens=decision.round.tokens,
        replaces=decision.round.replaces,
        missing=_left_out(wanted.spec, decision.shards),
        nonce=uuid.uuid4().hex,
        created=int(time.time()),
    )


def _left_out(spec: ExperimentSpec, shards: Sequence[Shard]) -> tuple[str, ...]:
    """The fields that a partial file left to the code's defaults: the worker says which it filled in."""
    for shard in shards:
        full = shard.facts.get("resolvedParams")
        if isinstance(full, Mapping):
            return tuple(sorted(full.keys() - spec.params.keys()))
    return ()
