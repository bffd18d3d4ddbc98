"""A controller on the real API server, and the worker of a pod as far as a store sees it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from control_plane import CONTROLLER, ControlPlane, wait_for
from kubelet import Kubelet, Pod, index_of

from runonce.controller.main import Controller
from runonce.experiment.manifest import Shard
from runonce.experiment.spec import parse_experiment
from runonce.kube.cluster import Cluster, Profile, StoreAccess
from runonce.kube.rights import LEASE_RULES, RULES, rules
from runonce.kube.transport import Api
from runonce.store.backend import Backend, shard_name
from runonce.store.url import open_store

GROUP = "/apis/runonce.dev/v1alpha1"


def grant(plane: ControlPlane, user: str = CONTROLLER) -> None:
    """To this user the controller's rights, and no other."""
    api = plane.api()
    role = {"metadata": {"name": "runonce"}, "rules": rules(RULES + LEASE_RULES)}
    subject = {"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}
    binding = {
        "metadata": {"name": f"runonce-{user}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "runonce"},
        "subjects": [subject],
    }
    for path, body in (("clusterroles", role), ("clusterrolebindings", binding)):
        answer = api.request("POST", f"/apis/rbac.authorization.k8s.io/v1/{path}", body)
        assert answer.status in (201, 409), answer


def spec(**changes: Any) -> dict[str, Any]:
    """A small Experiment. Each value of `lr` is a key of its own."""
    given = {
        "config": "digits:Digits",
        "params": {"lr": 0.1},
        "codeVersion": "label:1",
        "image": "example.org/digits:1",
        "machineParams": {"train": {"nprocesses": 2}},
    }
    return {name: value for name, value in (given | changes).items() if value is not None}


@dataclass
class Place:
    """A namespace with a controller that watches it, and a store."""

    plane: ControlPlane
    namespace: str
    folder: Path
    kubelet: Kubelet
    controllers: list[tuple[Controller, threading.Thread]] = field(default_factory=list)
    cluster_changes: dict[str, Any] = field(default_factory=dict)
    store: str = ""  # another one than the folder: its URL
    client: type[Api] = Api  # what its controllers call the API server with

    @property
    def api(self):
        return self.plane.api()

    @property
    def backend(self) -> Backend:
        return open_store(self.store or f"file://{self.folder}")

    def cluster(self) -> Cluster:
        given: dict[str, Any] = {
            "namespaces": (self.namespace,),
            "stores": {"default": StoreAccess(url=self.store or f"file://{self.folder}")},
            "profiles": {"big": Profile(gpu_resource="nvidia.com/gpu")},
            "workers": 2,
        }
        return Cluster(**(given | self.cluster_changes))

    def start(self, *, elect: bool = False, **options: Any) -> Controller:
        kubeconfig = str(self.plane.kubeconfig(CONTROLLER))
        made = Controller(
            self.client.connect(kubeconfig=kubeconfig),
            self.cluster(),
            namespace=self.namespace,
            elect=Api.connect(kubeconfig=kubeconfig, timeout_s=3) if elect else None,
            host="127.0.0.1",
            port=0,
            **options,
        )
        thread = threading.Thread(target=made.run, name="controller")
        thread.start()
        self.controllers.append((made, thread))
        return made

    def stop(self) -> None:
        for made, _ in self.controllers:
            made.stop()
        for _, thread in self.controllers:
            thread.join()
        self.controllers.clear()

    def settle(self) -> None:
        """Wait until no pass is under way: what is seen of an object may be the work of a call that is not answered yet."""
        wait_for("all passes", lambda: not any(made._queue.is_busy() for made, _ in self.controllers))

    def position(self) -> int:
        """Of the audit log, with no call of a controller under way."""
        self.settle()
        return self.plane.audit_position()

    def calls(self, since: int) -> list[dict[str, Any]]:
        """What the controllers have asked of the API server since `position`."""
        self.settle()
        return self.plane.calls(CONTROLLER, since=since)

    @property
    def experiments(self) -> str:
        return f"{GROUP}/namespaces/{self.namespace}/experiments"

    @property
    def jobs_path(self) -> str:
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs"

    def apply(self, name: str, *, annotations: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
        """Server-side apply, as kubectl does it."""
        body = {
            "apiVersion": "runonce.dev/v1alpha1",
            "kind": "Experiment",
            "metadata": {"name": name, "annotations": annotations or {}},
            "spec": spec(**changes),
        }
        return self.api.must(
            "PATCH",
            f"{self.experiments}/{name}",
            body,
            content="application/apply-patch+yaml",
            fieldManager="user",
            force="true",
        )

    def delete(self, name: str, propagation: str = "Background") -> None:
        self.api.must("DELETE", f"{self.experiments}/{name}", {"propagationPolicy": propagation})

    def get(self, name: str) -> dict[str, Any]:
        found = self.api.get(f"{self.experiments}/{name}")
        assert found is not None, name
        return found

    def status(self, name: str) -> dict[str, Any]:
        return self.get(name).get("status") or {}

    def phase(self, name: str) -> str | None:
        found = self.get(name)
        status = found.get("status") or {}
        return status.get("phase") if status.get("observedGeneration") == found["metadata"]["generation"] else None

    def reason(self, name: str, mode: str = "train") -> str:
        """What its mode waits for, or what became of it."""
        return str(((self.status(name).get("modes") or {}).get(mode) or {}).get("reason", ""))

    def until(self, name: str, phase: str, within_s: float = 60) -> dict[str, Any]:
        try:
            wait_for(f"{name} {phase}", lambda: self.phase(name) == phase, within_s=within_s)
        except AssertionError as error:
            pods = [pod["status"] for pod in self.kubelet.pods(self.namespace)]
            jobs = [job["status"] for job in self.jobs()]
            raise AssertionError(f"{error}\n{self.status(name)}\nJobs: {jobs}\npods: {pods}") from error
        return self.status(name)

    def jobs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api.must("GET", self.jobs_path)["items"]
        return found

    def job(self) -> dict[str, Any]:
        """The one Job there is, as soon as it is there."""
        return wait_for("a Job", lambda: (found := self.jobs()) and len(found) == 1 and found[0])

    def pods(self, count: int) -> list[Pod]:
        def found() -> list[Pod] | None:
            pods = self.kubelet.pods(self.namespace)
            alive = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
            return pods if len(alive) >= count else None

        return wait_for(f"{count} pods", found)

    def key(self, name: str, mode: str = "train") -> str:
        return key_of(self.get(name), mode)

    def commits(self) -> list[str]:
        return [entry.name for entry in self.backend.list("c/")]

    @contextlib.contextmanager
    def working(self, ends: Callable[[Pod], int | None] | None = None) -> Iterator[None]:
        """Pods run, publish and end well, unless `ends` says otherwise."""

        def end(pod: Pod) -> int | None:
            code = 0 if ends is None else ends(pod)
            if code == 0:
                publish(self.backend, pod)
            return code

        with self.kubelet.playing(self.namespace, end):
            yield


def key_of(found: dict[str, Any], mode: str = "train") -> str:
    """The cache key of an Experiment as the API server gives it."""
    metadata = {"name": found["metadata"]["name"], "annotations": {}}
    value = {"apiVersion": found["apiVersion"], "kind": "Experiment", "metadata": metadata, "spec": found["spec"]}
    return parse_experiment(value).spec.keys()[mode][1]


def first_fails() -> Callable[[Pod], int]:
    """For `working`: the pods of the first Job that is seen fail. A status may lag behind its pods."""
    uids: list[str] = []

    def ends(pod: Pod) -> int:
        uids.append(pod["metadata"]["labels"]["batch.kubernetes.io/controller-uid"])
        return 3 if uids[-1] == uids[0] else 0

    return ends


def publish(backend: Backend, pod: Pod, **facts: Any) -> None:
    """The shard manifest that a worker leaves, out of what its pod was told."""
    env = {entry["name"]: entry.get("value") for entry in pod["spec"]["containers"][0]["env"]}
    shard = Shard(
        cache_key=env["RUNONCE_CACHE_KEY"],
        mode=env["RUNONCE_MODE"],
        round=env["RUNONCE_ROUND"],
        total=int(env["RUNONCE_TOTAL"]),
        attempt=pod["metadata"]["labels"]["batch.kubernetes.io/controller-uid"],
        index=index_of(pod),
        files=(),
        metrics={"loss": (1.0, 2)},
        facts=facts,
    )
    name = shard_name(shard.cache_key, shard.round, shard.total, shard.attempt, shard.index)
    backend.put(name, shard.encode())


def condition(status: dict[str, Any], kind: str) -> dict[str, Any] | None:
    return next((entry for entry in status.get("conditions", ()) if entry["type"] == kind), None)
