"""An Experiment in a cluster of kind beside a bare Indexed Job of the same image and training; and what a lost pod costs.

`make built` first. The cluster is that of tests/kind (RUNONCE_KIND_CLUSTER keeps one). Times are from the start of
`kubectl apply`, or from a SIGKILL, to what the pod itself says of its first step: one machine, one clock.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
PODS = HERE / "pods"
sys.path[:0] = [str(HERE.parent / "kind"), str(PODS)]

Object = dict[str, Any]

IMAGE, SERVICE = "runonce-bench/trial:1", "bare"
NAMESPACE = f"bench-{os.getpid()}"
SAYS = "first step at"
INDEX = "batch.kubernetes.io/job-completion-index"
LONG = 100_000  # steps: a training that is robbed of a pod does not end by itself
ROBBED = {"BENCH_PAUSE_S": "0.02", "RUNONCE_CHECKPOINT_S": "1"}

# In the node: when the processes of a pod but the one that holds its network were killed.
KILL = """for p in /proc/[0-9]*; do
  if grep -qsE "pod$1|pod$(echo $1 | tr - _)" $p/cgroup && ! grep -qs pause $p/comm; then found="$found ${p#/proc/}"; fi
done
date +%s.%N
kill -9 $found"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--hits", type=int, default=30)
    arguments.add_argument("--only", choices=["start", "hit", "lost"], action="append")
    given = arguments.parse_args()
    from cluster import Missing

    try:
        with _bench() as bench:
            for part in given.only or ["start", "hit", "lost"]:
                {"start": _start, "hit": _hit, "lost": _lost}[part](bench, given)
    except Missing as error:
        print(f"not measured: {error}")


def _start(bench: Bench, given: argparse.Namespace) -> None:
    for processes in (1, 2):
        pairs = [(bench.ours(processes), bench.bare(processes)) for _ in range(given.rounds + 1)][1:]
        _row(f"applied → first step, {processes} processes", pairs)


def _hit(bench: Bench, given: argparse.Namespace) -> None:
    spec = bench.experiment(1, salt="hit")
    name = bench.apply(spec, "first")
    bench.wait(lambda: bench.phase(name) == "Succeeded")
    times = sorted(bench.hit(spec, f"hit-{number}") for number in range(given.hits))
    print(f"applied → Succeeded on a hit: p50 {statistics.median(times):.3f} s, most {times[-1]:.3f} s", flush=True)


def _lost(bench: Bench, given: argparse.Namespace) -> None:
    """Beside the start of a bare Job, to which the time of a restore would be added; the same without the time that
    Kubernetes takes to fail the Job; and beside a bare Job that replaces its lost pods and begins anew.
    """
    robbed = [(bench.robbed(2), bench.bare_robbed(2), bench.bare(2)) for _ in range(given.rounds)]
    _row("a lost pod → the next step, beside a start", [(ours.killed, start) for ours, _, start in robbed])
    _row("a failed Job → the next step, beside a start", [(ours.failed, start) for ours, _, start in robbed])
    _row("a lost pod → the next step, beside pods replaced", [(ours.killed, bare) for ours, bare, _ in robbed])


@dataclass(frozen=True)
class Step:
    """after_s: from the apply, the kill, or the end of the Job. age_s: how long the program of the pod had run, of that."""

    after_s: float
    age_s: float


@dataclass(frozen=True)
class Lost:
    """The same step, from the kill and from when Kubernetes said that the Job had failed."""

    killed: Step
    failed: Step


def _row(what: str, pairs: list[tuple[Step, Step]]) -> None:
    """Both sides with, of it, what went before the pod's program began."""
    ratio = statistics.median(one.after_s / two.after_s for one, two in pairs)
    print(
        f"{what}: ours {_middle(ours for ours, _ in pairs)}, bare {_middle(bare for _, bare in pairs)}, ratio {ratio:.3f}"
    )
    print("  ", " ".join(f"{one.after_s:.2f}/{two.after_s:.2f}" for one, two in pairs), flush=True)


def _middle(steps: Iterable[Step]) -> str:
    steps = list(steps)
    before = statistics.median(step.after_s - step.age_s for step in steps)
    return f"{statistics.median(step.after_s for step in steps):.2f} s ({before:.2f} s before its program)"


