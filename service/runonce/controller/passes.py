"""One pass over one Experiment of the cluster: read it, reconcile its modes in order, write its status once."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from runonce.controller import decide as rules
from runonce.controller.decide import Earlier
from runonce.controller.reconcile import DAMAGED, ModeOf, machine_digest, reconcile
from runonce.controller.status import (
    Subject,
    View,
    build_status,
    clip,
    closed,
    mode_phase,
    only_counts_differ,
    read_status,
    rejection,
    to_value,
)
from runonce.errors import InputError, JobGone, NotFound, StoreError
from runonce.experiment.contract import DAMAGED_INPUT, Input
from runonce.experiment.job import JobState, Owner, job_name
from runonce.experiment.machine import DEFAULT_GPU
from runonce.experiment.phase import Phase
from runonce.experiment.spec import API_VERSION, KIND, RERUN, ExperimentSpec, parse_experiment
from runonce.experiment.status import ModeStatus, Status
from runonce.kube.caches import Caches
from runonce.kube.cluster import Cluster
from runonce.kube.events import Events
from runonce.kube.jobs import KubeJobs, decode_round, mirrored
from runonce.kube.objects import ExperimentObject
from runonce.kube.transport import Api
from runonce.store.backend import Backend
from runonce.store.lease import Leases

log = logging.getLogger(__name__)

STEPS = 12  # decisions of one mode in one pass, before others have their turn
PODS_AFTER_S = 5.0  # pods that are not there by then were refused, and those that do not run by then are asked why
ASK_EVERY_S = 10.0
ENDING_AFTER_S = 5.0  # a Job that takes longer to go is spoken of
POLL_S = 30.0  # where nothing that is watched would tell
COUNTS_EVERY_S = 60.0
_GO_ON = (rules.Publish, rules.Record, rules.Expire, rules.Leave, rules.Suspend)
_FINAL = (rules.Hit, rules.Skip, rules.Block, rules.Pause, rules.Fail)


@dataclass(frozen=True)
class Next:
    """When to look again, where no event would say so; failed: something did not answer."""

    after_s: float | None = None
    failed: bool = False


@dataclass
class World:
    """What all passes share. manifests: of keys that were seen committed, for those that depend on them."""

    api: Api
    cluster: Cluster
    experiments: Caches[ExperimentObject]
    jobs: Callable[[str], KubeJobs]
    store: Callable[[str], Backend]
    leases: Callable[[str, str], Leases]
    events: Events
    requeue: Callable[[str], None]
    manifests: dict[str, str] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=lambda: {"hits": 0, "misses": 0, "passes": 0})
    lock: threading.Lock = field(default_factory=threading.Lock)
    since: dict[str, float] = field(default_factory=dict)  # uid of a Job, or its name, to when it was first waited for
    asked: dict[str, tuple[float, rules.Wait | None]] = field(default_factory=dict)  # uid of a Job to what was found
    shown: dict[str, float] = field(default_factory=dict)  # uid of an Experiment to when its counts were written

    def count(self, name: str) -> None:
        with self.lock:
            self.counted[name] += 1

    def waited_s(self, what: str) -> float:
        """Since this was first asked of it, or since `found`."""
        now = time.monotonic()
        return now - self.since.setdefault(what, now)

    def found(self, what: str) -> None:
        self.since.pop(what, None)
        self.asked.pop(what, None)

    def forget(self, uid: str) -> None:
        """An Experiment is gone."""
        self.shown.pop(uid, None)


def look(key: str, world: World) -> Next:
    """Whatever there is to do for `namespace/name`."""
    found = world.experiments.get(key)
    if found is None or found.metadata.deletion_timestamp:
        return Next()  # owner references take the Job along
    world.count("passes")
    return _Pass(found, world).run()


class _Pass:
    def __init__(self, found: ExperimentObject, world: World) -> None:
        self._found, self._world = found, world
        meta = found.metadata
        self._namespace, self._name = meta.namespace, meta.name
        self._owner = Owner(uid=meta.uid, name=meta.name)
        self._rerun = meta.annotations.get(RERUN, "")
        self._jobs = world.jobs(meta.namespace)
        self._before = read_status(found.status_value(), meta.uid)
        self._written = self._before
        self._version = meta.resource_version
        self._after_s: float | None = None
        self._failed = False
        self._passing = False  # what is waited for lasts a moment, and is not worth a write

    def run(self) -> Next:
        if self._settled():
            return Next()
        try:
            spec = parse_experiment(self._found.document()).spec
            self._world.cluster.check(spec)
            keys = spec.keys()
        except InputError as error:
            self._leave_all_but(())
            self._write(self._subject("", rejection(error), rejected=True), ())
            return Next(failed=self._failed)
        subject = self._subject(spec.digest(), ("Accepted", ""), modes=tuple(keys))
        views: list[View] = []
        trouble, why = "", ""
        try:
            self._leave_all_but({job_name(spec.config or "command", mode, key) for mode, (_, key) in keys.items()})
            views = self._modes(spec, keys)
        except (StoreError, InputError) as error:  # the latter where its URL leads to no store
            why = error.reason if isinstance(error, StoreError) else "StoreError"
            trouble, self._failed = clip(str(error)), True
        subject = replace(subject, trouble=trouble, trouble_reason=why, accepted=self._accepted(spec, keys, views))
        self._write(subject, views)
        return Next(after_s=self._after_s, failed=self._failed)

    def _settled(self) -> bool:
        """Done, and nothing that was asked for or read has changed since."""
        status, meta = self._before, self._found.metadata
        if status.phase not in ("Succeeded", "Failed") or status.observed_generation != meta.generation:
            return False
        accepted = next((condition for condition in status.conditions if condition.type == "Accepted"), None)
        if status.rerun != clip(self._rerun, 256) or accepted is None or accepted.status != "True":
            return False  # what was refused may be allowed by another configuration
        if any(condition.type == "Reconciling" for condition in status.conditions):
            return False  # the store did not answer
        train = status.modes.train
        return train is None or not train.manifest or self._newest(train) == train.manifest

    def _newest(self, train: ModeStatus) -> str:
        return self._world.manifests.get(train.cache_key, train.manifest)

    def _subject(
        self, digest: str, accepted: tuple[str, str], *, rejected: bool = False, modes: tuple[str, ...] = ()
    ) -> Subject:
        return Subject(
            uid=self._owner.uid,
            generation=self._found.metadata.generation,
            digest=digest,
            rerun=self._rerun,
            now=_now(),
            accepted=accepted,
            rejected=rejected,
            modes=modes,
        )

    def _leave_all_but(self, names: Sequence[str] | set[str] | tuple[()]) -> None:
        """Jobs of an earlier spec lose this owner; the last one out ends them."""
        for state in self._jobs.owned(self._owner):
            if state.name not in names and state.phase != "ending":
                try:
                    self._jobs.leave(state.name, self._owner, uid=state.uid)
                except JobGone:
                    self._failed = True

    def _modes(self, spec: ExperimentSpec, keys: dict[str, tuple[Any, str]]) -> list[View]:
        """In their order, up to the first that is not done."""
        views: list[View] = []
        made: dict[str, Input] = {}
        for mode, (parts, key) in keys.items():
            inputs = {name: made[name] for name in parts.inputs if name in made}
            wanted = self._wanted(spec, mode, parts, key, inputs if len(inputs) == len(parts.inputs) else None)
            view = self._mode(wanted)
            if views and _can_heal(view, views[0]):
                return self._heal(spec, keys, view, wanted, views)
            views.append(view)
            if isinstance(view.decision, rules.Hit):
                made[mode] = Input(cache_key=key, manifest=view.decision.commit.manifest)
            elif mode_phase(view) is not Phase.SKIPPED:
                break
        return views

    def _heal(
        self, spec: ExperimentSpec, keys: dict[str, tuple[Any, str]], view: View, wanted: ModeOf, views: Sequence[View]
    ) -> list[View]:
        """A worker found its input damaged: train is made anew, once for the Job that says so, then its own mode."""
        parts, key = keys["train"]
        token = f"{DAMAGED}{view.job.uid}" if view.job is not None else ""
        train = self._wanted(spec, "train", parts, key, {})
        healed = self._mode(replace(train, tokens=(*train.tokens, token)))
        if not isinstance(healed.decision, rules.Hit):
            return [healed]
        inputs = {**(wanted.inputs or {}), "train": Input(cache_key=key, manifest=healed.decision.commit.manifest)}
        again = self._mode(replace(wanted, inputs=inputs, tokens=(*wanted.tokens, token)))
        return [healed, *views[1:], again]

    def _wanted(self, spec: ExperimentSpec, mode: str, parts: Any, key: str, inputs: dict[str, Input] | None) -> ModeOf:
        job = self._jobs.get(job_name(spec.config or "command", mode, key))
        healing = job.round.tokens if job is not None and self._owner in job.owners else ()
        tokens = (
            self._owner.uid if spec.overwrite else "",
            _token(self._rerun),
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
            watched_s=lambda uid: self._world.waited_s(f"start {uid}"),
            gpu=profile.gpu_resource or DEFAULT_GPU,
        )

    def _earlier(self, mode: str, key: str) -> Earlier | None:
        status: ModeStatus | None = getattr(self._written.modes, mode)
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

    def _mode(self, wanted: ModeOf) -> View:
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
            self._after_s = 1.0
        job = self._jobs.get(wanted.job_name)
        mine = job is not None and self._owner in job.owners
        if isinstance(decision, rules.Fail) and job is not None and mine and job.phase == "active":
            self._jobs.leave(job.name, self._owner, uid=job.uid)
        if isinstance(decision, _FINAL):
            leases.release(wanted.cache_key)
        elif mine and isinstance(decision, rules.Wait) and decision.cause == "Running":
            leases.hold(wanted.cache_key)  # an earlier controller's, which nobody renews any more
        return self._view(wanted, decision, job if mine and not self._is_closed(wanted, job) else None)

    def _is_closed(self, wanted: ModeOf, job: JobState | None) -> bool:
        """Whether the status tells of the attempt after this one already: a Job that is going says less."""
        status: ModeStatus | None = getattr(self._written.modes, wanted.mode)
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
            round=mirrored(job.round, self._owner) if job is not None else "",
        )
        if isinstance(decision, rules.Wait):
            return self._waiting(view, decision, wanted)
        uid = job.uid if job is not None else ""
        for waited in (f"{self._namespace}/{wanted.job_name}", uid, f"start {uid}"):
            self._world.found(waited)
        if isinstance(decision, rules.Hit):
            self._committed(wanted.cache_key, decision)
        elif isinstance(decision, rules.Block):
            self._again(POLL_S)
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
        job, name = view.job, f"{self._namespace}/{view.job_name}"
        if decision.cause == "Ending":
            self._passing = self._world.waited_s(name) < ENDING_AFTER_S
        else:
            self._world.found(name)
        if decision.cause == "Moved":
            self._passing = True
        if job is not None and job.phase == "active" and len(job.succeeded) == job.completions:
            self._passing = self._world.waited_s(job.uid) < ENDING_AFTER_S  # it is complete in a moment
            self._again(ENDING_AFTER_S)
            return view
        if job is None or job.phase != "active":
            self._again(1.0 if decision.cause in ("Ending", "Moved", "Running") else POLL_S)
            self._failed = self._failed or decision.cause == "JobRefused"
            return view
        if decision.cause == "OtherCluster":
            self._again(POLL_S)  # whose result nothing here would tell of
        if wanted.spec.start_deadline_seconds is not None and not job.ready:
            self._again(min(POLL_S, wanted.spec.start_deadline_seconds))
        return self._idle(view, job)

    def _idle(self, view: View, job: JobState) -> View:
        """Why processes that are due do not run; nothing where they do, or are still given time."""
        if job.failing or job.suspended or not (job.missing or job.ready < job.active):
            self._world.found(job.uid)
            return view
        if self._world.waited_s(job.uid) < PODS_AFTER_S:
            self._again(PODS_AFTER_S)
            return view
        self._again(POLL_S)
        now = time.monotonic()
        when, found = self._world.asked.get(job.uid, (0.0, None))
        if not when or now - when >= min(ASK_EVERY_S, POLL_S):
            found = self._stuck(job, self._world.waited_s(job.uid))
            self._world.asked[job.uid] = now, found
        return view if found is None else replace(view, decision=found)

    def _stuck(self, job: JobState, since_s: float) -> rules.Wait | None:
        """Why pods are not there, or do not run; they may run slowly, and then nobody says anything."""
        if job.missing:
            return self._refused(job, since_s)
        waiting = self._jobs.waiting(job)
        return rules.Wait(clip(waiting[1]), waiting[0]) if waiting is not None else None

    def _refused(self, job: JobState, since_s: float) -> rules.Wait | None:
        why = self._jobs.refusal(job)
        if why:
            return rules.Wait(clip(why), "PodsRefused")
        if since_s < POLL_S or not self._jobs.is_closing():
            return None
        # A namespace ends its pods before its Jobs (Kubernetes 1.34), and a Job with retries for each index holds its
        # last pod until there is another, which there can never be: both would wait for ever.
        self._jobs.leave(job.name, self._owner, uid=job.uid)
        return rules.Wait(f"namespace {self._namespace} is being deleted", "NamespaceEnding")

    def _again(self, seconds: float) -> None:
        self._after_s = seconds if self._after_s is None else min(self._after_s, seconds)

    def _close(self, wanted: ModeOf, due: rules.Decision) -> None:
        """Before attempt N is deleted for N+1, the status says so; then a crash in between loses no charge."""
        if not isinstance(due, rules.Replace):
            return
        job = self._jobs.get(wanted.job_name)
        before: ModeStatus = getattr(self._written.modes, wanted.mode) or ModeStatus()
        before = before.model_copy(update={"cache_key": wanted.cache_key, "job": wanted.job_name})
        failures = job.failures if job is not None and self._owner in job.owners else ()
        text = mirrored(due.round, self._owner)
        if before.round == text and not before.job_uid:
            return
        modes = self._written.modes.model_copy(update={wanted.mode: closed(before, due.round, text, failures, _now())})
        self._put(self._written.model_copy(update={"modes": modes, "phase": "Pending", "uid": self._owner.uid}))
        if failures:
            told = f"attempt {due.round.attempt - 1} of {wanted.mode}: {failures[0].reason}"
            self._world.events.warn(self._found, "AttemptFailed", told)

    def _accepted(
        self, spec: ExperimentSpec, keys: dict[str, tuple[Any, str]], views: Sequence[View]
    ) -> tuple[str, str]:
        """What to say of a spec that is accepted: what of it does not hold yet, and for whom."""
        for view in views:
            job = view.job
            if job is None or job.phase != "active" or not job.owners:
                continue
            if job.owners[0].uid != self._owner.uid:
                return "SharedJob", f"the Job of {job.owners[0].name} is shared, with its machine parameters and image"
            if job.round.machine != machine_digest(spec, view.mode):
                return "PendingChange", "machine parameters that were edited apply to the next attempt"
        before = self._before
        for mode, (_, key) in keys.items():
            old: ModeStatus | None = getattr(before.modes, mode)
            if old is not None and old.cache_key not in ("", key):
                return "KeyChanged", f"the edit changed the key of {mode}; the Job of the old key was let go"
        old_reason = next((c for c in before.conditions if c.type == "Accepted" and c.reason == "KeyChanged"), None)
        if old_reason is not None and old_reason.observed_generation == self._found.metadata.generation:
            return old_reason.reason, old_reason.message
        return "Accepted", ""

    def _write(self, subject: Subject, views: Sequence[View]) -> None:
        status = build_status(subject, views, self._written)
        if to_value(status) == to_value(self._written):
            return
        if self._passing and self._written.observed_generation == subject.generation:
            return
        now = time.monotonic()
        if only_counts_differ(status, self._written):
            shown = self._world.shown.get(self._owner.uid)
            if shown is not None and now - shown < COUNTS_EVERY_S:
                self._again(COUNTS_EVERY_S)
                return
        self._put(status)
        self._world.shown[self._owner.uid] = now
        self._tell(status)

    def _tell(self, status: Status) -> None:
        if status.phase == "Failed" and self._before.phase != "Failed":
            self._world.events.warn(self._found, "Failed", status.message)
        elif status.phase == "Succeeded" and not status.cached and self._before.phase != "Succeeded":
            self._world.events.tell(self._found, "Succeeded", f"made by {status.job}" if status.job else "made")

    def _put(self, status: Status) -> None:
        """Raises Conflict when the object has changed since it was read; the next pass decides anew."""
        path = f"/apis/{API_VERSION}/namespaces/{self._namespace}/experiments/{self._name}/status"
        metadata = {"name": self._name, "namespace": self._namespace, "resourceVersion": self._version}
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "status": to_value(status)}
        try:
            answer = self._world.api.apply(path, body)
        except NotFound:
            return  # deleted meanwhile
        written = ExperimentObject.model_validate_json(answer.body)
        self._version = written.metadata.resource_version
        self._written = status
        self._world.experiments.learn(written)


def _token(text: str) -> str:
    """The text of a rerun request, short enough to be kept with the result."""
    return text if len(text.encode()) <= 64 else hashlib.sha256(text.encode()).hexdigest()


def _can_heal(view: View, train: View) -> bool:
    """Whether its input was found damaged, and was not just made anew for another Job that said so."""
    if not isinstance(view.decision, rules.Fail) or view.job is None or not isinstance(train.decision, rules.Hit):
        return False
    tokens = train.decision.commit.tokens
    anew = tokens[-1].startswith(DAMAGED) and tokens[-1] != f"{DAMAGED}{view.job.uid}" if tokens else False
    return not anew and any(failure.exit_code == DAMAGED_INPUT for failure in view.decision.failures)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
