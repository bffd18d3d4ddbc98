"""Experiments that are on a cluster: found, followed until they end, with their logs, failures and results."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from runonce.controller.status import read_status
from runonce.errors import InputError, NotFound, Refused
from runonce.experiment.job import Failure
from runonce.experiment.key import MODES
from runonce.experiment.manifest import Commit
from runonce.experiment.spec import API_VERSION
from runonce.experiment.status import FailureStatus, ModeStatus, Status
from runonce.kube.informer import Informer
from runonce.kube.objects import ExperimentObject, ListOf, PodObject
from runonce.kube.transport import Api
from runonce.kube.waiting import why_waiting
from runonce.settings import Settings
from runonce.store.backend import Backend
from runonce.store.commit import probe
from runonce.store.failures import FailedAttempt, newest_failure
from runonce.store.url import open_yours

ENDED = ("Succeeded", "Failed", "Blocked")
POLL_S = 1.0  # of a pod that does not run yet


def list_all(api: Api, namespace: str) -> list[ExperimentObject]:
    """The Experiments of a namespace, or of all where that is empty, as they stand. Raises InputError, ApiError."""
    try:
        data = api.get(experiments_path(namespace))
    except NotFound as error:
        raise InputError.of("", f"{api.host} knows no Experiments.", "Install the chart of Runonce.") from error
    except Refused as error:
        raise InputError.of("", str(error), "Ask for the right to list and watch experiments.") from error
    return ListOf[ExperimentObject].read(data).items


def find_one(api: Api, namespace: str, name: str) -> ExperimentObject:
    """Raises InputError where there is none."""
    try:
        return ExperimentObject.read(api.get(f"{experiments_path(namespace)}/{name}"))
    except NotFound as error:
        raise InputError.of(
            "", f"no Experiment {name} is in namespace {namespace}.", "See `runonce cluster ls -n NAMESPACE`."
        ) from error
    except Refused as error:
        raise InputError.of("", str(error), "Ask for the right to get experiments.") from error


def follow(
    api: Api,
    namespace: str,
    submitted: Iterable[ExperimentObject],
    tell: Callable[[str, Status], None],
    *,
    timeout_s: float | None = None,
) -> Mapping[str, Status]:
    """Wait until all have ended; `tell` hears of every change. What is still open at the end of the time is as it is.

    An edit, by whomever, is waited for too; a deletion ends the waiting for that one, as a failure. Raises InputError
    without the right to list experiments, ApiError where the server does not answer at first; later it is waited for.
    """
    list_all(api, namespace)
    wanted = {found.metadata.name: found.metadata.generation for found in submitted}
    changes: queue.Queue[ExperimentObject | str] = queue.Queue()

    def changed(old: ExperimentObject | None, new: ExperimentObject | None) -> None:
        about = new if new is not None else old
        if about is not None and about.metadata.name in wanted:
            changes.put(about.metadata.name if new is None else new)

    informer = Informer(api, experiments_path(namespace), ExperimentObject, on_change=changed)
    informer.start()
    last: dict[str, Status] = {}
    open_, deadline = set(wanted), None if timeout_s is None else time.monotonic() + timeout_s
    try:
        while open_:
            try:
                change = changes.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if isinstance(change, str):
                if change in open_:
                    open_.discard(change)
                    last[change] = Status(phase="Failed", message="the Experiment was deleted before it ended")
                    tell(change, last[change])
                continue
            name, status = change.metadata.name, status_of(change)
            current = status.observed_generation >= max(wanted[name], change.metadata.generation)
            if current and status != last.get(name):  # an earlier one is of what stood there before
                last[name] = status
                tell(name, status)
            if current and status.phase in ENDED:
                open_.discard(name)
            else:
                open_.add(name)
    finally:
        informer.stop()
    return last


def log_lines(api: Api, namespace: str, mode: ModeStatus, index: int, *, following: bool) -> Iterator[str]:
    """The log of one process of the mode's Job; following: as lines come, from its start on, which is waited for.

    Raises InputError where nothing of it is left, or is there yet.
    """
    pod = _newest_pod(api, namespace, mode, index)
    while pod is not None and pod.status.phase == "Pending":
        if not following:
            _, why = why_waiting(pod) or ("", f"pod {pod.metadata.name} is being started")
            raise InputError.of("", f"process {index} has written nothing yet: {why}.", "Add --follow to wait for it.")
        time.sleep(POLL_S)
        pod = _newest_pod(api, namespace, mode, index)
    if pod is None:
        if mode.failure is not None and mode.failure.index == index:
            yield from mode.failure.log_tail.splitlines()
            return
        fix = f"The mode has {mode.total} processes, of which none may have begun; see `kubectl get pods`."
        raise InputError.of("", f"process {index} has no pod.", fix)
    query = {"follow": "true"} if following else {}
    for line in api.lines(f"{_pods(namespace)}/{pod.metadata.name}/log", silence_s=24 * 3600.0, **query):
        yield line.decode("utf-8", "replace")


def _newest_pod(api: Api, namespace: str, mode: ModeStatus, index: int) -> PodObject | None:
    selector = f"batch.kubernetes.io/controller-uid={mode.job_uid},batch.kubernetes.io/job-completion-index={index}"
    found = ListOf[PodObject].read(api.get(_pods(namespace), labelSelector=selector)).items
    return max(found, key=lambda pod: (pod.metadata.creation_timestamp, pod.version), default=None)


def _pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def status_of(found: ExperimentObject) -> Status:
    """The status; an empty one where there is none yet, or it is of another object of the name."""
    return read_status(found.status_value(), found.uid)


def store_url(status: Status, others: Iterable[Status] = ()) -> str:
    """URL of the store that its results lie in, or those of others; empty where none has a result."""
    for one in (status, *others):
        for mode in MODES:
            mode_status: ModeStatus | None = getattr(one.modes, mode)
            if mode_status is not None and mode_status.artifacts:
                return mode_status.artifacts.rpartition("#")[0]
    return ""


def failed_modes(name: str, status: Status, backend: Backend | None) -> dict[str, FailedAttempt]:
    """Of each mode that was tried and has no result the newest attempt that failed.

    As the store has kept it, with every process and more of its log; else as the status tells it.
    """
    found = {}
    for mode in MODES:
        one: ModeStatus | None = getattr(status.modes, mode)
        if one is None or one.failure is None or one.phase == "Succeeded":
            continue
        kept = None if backend is None else newest_failure(backend, one.cache_key)
        found[mode] = kept or _told(name, mode, one, one.failure)
    return found


def _told(name: str, mode: str, one: ModeStatus, told: FailureStatus) -> FailedAttempt:
    failure = Failure(index=told.index, exit_code=told.exit_code, reason=told.reason, log_tail=told.log_tail)
    return FailedAttempt(
        cache_key=one.cache_key, name=name, mode=mode, number=told.attempt, when=0.0, failures=[failure]
    )


def commit_of(name: str, mode: str, one: ModeStatus | None, store: str = "") -> tuple[Backend, Commit]:
    """The result of one mode, from the store that its status names, or from `store`. Raises InputError, StoreError."""
    if one is None:
        raise InputError.of("", f"{name} has no mode {mode}.", f"See `runonce cluster show {name}`.")
    if not one.artifacts:
        why = f": {one.message}" if one.message else "."
        raise InputError.of("", f"{name} has no result of {mode}, which is {one.phase}{why}")
    backend = open_yours(Settings.from_env(), store or one.artifacts.rpartition("#")[0])
    found = probe(backend, one.cache_key)
    if found is None:
        what = f"{backend.url} has no result under {one.cache_key[:12]} any more."
        raise InputError.of(
            "", what, "To have it made anew, annotate the Experiment with runonce.dev/rerun: <a new text>."
        )
    return backend, found[0]


def experiments_path(namespace: str) -> str:
    inside = f"namespaces/{namespace}/" if namespace else ""
    return f"/apis/{API_VERSION}/{inside}experiments"