class Bench:
    """cluster: with the controller and the stores. spec: of the Experiment, with the version of its code."""

    def __init__(self, cluster: Any, spec: Object) -> None:
        self._cluster, self._spec = cluster, spec

    # --- ours -----------------------------------------------------------------------------------------------

    def experiment(self, processes: int, *, salt: str, steps: int = 3, env: dict[str, str] | None = None) -> Object:
        block = {"nprocesses": processes, "env": {**_borrowed(), **(env or {})}}
        extra = {"params": {"steps": steps}, "cacheKeyExtra": [salt], "machineParams": {"train": block}}
        return {**self._spec, **extra}

    def apply(self, spec: Object, name: str) -> str:
        kind = {"apiVersion": "runonce.dev/v1alpha1", "kind": "Experiment"}
        full = f"{name}-{uuid.uuid4().hex[:6]}"
        self._apply({**kind, "metadata": {"name": full}, "spec": spec})
        return full

    def ours(self, processes: int) -> Step:
        began = time.time()
        name = self.apply(self.experiment(processes, salt=uuid.uuid4().hex), "ours")
        self.wait(lambda: self.phase(name) == "Succeeded")
        (pod,) = self._pods(f"runonce.dev/experiment={name},{INDEX}=0")
        return self._first_step(pod, began)

    def hit(self, spec: Object, name: str) -> float:
        began = time.monotonic()
        full = self.apply(spec, name)
        while self.phase(full) != "Succeeded":
            time.sleep(0.01)  # between two looks; what is measured is 20 times as long
        return time.monotonic() - began

    def robbed(self, processes: int) -> Lost:
        """From the SIGKILL of the last rank of a training that has a checkpoint."""
        spec = self.experiment(processes, salt=uuid.uuid4().hex, steps=LONG, env=ROBBED)
        name = self.apply(spec, "robbed")
        mine = f"runonce.dev/experiment={name}"
        self.wait(lambda: self._stepped(mine))
        time.sleep(5)  # for a checkpoint; below it is seen that there was one
        job = self._pods(mine)[0]["metadata"]["labels"]["batch.kubernetes.io/job-name"]
        with ThreadPoolExecutor(1) as beside:
            failed = beside.submit(self._failed_at, job)
            killed, before = self._kill_last(mine, processes)
            again = self.wait(lambda: self._stepped(mine, before))
        assert "goes on from the checkpoint" in self._log(again), self._log(again)
        step = Lost(self._first_step(again, killed), self._first_step(again, failed.result()))
        self._cluster.kubectl("-n", NAMESPACE, "delete", "experiment", name)
        self.wait(lambda: not self._pods(mine))
        return step

    def _failed_at(self, job: str) -> float:
        self._cluster.kubectl("-n", NAMESPACE, "wait", "--for=condition=Failed", f"job/{job}", "--timeout=120s")
        return time.time()

    def phase(self, name: str) -> str:
        found = self._cluster.get(f"/apis/runonce.dev/v1alpha1/namespaces/{NAMESPACE}/experiments/{name}")
        return str(found.get("status", {}).get("phase", ""))

    # --- beside it ------------------------------------------------------------------------------------------

    def bare(self, processes: int) -> Step:
        """One whose rank 1 asked for the name of rank 0 before the cluster's DNS had it has failed, and does not count."""
        while True:
            name = f"bare-{uuid.uuid4().hex[:6]}"
            began = time.time()
            self._apply(_bare(name, processes))
            mine = f"batch.kubernetes.io/job-name={name}"
            if self.wait(lambda name=name: self._ended(name)) == "Complete":
                (pod,) = self._pods(f"{mine},{INDEX}=0")
                return self._first_step(pod, began)

    def bare_robbed(self, processes: int) -> Step:
        name = f"bare-{uuid.uuid4().hex[:6]}"
        self._apply(_bare(name, processes, steps=LONG, backoff_limit=6, env=ROBBED))
        mine = f"batch.kubernetes.io/job-name={name}"
        self.wait(lambda: self._stepped(mine))
        killed, before = self._kill_last(mine, processes)
        step = self._first_step(self.wait(lambda: self._stepped(mine, before)), killed)
        self._cluster.kubectl("-n", NAMESPACE, "delete", "job", name)
        self.wait(lambda: not self._pods(mine))
        return step

    def _ended(self, name: str) -> str:
        found = self._cluster.get(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{name}")
        ends = {end["type"] for end in found["status"].get("conditions", ()) if end["status"] == "True"}
        return next(iter(ends & {"Complete", "Failed"}), "")

    # --- both -----------------------------------------------------------------------------------------------

    def wait(self, ready: Callable[[], Any], seconds: float = 180) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := ready()):
            assert time.monotonic() < deadline, self._cluster.report("-n", NAMESPACE)
            time.sleep(0.5)  # between two looks; no time is taken from them
        return found

    def _stepped(self, mine: str, before: Collection[str] = ()) -> Object | None:
        """The pod of rank 0 that says of its first step; none of those before."""
        pods = self._pods(f"{mine},{INDEX}=0")
        return next((pod for pod in pods if _uid(pod) not in before and SAYS in self._log(pod)), None)

    def _kill_last(self, mine: str, processes: int) -> tuple[float, set[str]]:
        """When, and which pods there were."""
        before = {_uid(pod) for pod in self._pods(mine)}
        (last,) = self._pods(f"{mine},{INDEX}={processes - 1}")
        node = ("exec", last["spec"]["nodeName"], "sh", "-c", KILL, "sh", _uid(last))
        return float(self._cluster.call("docker", *node)), before

    def _apply(self, thing: Object) -> None:
        self._cluster.kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=json.dumps(thing))

    def _pods(self, selector: str) -> list[Object]:
        return list(self._cluster.get(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=selector)["items"])

    def _log(self, pod: Object) -> str:
        return str(self._cluster.kubectl("-n", NAMESPACE, "logs", pod["metadata"]["name"], check=False))

    def _first_step(self, pod: Object, since: float) -> Step:
        at, age = map(float, self._log(pod).split(SAYS)[1].split()[:2])
        return Step(at - since, age)


