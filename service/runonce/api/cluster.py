"""Experiments that run on a cluster: hand them over, and follow them until they end."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from runonce.api.target import Located, completed
from runonce.errors import InputError, NotFound, Refused
from runonce.experiment.spec import API_VERSION, to_resource
from runonce.experiment.status import ModeStatus, Status
from runonce.kube.informer import Informer
from runonce.kube.objects import ExperimentObject, ListOf, PodObject
from runonce.kube.transport import Api

MANAGER = "runonce-submit"  # of what a user gave; the controller's own is another
ENDED = ("Succeeded", "Failed", "Blocked")


def submit_all(found: Sequence[Located], api: Api, namespace: str) -> list[ExperimentObject]:
    """Server-side apply of every experiment, complete as `render` writes it. Raises InputError, ApiError."""
    resources = [to_resource(located.name, completed(located), namespace=namespace) for located in found]
    submitted = []
    for resource in resources:
        path = f"{_path(namespace)}/{resource['metadata']['name']}"
        try:
            answer = api.apply(path, resource, manager=MANAGER)
        except NotFound as error:
            raise InputError.of(
                "", f"{api.host} knows no Experiments, or no namespace {namespace}.", "Install the chart of Runonce."
            ) from error
        except Refused as error:
            raise InputError.of("", str(error), "Ask for the right to patch experiments.") from error
        submitted.append(ExperimentObject.model_validate_json(answer.body))
    return submitted


def send_code(found: Sequence[Located], store: str) -> list[str]:
    """Keep the code of every experiment in the store, under its digest; returns the digests. Raises InputError."""
    from runonce.author.bundle import pack, with_nonce
    from runonce.store.backend import source_name
    from runonce.store.url import open_store

    packed = dict(pack(completed(located), located.workdir) for located in found)
    backend = open_store(store)
    for digest, data in packed.items():
        backend.put(source_name(digest), with_nonce(data))
    return sorted(packed)


def list_all(api: Api, namespace: str) -> list[ExperimentObject]:
    """The Experiments of a namespace, as they stand. Raises InputError, ApiError."""
    try:
        data = api.get(_path(namespace))
    except NotFound as error:
        raise InputError.of("", f"{api.host} knows no Experiments.", "Install the chart of Runonce.") from error
    return ListOf[ExperimentObject].model_validate_json(data).items


def find_one(api: Api, namespace: str, name: str) -> ExperimentObject:
    """Raises InputError where there is none."""
    try:
        return ExperimentObject.model_validate_json(api.get(f"{_path(namespace)}/{name}"))
    except NotFound as error:
        raise InputError.of(
            "", f"no Experiment {name} is in namespace {namespace}.", "See `runonce cluster ls -n NAMESPACE`."
        ) from error


def follow(
    api: Api,
    namespace: str,
    submitted: Iterable[ExperimentObject],
    tell: Callable[[str, Status], None],
    *,
    timeout_s: float | None = None,
) -> Mapping[str, Status]:
    """Wait until all have ended; `tell` hears of every change. What is still open at the end of the time is as it is.

    An edit, by whomever, is waited for too; a deletion ends the waiting for that one.
    """
    wanted = {found.metadata.name: found.metadata.generation for found in submitted}
    changes: queue.Queue[ExperimentObject | str] = queue.Queue()

    def changed(old: ExperimentObject | None, new: ExperimentObject | None) -> None:
        about = new if new is not None else old
        if about is not None and about.metadata.name in wanted:
            changes.put(about.metadata.name if new is None else new)

    informer = Informer(api, _path(namespace), ExperimentObject, on_change=changed)
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
                open_.discard(change)
                continue
            name, status = change.metadata.name, status_of(change)
            if status != last.get(name):
                last[name] = status
                tell(name, status)
            current = status.observed_generation >= max(wanted[name], change.metadata.generation)
            if current and status.phase in ENDED:
                open_.discard(name)
            else:
                open_.add(name)
    finally:
        informer.stop()
    return last


def log_lines(api: Api, namespace: str, mode: ModeStatus, index: int, *, following: bool) -> Iterator[str]:
    """The log of one process of the mode's Job. Raises InputError where nothing of it is left."""
    selector = f"batch.kubernetes.io/controller-uid={mode.job_uid},batch.kubernetes.io/job-completion-index={index}"
    pods = f"/api/v1/namespaces/{namespace}/pods"
    listed = ListOf[PodObject].model_validate_json(api.get(pods, labelSelector=selector)).items
    if not listed:
        if mode.failure is not None and mode.failure.index == index:
            yield from mode.failure.log_tail.splitlines()
            return
        raise InputError.of(
            "", f"process {index} has no pod.", f"It has {mode.total} processes; see `kubectl get pods`."
        )
    path = f"{pods}/{listed[-1].metadata.name}/log"
    query = {"follow": "true"} if following else {}
    for line in api.lines(path, silence_s=24 * 3600.0, **query):
        yield line.decode("utf-8", "replace")


def status_of(found: ExperimentObject) -> Status:
    """The status; an empty one where there is none yet, or it is of another object of the name."""
    value: dict[str, Any] = found.status_value()
    status = Status.model_validate(value, by_alias=True, strict=False)
    return status if status.uid == found.uid else Status()


def _path(namespace: str) -> str:
    return f"/apis/{API_VERSION}/namespaces/{namespace}/experiments"
