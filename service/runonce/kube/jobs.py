"""`Jobs` on Kubernetes, for one namespace: Indexed Jobs, seen through a cache, changed by narrow guarded writes.

A Job is posted once and never applied again: queueing systems own fields of it too.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from runonce.errors import (
    ApiError,
    Conflict,
    Invalid,
    JobExists,
    JobGone,
    JobNameTaken,
    JobRefused,
    NotFound,
    Refused,
    StillEnding,
)
from runonce.experiment.blame import merged, only_victims
from runonce.experiment.job import Failure, JobPlan, JobState, Owner, Process, Round
from runonce.kube.caches import Caches
from runonce.kube.job_state import encode_round, index_of, job_state
from runonce.kube.objects import JobObject, ListOf, PodObject
from runonce.kube.resources import (
    CACHE_KEY,
    MANAGED_BY,
    ROUND,
    SERVICE,
    build_service,
    is_ours,
    key_label,
    owner_reference,
)
from runonce.kube.transport import Answer, Api
from runonce.kube.waiting import from_events, is_starting, why_waiting

log = logging.getLogger(__name__)

OURS = "runonce"  # as the value of MANAGED_BY
MAX_WARNED = 1000  # Jobs whose warnings are remembered
CLOSED_S = 30.0  # how long a namespace that is being deleted is not asked again to take a Job
SERVICE_S = 30.0  # how long its Service is believed to be there: anybody may delete it, or the namespace with it

_CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
_JOB_NAME = "batch.kubernetes.io/job-name"
_ENDING = "NamespaceTerminating"


class KubeJobs:
    """build: a plan's Job as a resource; raises InputError for what this cluster cannot have (an unknown profile).

    cache: all Jobs of ours, or those of this namespace, found by the uids of their owners.
    """

    def __init__(
        self, api: Api, namespace: str, cache: Caches[JobObject], *, build: Callable[[JobPlan], dict[str, Any]]
    ) -> None:
        self._api, self._namespace, self._cache, self._build = api, namespace, cache, build
        self._path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self._core = f"/api/v1/namespaces/{namespace}"
        self._lock = threading.Lock()
        self._suspects: set[str] = set()  # keys whose Job vanished, maybe before its pods did
        self._warnings: dict[str, str] = {}  # by name of the Job: what the server said at its POST
        self._failures: dict[str, tuple[Failure, ...]] = {}  # by uid: what pods told before they went
        self._service_until = 0.0
        self._closed_until = 0.0

    def get(self, name: str) -> JobState | None:
        found = self._cache.get(f"{self._namespace}/{name}")
        return None if found is None else self._state(found)

    def owned(self, owner: Owner) -> list[JobState]:
        return [self._state(found) for found in self._cache.find(owner.uid)]

    def living(self, cache_key: str) -> list[Process]:
        """Pods are asked for only where a Job of the key vanished: in all other cases its name waits for them."""
        if cache_key not in self._suspects:
            return []
        pods = [pod for pod in self._pods(f"{CACHE_KEY}={key_label(cache_key)}") if not pod.ended]
        if pods and self._is_there(pods[0]):
            pods = []  # its name is a lock
        if not pods:
            with self._lock:
                self._suspects.discard(cache_key)
        return [_process(pod) for pod in pods]

    def held_by(self, state: JobState) -> list[Process]:
        """The pods that keep a Job from its end, or an index from its next pod: first those that were told to end."""
        pods = [pod for pod in self._pods(f"{_CONTROLLER_UID}={state.uid}") if not pod.ended]
        told = [pod for pod in pods if pod.metadata.deletion_timestamp]
        return sorted(map(_process, told or pods), key=lambda process: (process.due, process.index))

    def suspect(self, cache_key: str) -> None:
        """A Job of the key is gone, and not by us: `kubectl delete job` lets go of the name before the pods end."""
        with self._lock:
            self._suspects.add(cache_key)

    def create(self, plan: JobPlan) -> JobState:
        body = self._build(plan)
        if time.monotonic() < self._closed_until:
            raise JobRefused(f"namespace {self._namespace} is being deleted.")
        try:
            if plan.shape.coupled:
                self._ensure_service()
            answer = self._api.post(self._path, body)
        except Conflict as error:
            raise self._taken(plan, error) from error
        except (Invalid, Refused, NotFound) as error:
            if error.cause == _ENDING:
                self._closed_until, self._service_until = time.monotonic() + CLOSED_S, 0.0
            raise JobRefused(str(error)) from error
        with self._lock:
            if len(self._warnings) > MAX_WARNED:
                self._warnings.clear()
            self._warnings[plan.name] = "; ".join(answer.warnings)
        return self._learn(answer)

    def replace(self, plan: JobPlan, *, uid: str) -> JobState:
        try:
            self.forget(uid)
            self._ended(self._api.delete(f"{self._path}/{plan.name}", uid=uid))
        except NotFound:
            pass
        except Conflict as error:
            raise JobGone(f"{plan.name} is another Job by now.") from error
        return self.create(plan)

    def join(self, name: str, owner: Owner, *, uid: str, cache_key: str) -> JobState:
        found = self._cache.get(f"{self._namespace}/{name}")
        reference = owner_reference(owner.name, owner.uid)
        operations: list[dict[str, Any]] = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "test", "path": f"/metadata/annotations/{_pointer(CACHE_KEY)}", "value": cache_key},
            {"op": "test", "path": "/metadata/deletionTimestamp", "value": None},
        ]
        if found is not None and not found.metadata.owner_references:
            operations.append({"op": "test", "path": "/metadata/ownerReferences", "value": None})
            operations.append({"op": "add", "path": "/metadata/ownerReferences", "value": [reference]})
        else:
            operations.append({"op": "add", "path": "/metadata/ownerReferences/-", "value": reference})
        return self._patch(name, operations)

    def leave(self, name: str, owner: Owner, *, uid: str) -> None:
        found = self._cache.get(f"{self._namespace}/{name}")
        if found is None or found.uid != uid:
            return
        references = found.metadata.owner_references
        position = next((i for i, known in enumerate(references) if known.uid == owner.uid), None)
        if position is None:
            return
        path = f"/metadata/ownerReferences/{position}"
        try:
            if len(references) > 1:
                guard = {"op": "test", "path": f"{path}/uid", "value": owner.uid}
                self._patch(name, [self._is(uid), guard, {"op": "remove", "path": path}])
            else:
                # Whoever joins in between changes the version.
                version = found.metadata.resource_version
                self._ended(self._api.delete(f"{self._path}/{name}", uid=uid, version=version))
                self.forget(uid)
        except NotFound:
            return
        except Conflict as error:
            raise JobGone(f"{name} has changed; its owners are looked at again.") from error

    def record(self, name: str, *, uid: str, data: Round) -> None:
        found = self._cache.get(f"{self._namespace}/{name}")
        path = f"/metadata/annotations/{_pointer(ROUND)}"
        before = found.metadata.annotations.get(ROUND) if found is not None else None
        # Two owners judge at once: the second looks again and finds the first one's verdict.
        guard = {"op": "test", "path": path, "value": before}
        self._patch(name, [self._is(uid), guard, {"op": "add", "path": path, "value": encode_round(data)}])

    def expire(self, name: str, *, uid: str, seconds: int) -> None:
        self._patch(name, [self._is(uid), {"op": "add", "path": "/spec/ttlSecondsAfterFinished", "value": seconds}])

    def suspend(self, name: str, *, uid: str, value: bool) -> None:
        self._patch(name, [self._is(uid), {"op": "add", "path": "/spec/suspend", "value": value}])

    def refusal(self, state: JobState) -> str:
        """Why no pod came, out of the Job's events and the server's warnings; empty where nobody said so."""
        told = self._told(f"involvedObject.kind=Job,involvedObject.name={state.name},reason=FailedCreate", state.uid)
        return told[-1] if told else self._warnings.get(state.name, "")

    def is_closing(self) -> bool:
        """Whether the namespace is being deleted: nothing can be made in it. Asked without a right on namespaces."""
        try:
            self._api.post(f"{self._core}/services", build_service(self._namespace), dry_run=True)
        except ApiError as error:
            return error.cause == _ENDING
        return False

    def waiting(self, state: JobState) -> tuple[str, str] | None:
        """Why pods that are there do not run, as (reason, text) of the first that says so; None where none does."""
        pods = sorted(self._pods(f"{_CONTROLLER_UID}={state.uid}"), key=index_of)
        if found := next(filter(None, map(why_waiting, pods)), None):
            return found
        for pod in filter(is_starting, pods):
            return from_events(pod, self._told(f"involvedObject.uid={pod.uid},type=Warning", pod.uid))
        return None

    def _told(self, selector: str, uid: str) -> list[str]:
        events = json.loads(self._api.get(f"{self._core}/events", fieldSelector=selector, limit="10"))["items"]
        return [str(event.get("message", "")) for event in events if _about(event, uid)]

    def _pods(self, selector: str) -> list[PodObject]:
        return ListOf[PodObject].model_validate_json(self._api.get(f"{self._core}/pods", labelSelector=selector)).items

    def _state(self, job: JobObject) -> JobState:
        ended = any(c.type in ("FailureTarget", "Failed") and c.status == "True" for c in job.status.conditions)
        if not ended or job.metadata.deletion_timestamp:
            return job_state(job)
        known = self._failures.get(job.uid)
        if known is None or only_victims(known):  # the cause may be a pod that has not ended yet
            state = job_state(job, self._pods(f"{_CONTROLLER_UID}={job.uid}"))
            known = merged(known or (), state.failures)
            with self._lock:
                self._failures[job.uid] = known
        return job_state(job, failures=known)

    def survey(self) -> None:
        """Once, when a controller starts: the keys whose pods have no Job, of which nobody may have told."""
        for pod in self._pods(f"{MANAGED_BY}={OURS}"):
            job_uid = pod.metadata.labels.get(_CONTROLLER_UID, "")
            name = pod.metadata.labels.get(_JOB_NAME, "")
            found = self._cache.get(f"{self._namespace}/{name}")
            if not pod.ended and (found is None or found.uid != job_uid):
                self.suspect(pod.metadata.annotations.get(CACHE_KEY, ""))

    def forget(self, uid: str) -> None:
        """The Job is gone, or is about to go: nothing of it is asked for any more."""
        with self._lock:
            self._failures.pop(uid, None)

    def _patch(self, name: str, operations: list[dict[str, Any]]) -> JobState:
        try:
            return self._learn(self._api.patch(f"{self._path}/{name}", operations))
        except (Invalid, NotFound) as error:
            self._look(name)
            raise JobGone(f"{name} is not there any more, or another Job, or was changed: {error}") from error

    def _is(self, uid: str) -> dict[str, Any]:
        return {"op": "test", "path": "/metadata/uid", "value": uid}

    def _learn(self, answer: Answer) -> JobState:
        found = JobObject.model_validate_json(answer.body)
        self._cache.learn(found)
        return job_state(found)

    def _ended(self, answer: Answer) -> None:
        """A deletion gives the Job back while its finalizer holds it, else a Status."""
        if json.loads(answer.body).get("kind") == "Job":
            self._learn(answer)

    def _taken(self, plan: JobPlan, error: Conflict) -> JobExists | JobNameTaken | StillEnding:
        if "object is being deleted" in str(error):
            return StillEnding(f"{plan.name} is being deleted.")
        # None: it went between the two looks that the API server itself takes before it says so.
        return self._standing(plan.name, plan.cache_key) or StillEnding(f"{plan.name} has only just been deleted.")

    def _standing(self, name: str, cache_key: str) -> JobExists | JobNameTaken | None:
        """What is there under the name, past the cache, which sees it after this if it is of the key."""
        found = self._look(name)
        if found is None:
            return None
        if found.metadata.annotations.get(CACHE_KEY) != cache_key:
            return JobNameTaken(f"{name} is there, and is no Job of key {cache_key[:12]}: remove or rename it.")
        if found.metadata.labels.get(MANAGED_BY) != OURS:
            self._mark_ours(found)
        return JobExists(f"{name} is there already.")

    def must_be_gone(self, name: str, cache_key: str) -> None:
        """Raises JobExists, JobNameTaken: a Job that lost its label is out of the cache's sight, and still there."""
        if there := self._standing(name, cache_key):
            raise there

    def _look(self, name: str) -> JobObject | None:
        """The Job as it is, past the cache."""
        try:
            found = JobObject.model_validate_json(self._api.get(f"{self._path}/{name}"))
        except NotFound:
            return None
        if found.metadata.labels.get(MANAGED_BY) == OURS:
            self._cache.learn(found)
        return found

    def _is_there(self, pod: PodObject) -> bool:
        """Whether the pod's Job only went out of sight."""
        found = self._look(pod.metadata.labels.get(_JOB_NAME, ""))
        if found is None or found.uid != pod.metadata.labels.get(_CONTROLLER_UID) or found.metadata.deletion_timestamp:
            return False
        if found.metadata.labels.get(MANAGED_BY) != OURS:
            self._mark_ours(found)
        return True

    def _mark_ours(self, job: JobObject) -> None:
        """Someone took our label off it, and with it the cache lost sight of it."""
        labels = {**job.metadata.labels, MANAGED_BY: OURS}
        self._patch(job.metadata.name, [self._is(job.uid), {"op": "add", "path": "/metadata/labels", "value": labels}])

    def _ensure_service(self) -> None:
        """One headless Service gives the pods of the namespace their host names. It is nobody's, and stays."""
        if time.monotonic() < self._service_until:
            return
        try:
            self._api.post(f"{self._core}/services", build_service(self._namespace))
        except Conflict:
            there = json.loads(self._api.get(f"{self._core}/services/{SERVICE}"))
            if not is_ours(there):
                raise JobRefused(
                    f"the Service {SERVICE} of namespace {self._namespace} is not of Runonce, and host names of pods "
                    "would lead elsewhere. Remove or rename it."
                ) from None
        self._service_until = time.monotonic() + SERVICE_S


def _process(pod: PodObject) -> Process:
    return Process(
        name=pod.metadata.name,
        index=index_of(pod),
        job_uid=pod.metadata.labels.get(_CONTROLLER_UID, ""),
        node=pod.spec.node_name,
        due=pod.metadata.deletion_timestamp or "",
    )


def _about(event: Mapping[str, Any], uid: str) -> bool:
    return (event.get("involvedObject") or {}).get("uid") in (None, "", uid)


def _pointer(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