def _uid(pod: Object) -> str:
    return str(pod["metadata"]["uid"])


def _borrowed() -> dict[str, str]:
    from laptop import BORROWED

    return dict(BORROWED)


def _bare(
    name: str, processes: int, *, steps: int = 3, backoff_limit: int = 0, env: Mapping[str, str] | None = None
) -> Object:
    """What somebody writes without Runonce: the same program, volume, environment and standing."""
    env = {**_borrowed(), **(env or {}), "WORLD_SIZE": str(processes), "PYTHONUNBUFFERED": "1", "MASTER_PORT": "29400"}
    env["MASTER_ADDR"] = f"{name}-0.{SERVICE}.{NAMESPACE}.svc"
    rank = {"fieldPath": f"metadata.annotations['{INDEX}']"}
    container = {
        "name": "bare",
        "image": IMAGE,
        "command": ["python", "plain.py", str(steps)],
        "env": [
            *({"name": key, "value": value} for key, value in env.items()),
            {"name": "RANK", "valueFrom": {"fieldRef": rank}},
        ],
        "volumeMounts": [{"name": "site", "mountPath": "/site", "readOnly": True}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "restartPolicy": "Never",
        "subdomain": SERVICE,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "site", "persistentVolumeClaim": {"claimName": "site", "readOnly": True}}],
    }
    template = {"metadata": {"labels": {"app": SERVICE}}, "spec": pod}
    counts = {"completions": processes, "parallelism": processes, "backoffLimit": backoff_limit}
    spec = {"completionMode": "Indexed", **counts, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


@contextlib.contextmanager
def _bench() -> Iterator[Bench]:
    from cluster import Cluster, programs
    from laptop import SITE_VOLUME

    kept = os.environ.get("RUNONCE_KIND_CLUSTER")
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(programs(), kept or f"runonce-bench-{os.getpid()}", Path(folder))
        try:
            cluster.create()
            cluster.load()
            cluster.build(IMAGE, {path.name: path for path in PODS.glob("*.py")}, "COPY . ./\n")
            cluster.call("kind", "load", "docker-image", "--name", cluster.name, IMAGE)
            cluster.install()
            cluster.namespace(NAMESPACE)
            headless = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"app": SERVICE}}
            metadata = {"name": SERVICE, "namespace": NAMESPACE}
            cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": headless})
            yield Bench(cluster, _rendered() | {"image": IMAGE, "volumes": [SITE_VOLUME]})
        finally:
            if kept:
                cluster.kubectl("delete", "namespace", NAMESPACE, check=False)
            else:
                cluster.delete()


def _rendered() -> Object:
    command = [sys.executable, "-m", "runonce", "render", "trial:Trial"]
    done = subprocess.run(command, cwd=PODS, capture_output=True, text=True, check=True)
    return dict(yaml.safe_load(done.stdout)["spec"])


if __name__ == "__main__":
    main()
