"""What happens in one namespace of the cluster: Experiments are applied, and their Jobs and pods are watched."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster import WORKER, Cluster

SALT = Path(os.environ.get("RUNONCE_KIND_FOLDER", "")).name  # of the session: a cluster that is kept keeps its results

PATHS = {"pods": "/api/v1", "events": "/api/v1", "jobs": "/apis/batch/v1", "experiments": "/apis/runonce.dev/v1alpha1"}

Object = dict[str, Any]


def program(name: str, script: str, *, nprocesses: int = 1, coupled: bool = False, **fields: Any) -> Object:
    """A command in the shell's language. The script is in the key."""
    spec: Object = {
        "command": ["sh", "-c", script],
        "codeVersion": "label:kind",
        "image": WORKER,
        "cacheKeyExtra": [SALT],
        "machineParams": {"train": {"nprocesses": nprocesses, "coupled": coupled}},
    }
    metadata = {"name": name}
    return {"apiVersion": "runonce.dev/v1alpha1", "kind": "Experiment", "metadata": metadata, "spec": spec | fields}


def condition(experiment: Object, kind: str) -> Object:
    found = {one["type"]: one for one in experiment.get("status", {}).get("conditions", ())}
    return dict(found.get(kind, {}))


def train(experiment: Object) -> Object:
    return dict(experiment["status"]["modes"]["train"])


class Story:
    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, stdin=stdin, check=check)

    def apply(self, experiment: Object, *arguments: str) -> str:
        self.kubectl("apply", *arguments, "-f", "-", stdin=json.dumps(experiment))
        return str(experiment["metadata"]["name"])

    def all(self, kind: str, **query: str) -> list[Object]:
        found: list[Object] = self.cluster.get(f"{PATHS[kind]}/namespaces/{self.namespace}/{kind}", **query)["items"]
        return found

    def experiment(self, name: str) -> Object:
        path = f"{PATHS['experiments']}/namespaces/{self.namespace}/experiments/{name}"
        return dict(self.cluster.get(path))

    # --- waiting --------------------------------------------------------------------------------------------

    def wait(self, what: str, ready: Callable[[], Any], *, seconds: float = 480) -> Any:
        """What `ready` returns once that is true. A failure tells the state of everything in the namespace."""
        deadline = time.monotonic() + seconds
        while not (found := ready()):
            assert time.monotonic() < deadline, f"{what} never came\n{self.cluster.report('-n', self.namespace)}"
            time.sleep(0.3)
        return found

    def phase(self, name: str, *phases: str, seconds: float = 480) -> Object:
        """The Experiment, once its status is of its spec and its phase is one of these."""

        def there() -> Object | None:
            found = self.experiment(name)
            status = found.get("status", {})
            current = status.get("observedGeneration") == found["metadata"]["generation"]
            return found if current and status.get("phase") in phases else None

        return dict(self.wait(f"{name}: {', '.join(phases)}", there, seconds=seconds))

    def succeeded(self, name: str, *, seconds: float = 480) -> Object:
        found = self.phase(name, "Succeeded", "Failed", seconds=seconds)
        assert found["status"]["phase"] == "Succeeded", self.cluster.report("-n", self.namespace)
        return found

    def pods_of(self, job: str, **query: str) -> list[Object]:
        return sorted(self.all("pods", labelSelector=f"batch.kubernetes.io/job-name={job}", **query), key=index)

    def job(self) -> Object:
        """The only one, once it is there."""
        (found,) = self.wait("a Job", lambda: self.all("jobs"))
        return dict(found)

    def told(self, text: str, count: int = 1, *, but: frozenset[str] = frozenset()) -> list[Object]:
        """The pods whose log has this text, once there are so many. but: uids of pods that are no longer meant."""

        def there() -> list[Object] | None:
            pods = [pod for pod in self.all("pods") if pod["status"]["phase"] == "Running" and uid(pod) not in but]
            found = [pod for pod in pods if text in self.log(pod)]
            return found if len(found) >= count else None

        found: list[Object] = self.wait(f"{count} pods that say {text!r}", there)
        return sorted(found, key=index)

    def log(self, pod: Object) -> str:
        name = pod["metadata"]["name"]
        return self.kubectl("logs", name, check=False)

    def resumed(self, job: str) -> int:
        """The step of the checkpoint from which a Job's training went on, as it said so; 0 where it did not."""
        found = re.search(r"goes on from the checkpoint of step (\d+)", self.log(self.pods_of(job)[0]))
        return int(found[1]) if found else 0

    def pods_ever(self) -> set[str]:
        return {
            event["involvedObject"]["name"]
            for event in self.all("events")
            if event["involvedObject"]["kind"] == "Pod"
        }  # fmt: skip

    # --- what happens to a pod ------------------------------------------------------------------------------

    def tell(self, pod: Object, script: str) -> None:
        """Something done beside its program, in its container."""
        self.kubectl("exec", pod["metadata"]["name"], "--", "sh", "-c", script)

    def kill(self, pod: Object) -> None:
        """SIGKILL for the first process of its container, as nobody in it could."""
        (container,) = pod["status"]["containerStatuses"]
        task = container["containerID"].removeprefix("containerd://")
        node = pod["spec"]["nodeName"]
        self.cluster.call("docker", "exec", node, "ctr", "-n", "k8s.io", "task", "kill", "-s", "SIGKILL", task)

    def evict(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": self.namespace}}
        path = f"{PATHS['pods']}/namespaces/{self.namespace}/pods/{name}/eviction"
        self.cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


def uid(thing: Object) -> str:
    return str(thing["metadata"]["uid"])


def index(pod: Object) -> int:
    return int(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"])
