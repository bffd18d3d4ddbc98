"""A kubelet as the control plane sees one: it writes the status of pods and takes away those that are deleted.

No process runs. What a real one does in between (images, volumes, probes) does not exist; the scheduler's binding is played too.
Each step is a method; `playing` takes them for every pod of a namespace in a thread of its own.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import urllib3
from control_plane import Api

Pod = dict[str, Any]
MERGE = "application/strategic-merge-patch+json"


class Kubelet:
    """One node with its kubelet. The node has as many GPUs as any test asks for."""

    def __init__(self, api: Api, node: str = "node-1") -> None:
        self._api, self.node = api, node
        self.lingers_s = 0.0  # how long a pod that was deleted is seen as ended before it goes: volumes are let go of
        self._ended: dict[str, float] = {}
        resources = {"cpu": "64", "memory": "256Gi", "pods": "1000", "nvidia.com/gpu": "64"}
        made = api.request("POST", "/api/v1/nodes", {"metadata": {"name": node}})
        assert made.status in (201, 409), made
        status = {"capacity": resources, "allocatable": resources, "conditions": [_condition("Ready", "KubeletReady")]}
        api.must("PATCH", f"/api/v1/nodes/{node}/status", {"status": status}, content=MERGE)

    def pods(self, namespace: str, job: str | None = None) -> list[Pod]:
        """The pods of a Job, or all of the namespace, in the order of their completion indexes."""
        query = {} if job is None else {"labelSelector": f"batch.kubernetes.io/job-name={job}"}
        found: list[Pod] = self._api.must("GET", f"/api/v1/namespaces/{namespace}/pods", **query)["items"]
        return sorted(found, key=index_of)

    def start(self, pod: Pod) -> None:
        """Bind it to this node, unless it is, and let its container run."""
        if not pod["spec"].get("nodeName"):
            target = {"apiVersion": "v1", "kind": "Node", "name": self.node}
            bound = self._api.request("POST", f"{_path(pod)}/binding", {"metadata": pod["metadata"], "target": target})
            assert bound.status in (201, 403, 404, 409), bound  # it is gone, or is being deleted, or its namespace is
        conditions = [_condition(kind) for kind in ("Initialized", "ContainersReady", "Ready")]
        self._write(
            pod, {"phase": "Running", "podIP": "10.1.0.1", "conditions": conditions}, {"running": {"startedAt": _NOW}}
        )

    def hold(self, pod: Pod, reason: str, message: str) -> None:
        """Its container does not start, and this is why."""
        self._write(pod, {"phase": "Pending"}, {"waiting": {"reason": reason, "message": message}})

    def end(self, pod: Pod, exit_code: int = 0, *, message: str = "", reason: str = "") -> None:
        """Its container has ended. message: what terminationMessagePolicy would have kept of its log."""
        reason = reason or ("Error" if exit_code else "Completed")
        state = {"exitCode": exit_code, "reason": reason, "startedAt": _NOW, "finishedAt": _NOW}
        if message:
            state["message"] = message
        conditions = [_condition(kind, "PodFailed", "False") for kind in ("ContainersReady", "Ready")]
        phase = "Failed" if exit_code else "Succeeded"
        self._write(pod, {"phase": phase, "conditions": conditions}, {"terminated": state})

    def stop(self, pod: Pod) -> None:
        """Its container has ended, and the pod has not yet: that is told a second later."""
        conditions = [_condition(kind, "Played", "False") for kind in ("ContainersReady", "Ready")]
        self._write(pod, {"conditions": conditions}, {"terminated": {"exitCode": 0, "finishedAt": _NOW}})

    def disrupt(self, pod: Pod, reason: str = "EvictionByEvictionAPI") -> None:
        """Mark it as about to be evicted or preempted; the container still runs."""
        self._write(pod, {"conditions": [_condition("DisruptionTarget", reason)]})

    def remove(self, pod: Pod, exit_code: int = 143) -> None:
        """What follows a deletion: the container is ended, then the object goes once its finalizers have."""
        if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            self.end(pod, exit_code)
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
        answer = self._api.request("DELETE", _path(pod), options)
        assert answer.status in (200, 404, 409), answer

    @contextlib.contextmanager
    def playing(
        self, namespace: str, ends: Callable[[Pod], int | None] = lambda _: 0, *, every_s: float = 0.05
    ) -> Iterator[None]:
        """Meanwhile every pod of the namespace is started, ended with `ends(pod)` unless that is None, and removed
        when it is deleted. An error in it is raised at the end."""
        stop, errors = threading.Event(), []

        def loop() -> None:
            while not stop.wait(every_s):
                try:
                    for pod in self.pods(namespace):
                        self._step(pod, ends)
                except (urllib3.exceptions.HTTPError, OSError):
                    continue  # the API server is away; a kubelet goes on
                except Exception as error:
                    errors.append(error)
                    return

        thread = threading.Thread(target=loop, name="kubelet")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            if errors:  # whatever the caller waited for in vain
                raise errors[0]

    def _step(self, pod: Pod, ends: Callable[[Pod], int | None]) -> None:
        phase = pod.get("status", {}).get("phase", "Pending")
        if "deletionTimestamp" in pod["metadata"]:
            ended = self._ended.setdefault(pod["metadata"]["uid"], time.monotonic())
            if phase not in ("Succeeded", "Failed"):
                self.end(pod, 143)
            if time.monotonic() - ended >= self.lingers_s:
                self.remove(pod | {"status": {"phase": "Failed"}})
        elif phase == "Pending":
            self.start(pod)
        elif phase == "Running" and (code := ends(pod)) is not None:
            self.end(pod, code)

    def _write(self, pod: Pod, status: dict[str, Any], container: dict[str, Any] | None = None) -> None:
        """Nothing happens to a pod that is gone."""
        if container is not None:
            first = pod["spec"]["containers"][0]
            ready = "running" in container
            status["containerStatuses"] = [
                {
                    "name": first["name"],
                    "image": first["image"],
                    "imageID": "",
                    "ready": ready,
                    "restartCount": 0,
                    "state": container,
                }
            ]
        body = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}
        answer = self._api.request("PATCH", f"{_path(pod)}/status", body, content=MERGE)
        assert answer.status in (200, 404, 409), answer


def index_of(pod: Pod) -> int:
    """The completion index; -1 where it is no pod of an Indexed Job."""
    return int(pod["metadata"].get("annotations", {}).get("batch.kubernetes.io/job-completion-index", -1))


_NOW = "2026-01-01T00:00:00Z"


def _condition(kind: str, reason: str = "Played", status: str = "True") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "lastTransitionTime": _NOW}


def _path(pod: Pod) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
