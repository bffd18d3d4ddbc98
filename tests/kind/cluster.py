"""One cluster of kind with a store in it, and the controller by its chart; all of it goes with the session."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

import runonce

ROOT = Path(__file__).parents[2]
SITE = Path(sys.executable).parents[1]  # this environment: torch is three gigabytes, so pods borrow it
SITE_PACKAGES = f"lib/python3.{sys.version_info.minor}/site-packages"
BUCKET, KEY, SECRET, S3_PORT = "runonce", "testkeyofrunonce", "testsecretofrunonce", 8333
SYSTEM, STORE = "runonce-system", "store"
CONTROLLER = f"runonce-dev/controller:{runonce.__version__}"
WORKER = f"runonce-dev/worker:{runonce.__version__}"
SEAWEED, DIGITS = "runonce-test/seaweedfs:1", "runonce-test/digits:1"
ENDPOINT = f"http://seaweedfs.{STORE}.svc:{S3_PORT}"


class Missing(Exception):
    """What this machine lacks, in words."""


def programs() -> dict[str, str]:
    """Paths of docker, kind, kubectl and helm. Raises Missing."""
    path = os.pathsep.join([os.environ.get("PATH", ""), os.environ.get("KUBEBUILDER_ASSETS", "")])
    found = {name: shutil.which(name, path=path) for name in ("docker", "kind", "kubectl", "helm")}
    lacking = [name for name, program in found.items() if program is None]
    if lacking:
        raise Missing(f"no cluster: {', '.join(lacking)} not on this machine")
    if subprocess.run([str(found["docker"]), "info"], capture_output=True).returncode:
        raise Missing("no cluster: there is no Docker engine on this machine")
    return {name: str(program) for name, program in found.items()}


class Cluster:
    def __init__(self, programs: Mapping[str, str]) -> None:
        self._programs = programs
        self.kept = os.environ.get("RUNONCE_KIND_CLUSTER")  # is made where it is not there, and stays
        self.name = self.kept or f"runonce-{os.getpid()}"
        self.folder = Path(tempfile.mkdtemp(prefix="runonce-kind-"))
        self.env = {**os.environ, "KUBECONFIG": str(self.folder / "kubeconfig")}

    def call(
        self, program: str, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 600
    ) -> str:
        done = subprocess.run(
            [self._programs[program], *arguments], env=self.env, input=stdin, capture_output=True, text=True, timeout=timeout
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{program} {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        return self.call("kubectl", *arguments, stdin=stdin, check=check)

    def apply(self, *objects: Mapping[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def get(self, kind: str, namespace: str, *more: str) -> list[dict[str, Any]]:
        text = self.kubectl("get", kind, "-n", namespace, "-o", "json", *more)
        found: list[dict[str, Any]] = json.loads(text)["items"]
        return found

    # --- making it ------------------------------------------------------------------------------------------

    def create(self) -> None:
        if self.name in self.call("kind", "get", "clusters").split():
            self.call("kind", "export", "kubeconfig", "--name", self.name)
            return
        image = os.environ.get("KIND_NODE_IMAGE")
        nodes = [
            {
                "role": "control-plane",
                "extraMounts": [{"hostPath": str(SITE), "containerPath": "/site", "readOnly": True}],
            }
        ]
        config = {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": nodes}
        (self.folder / "kind.yaml").write_text(yaml.safe_dump(config))
        chosen = ["--image", image] if image else []
        self.call(
            "kind",
            "create",
            "cluster",
            "--name",
            self.name,
            "--config",
            str(self.folder / "kind.yaml"),
            "--wait",
            "5m",
            *chosen,
        )

    def delete(self) -> None:
        if not self.kept:
            self.call("kind", "delete", "cluster", "--name", self.name, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def load(self) -> None:
        """The product's images, which `make images` has built, and two of the tests' own."""
        for image in (CONTROLLER, WORKER):
            if not self.call("docker", "image", "ls", "-q", image):
                raise Missing("no cluster: the images are not built; make images builds them")
        weed = shutil.which("weed", path=str(SITE / "bin"))
        if weed is None:
            raise Missing("no cluster: SeaweedFS is not installed here; make setup installs it")
        self._build(
            SEAWEED, {"weed": Path(weed).resolve()}, f"FROM {WORKER}\nCOPY weed /usr/local/bin/weed\nENTRYPOINT []\n"
        )
        self._build(
            DIGITS, {"digits.py": ROOT / "examples" / "digits" / "digits.py"}, f"FROM {WORKER}\nCOPY digits.py /work/\n"
        )
        for image in (CONTROLLER, WORKER, SEAWEED, DIGITS):
            self.call("kind", "load", "docker-image", "--name", self.name, image)

    def _build(self, image: str, files: Mapping[str, Path], dockerfile: str) -> None:
        context = self.folder / "context"
        context.mkdir()
        for name, path in files.items():
            shutil.copy(path, context / name)
        (context / "Dockerfile").write_text(dockerfile)
        self.call("docker", "build", "-q", "-t", image, str(context))
        shutil.rmtree(context)

    def install(self) -> None:
        self.apply(*_store())
        self.kubectl("rollout", "status", "-n", STORE, "deployment/seaweedfs", "--timeout=180s")
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}, _credentials(SYSTEM))
        (self.folder / "values.yaml").write_text(yaml.safe_dump(VALUES))
        self.call(
            "helm", "upgrade", "--install", "runonce", str(ROOT / "helm" / "runonce"), "--namespace", SYSTEM,
            "--values", str(self.folder / "values.yaml"), "--wait", "--timeout", "3m",
        )  # fmt: skip

    def namespace(self, name: str, *, security: str = "restricted") -> None:
        """One for a test, under a Pod Security standard, with the store's credentials and this machine's torch."""
        labels = {"pod-security.kubernetes.io/enforce": security}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        # One that an earlier test of this name left in a kept cluster is bound to a claim that is gone.
        self.kubectl("delete", "persistentvolume", f"site-{name}", "--ignore-not-found")
        self.apply(_credentials(name), *_site(name))

    def fake_gpus(self, resource: str, count: int) -> None:
        """Let the node say that it has some: the scheduler and the kubelet count them, nothing else is needed."""
        (node,) = json.loads(self.kubectl("get", "nodes", "-o", "json"))["items"]
        path = f"/status/capacity/{resource.replace('/', '~1')}"
        patch = json.dumps([{"op": "add", "path": path, "value": str(count)}])
        self.kubectl("patch", "node", node["metadata"]["name"], "--subresource=status", "--type=json", "-p", patch)
        self.wait(
            "the resource",
            lambda: (
                resource in json.loads(self.kubectl("get", "nodes", "-o", "json"))["items"][0]["status"]["allocatable"]
            ),
        )

    # --- looking --------------------------------------------------------------------------------------------

    def experiment(self, namespace: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", "experiment", name, "-n", namespace, "-o", "json"))
        return found

    def wait(self, what: str, ready: Callable[[], Any], *, seconds: float = 240) -> Any:
        """What `ready` returns once that is true. A failure tells the state of everything."""
        deadline = time.monotonic() + seconds
        while not (found := ready()):
            assert time.monotonic() < deadline, f"{what} never came\n{self.report()}"
            time.sleep(0.3)
        return found

    def phase(self, namespace: str, name: str, *phases: str, seconds: float = 240) -> dict[str, Any]:
        """The Experiment, once its status is of its spec and its phase is one of these."""

        def there() -> dict[str, Any] | None:
            found = self.experiment(namespace, name)
            status = found.get("status", {})
            current = status.get("observedGeneration") == found["metadata"]["generation"]
            return found if current and status.get("phase") in phases else None

        found: dict[str, Any] = self.wait(f"{name}: {', '.join(phases)}", there, seconds=seconds)
        return found

    def report(self) -> str:
        commands = (
            ("get", "experiments,jobs,pods", "-A", "-o", "wide"),
            ("get", "experiments", "-A", "-o", 'jsonpath={range .items[*]}{.metadata.name}{" "}{.status}{"\\n"}{end}'),
            ("logs", "-n", SYSTEM, "deployment/runonce", "--tail=30"),
            ("get", "events", "-A", "--sort-by=.lastTimestamp"),
        )
        return "\n".join(self.kubectl(*command, check=False)[-6000:] for command in commands)


VALUES = {
    "image": {"registry": "", "controller": {"pullPolicy": "Never"}},
    "stores": {
        "default": {
            "url": f"s3://{BUCKET}/{{namespace}}?endpoint={ENDPOINT}&region=us-east-1&addressing=path",
            "secretName": "store",
        }
    },
    "credentials": {"secretName": "store"},
    "profiles": {"fake": {"gpuResource": "example.com/gpu"}},
    "controller": {"logLevel": "debug"},
}


def _credentials(namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "store", "namespace": namespace},
        "stringData": {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET},
    }


def _site(namespace: str) -> list[dict[str, Any]]:
    """The environment of this machine as a claim: the restricted standard forbids folders of the node."""
    volume = f"site-{namespace}"
    common = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {**common, "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/site"}},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "site", "namespace": namespace},
            "spec": {**common, "volumeName": volume, "resources": {"requests": {"storage": "1Gi"}}},
        },
    ]


def _store() -> list[dict[str, Any]]:
    keys = {
        "identities": [
            {
                "name": "all",
                "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            }
        ]
    }
    command = (
        "exec weed mini -dir=/data -s3.config=/keys/keys.json -master.telemetry=false -webdav=false -admin.ui=false "
        f"-s3.port.iceberg=0 -s3.port.lance=0 -s3.autoCreateBucket=false -bucket={BUCKET} -s3.port={S3_PORT}"
    )
    container = {
        "name": "weed",
        "image": SEAWEED,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", command],
        "readinessProbe": {"tcpSocket": {"port": S3_PORT}, "periodSeconds": 1},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "keys", "mountPath": "/keys"}],
    }
    labels = {"app": "seaweedfs"}
    volumes = [{"name": "data", "emptyDir": {}}, {"name": "keys", "secret": {"secretName": "keys"}}]
    pod = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "volumes": volumes, "securityContext": {"fsGroup": 65532}},
    }
    deployment = {"selector": {"matchLabels": labels}, "strategy": {"type": "Recreate"}, "template": pod}
    meta = {"name": "seaweedfs", "namespace": STORE}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": STORE}},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "keys", "namespace": STORE},
            "stringData": {"keys.json": json.dumps(keys)},
        },
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": deployment},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": labels, "ports": [{"port": S3_PORT}]},
        },
    ]
