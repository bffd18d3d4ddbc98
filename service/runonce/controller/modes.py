"""What one pass does about each mode of an Experiment: all that its Job is made from, what is decided, what is seen."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from runonce.controller import decide as rules
from runonce.controller import waits
from runonce.controller.decide import Earlier
from runonce.controller.reconcile import DAMAGED, ModeOf, reconcile
from runonce.controller.size import clip
from runonce.controller.status import View, between_attempts, closed, why_missed
from runonce.controller.world import World
from runonce.controller.written import Written
from runonce.errors import StoreError
from runonce.experiment.contract import Input
from runonce.experiment.job import JobState, Owner, job_name
from runonce.experiment.machine import DEFAULT_GPU
from runonce.experiment.spec import RERUN, ExperimentSpec
from runonce.experiment.status import ModeStatus
from runonce.kube.job_state import decode_round, mirrored
from runonce.kube.objects import ExperimentObject
from runonce.store.backend import Backend
from runonce.store.earlier import nearest_earlier, stem_of

STEPS = 12  # decisions of one mode in one pass, before others have their turn
_GO_ON = (rules.Publish, rules.Record, rules.Expire, rules.Leave, rules.Suspend)
_FINAL = (rules.Hit, rules.Skip, rules.Block, rules.Pause, rules.Fail)


class Modes:
    """after_s: when to look again at the latest. failed: something was refused. passing: it lasts but a moment."""

    def __init__(self, found: ExperimentObject, owner: Owner, world: World, written: Written) -> None:
        self._found, self._owner, self._world, self._written = found, owner, world, written
        self._namespace, self._name = found.metadata.namespace, found.metadata.name
        self._jobs = world.jobs(self._namespace)
        self.after_s: float | None = None
        self.failed = self.passing = False

    def wanted(self, spec: ExperimentSpec, mode: str, parts: Any, key: str, inputs: dict[str, Input] | None) -> ModeOf:
        job = self._jobs.get(job_name(spec.config or "command", mode, key))
        healing = job.round.tokens if job is not None and self._owner in job.owners else ()
        tokens = (
            self._owner.uid if spec.overwrite else "",
            _token(self._found.metadata.annotations.get(RERUN, "")),
            *(token for token in healing if token.startswith(DAMAGED)),
        )
        profile = self._world.cluster.profile(spec)
        return ModeOf(
            name=self._name,
            spec=spec,
            mode=mode,
            parts=parts,
            cache_key=key,
            owner=self._owner,
            store=self._world.cluster.store(spec).url_for(self._namespace),
            inputs=inputs,
            tokens=tuple(filter(None, tokens)),
            local=False,
            earlier=self._earlier(mode, key),
            others_want=self._others_want,
            waited_s=self._waited_s(mode, key),
            held_up=self._held_up,
            gpu=profile.gpu_resource or DEFAULT_GPU,
        )

    def _waited_s(self, mode: str, key: str) -> Callable[[JobState], float]:
        status: ModeStatus | None = getattr(self._written.now.modes, mode)
        ran = status is not None and status.cache_key == key and bool(status.start_time)
        return lambda job: self._world.waits.for_start_s(job, now=self._world.api.now(), ran=ran)

    def _held_up(self, job: JobState) -> str:
        waiting = self._jobs.waiting(job)
        return waiting[1] if waiting is not None else self._jobs.refusal(job)

    def _earlier(self, mode: str, key: str) -> Earlier | None:
        status: ModeStatus | None = getattr(self._written.now.modes, mode)
        if status is None or status.cache_key != key or not status.round:
            return None
        if status.job_uid and self._jobs.get(status.job) is None:
            self._jobs.suspect(key)
        return Earlier(uid=status.job_uid, round=decode_round(status.round), given_up=status.phase == "Failed")

    def _others_want(self, owners: Sequence[Owner]) -> bool:
        for owner in owners:
            found = self._world.experiments.get(f"{self._namespace}/{owner.name}")
            there = found is not None and found.uid == owner.uid and not found.metadata.deletion_timestamp
            if there and found is not None and not found.document()["spec"].get("suspend", False):
                return True
        return False

    def look(self, wanted: ModeOf) -> View:
        backend = self._world.store(wanted.store)
        leases = self._world.leases(wanted.store, self._namespace)
        decision: rules.Decision = rules.Wait("more is to be done", "Running")
        moved = False
        for _ in range(STEPS):
            decision = reconcile(
                wanted,
                self._jobs,
                backend,
                leases,
                before=lambda due: self._close(wanted, due),
                told=lambda error: self._world.events.warn(self._found, error.reason, clip(str(error))),
            )
            if isinstance(decision, rules.Wait) and decision.cause == "Moved" and not moved:
                moved = True  # by now the cache has what was in the way
                continue
            if not isinstance(decision, _GO_ON):
                break
            if isinstance(decision, rules.Publish):
                self._world.count("misses")
        else:
            self.again(waits.MOMENT_S)
        job = self._jobs.get(wanted.job_name)
        mine = job is not None and self._owner in job.owners
        if isinstance(decision, rules.Fail) and job is not None and mine and job.phase == "active":
            self._jobs.leave(job.name, self._owner, uid=job.uid)
        if isinstance(decision, _FINAL):
            leases.release(wanted.cache_key)
        elif mine and isinstance(decision, rules.Wait) and decision.cause == "Running":
            leases.hold(wanted.cache_key)  # an earlier controller's, which nobody renews any more
        view = self._view(wanted, decision, job if mine and not self._is_closed(wanted, job) else None)
        if mine and job is not None and job.phase == "active" and not isinstance(decision, _FINAL):
            begins = isinstance(decision, rules.Create | rules.Replace) and decision.round.attempt == 1
            return replace(view, missed=self._missed(wanted, backend, begins=begins))
        return view

    def _missed(self, wanted: ModeOf, backend: Backend, *, begins: bool) -> str:
        """Why there was no result yet of what a Job makes; empty where the status says so already.

        begins: the Job is the first of its round.
        """
        before, mode = self._written.now, wanted.mode
        status: ModeStatus | None = getattr(before.modes, mode)
        same = status is not None and status.cache_key == wanted.cache_key
        if same and not begins and why_missed(before).startswith(f"{mode}: "):
            return ""
        if wanted.tokens:
            return f"{mode}: asked to be made anew"
        parts, params = wanted.parts.to_json(), wanted.spec.hash_form(mode)
        with contextlib.suppress(StoreError):  # it only explains
            found = nearest_earlier(backend, wanted.name, parts, params, cache_key=wanted.cache_key)
            return clip(f"{mode}: {found or f'no earlier result of {stem_of(wanted.name)}'}")
        return ""

    def _is_closed(self, wanted: ModeOf, job: JobState | None) -> bool:
        """Whether the status tells of the attempt after this one already: a Job that is going says less."""
        status: ModeStatus | None = getattr(self._written.now.modes, wanted.mode)
        going = job is not None and job.phase == "ending"
        return going and status is not None and status.cache_key == wanted.cache_key and not status.job_uid

    def _view(self, wanted: ModeOf, decision: rules.Decision, job: JobState | None) -> View:
        shape = wanted.shape()
        view = View(
            mode=wanted.mode,
            cache_key=wanted.cache_key,
            decision=decision,
            job=job,
            job_name=wanted.job_name,
            total=shape.completions,
            gpus=shape.gpus,
            store=wanted.store,
            logs=f"runonce cluster logs {self._name} -n {self._namespace} --mode {wanted.mode}",
            round=mirrored(job.round, self._owner) if job is not None else "",
        )
        if isinstance(decision, rules.Wait):
            return self._waiting(view, decision, wanted)
        uid = job.uid if job is not None else ""
        self._world.waits.over(uid, f"{self._namespace}/{wanted.job_name}")
        if isinstance(decision, rules.Hit):
            self._committed(wanted.cache_key, decision)
        elif isinstance(decision, rules.Block):
            self.again(waits.POLL_S)
        return view

    def _committed(self, key: str, decision: rules.Hit) -> None:
        """Those that read this result, or wait for it, are looked at again."""
        manifest = decision.commit.manifest
        if decision.cached:
            self._world.count("hits")
        if self._world.manifests.get(key) != manifest:
            self._world.manifests[key] = manifest
            for other in self._world.experiments.find(key):
                if other.uid != self._owner.uid:
                    self._world.requeue(other.key)

    def _waiting(self, view: View, decision: rules.Wait, wanted: ModeOf) -> View:
        before: ModeStatus | None = getattr(self._written.now.modes, view.mode)
        job = view.job
        ran = job is not None and before is not None and (before.phase, before.job_uid) == ("Running", job.uid)
        found = self._world.waits.look(
            self._jobs,
            self._owner,
            decision,
            job,
            self._jobs.get(wanted.job_name),
            name=f"{self._namespace}/{view.job_name}",
            deadline_s=wanted.spec.start_deadline_seconds,
            ran=ran,
        )
        self.passing = found.passing
        self.failed = self.failed or found.refused
        if found.again_s is not None:
            self.again(found.again_s)
        return replace(view, decision=found.why)

    def again(self, seconds: float) -> None:
        self.after_s = seconds if self.after_s is None else min(self.after_s, seconds)

    def _close(self, wanted: ModeOf, due: rules.Decision) -> None:
        """Before attempt N is deleted for N+1, the status says so; then a crash in between loses no charge.

        Likewise where somebody deleted it: whoever reads an older status than that is told by the conflict.
        """
        before: ModeStatus = getattr(self._written.now.modes, wanted.mode) or ModeStatus()
        lost = before.cache_key == wanted.cache_key and before.job_uid
        if not (isinstance(due, rules.Replace) or (isinstance(due, rules.Create) and lost)):
            return
        if isinstance(due, rules.Create):
            self._jobs.must_be_gone(wanted.job_name, wanted.cache_key)  # else a later attempt is told of than there is
        job = self._jobs.get(wanted.job_name)
        before = before.model_copy(update={"cache_key": wanted.cache_key, "job": wanted.job_name})
        failures = job.failures if job is not None and self._owner in job.owners else ()
        text = mirrored(due.round, self._owner)
        if before.round == text and not before.job_uid:
            return
        entry = closed(before, due.round, text, failures)
        self._written.put(between_attempts(self._written.subject(""), wanted.mode, entry, self._written.now))
        if failures:
            told = f"attempt {due.round.attempt - 1} of {wanted.mode}: {failures[0].reason}"
            self._world.events.warn(self._found, "AttemptFailed", told)


def _token(text: str) -> str:
    """The text of a rerun request, short enough to be kept with the result."""
    return text if len(text.encode()) <= 64 else hashlib.sha256(text.encode()).hexdigest()
