"""One cluster of kind with stores in it, and the controller by its chart; all of it goes with the session."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from stores import FRAGILE, NAMESPACE, PLAIN, SEAWEED, stores

import runonce
from runonce.kube.transport import Api

ROOT = Path(__file__).parents[2]
HANGS = Path(__file__).with_name("hangs.py")
SITE = Path(sys.executable).parents[1]  # this environment: torch is three gigabytes, so pods borrow it
SITE_PACKAGES = f"lib/python3.{sys.version_info.minor}/site-packages"
SYSTEM = "runonce-system"
CONTROLLER = f"runonce-dev/controller:{runonce.__version__}"
WORKER = f"runonce-dev/worker:{runonce.__version__}"
EXAMPLES = "runonce-test/examples:1"
BARE = "runonce-test/bare:1"  # has no program at all


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
    """folder: of its kubeconfig, and of the files that make it."""

    def __init__(self, programs: Mapping[str, str], name: str, folder: Path) -> None:
        self.programs, self.name, self.folder = programs, name, folder
        self.kubeconfig = folder / "kubeconfig"
        self.env = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        self._api: Api | None = None

    def call(self, program: str, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        command = [self.programs[program], *arguments]
        done = subprocess.run(command, env=self.env, input=stdin, capture_output=True, text=True, timeout=600)
        assert not check or done.returncode == 0, f"{program} {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        return self.call("kubectl", *arguments, stdin=stdin, check=check)

    def apply(self, *objects: Mapping[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def get(self, path: str, **query: str) -> Any:
        """What the API server has there; a program for each look would take most of the machine."""
        return json.loads(self.text(path, **query))

    def text(self, path: str, **query: str) -> str:
        if self._api is None:
            self._api = Api.connect(kubeconfig=str(self.kubeconfig))
        return self._api.get(path, **query).decode()

    # --- making it ------------------------------------------------------------------------------------------

    def create(self) -> None:
        if self.name in self.call("kind", "get", "clusters").split():
            self.call("kind", "export", "kubeconfig", "--name", self.name)
            return
        mount = {"hostPath": str(SITE), "containerPath": "/site", "readOnly": True}
        nodes = [{"role": "control-plane", "extraMounts": [mount]}]
        config = {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": nodes}
        (self.folder / "kind.yaml").write_text(yaml.safe_dump(config))
        image = os.environ.get("KIND_NODE_IMAGE")
        arguments = ["--config", str(self.folder / "kind.yaml"), "--wait", "5m", *(["--image", image] if image else [])]
        self.call("kind", "create", "cluster", "--name", self.name, *arguments)

    def delete(self) -> None:
        self.call("kind", "delete", "cluster", "--name", self.name, check=False)

    def load(self) -> None:
        """The product's images, which `make kind` has built, and three of the tests' own."""
        weed = shutil.which("weed", path=str(SITE / "bin"))
        if weed is None:
            raise Missing("no cluster: SeaweedFS is not installed here; make setup installs it")
        for image in (CONTROLLER, WORKER):
            if not self.call("docker", "image", "ls", "-q", image):
                raise Missing("no cluster: the images are not built; make kind builds them")
        ask = ("--entrypoint", "python", WORKER, "-c", "import sys; print(sys.version_info.minor)")
        if (minor := self.call("docker", "run", "--rm", *ask).strip()) != str(sys.version_info.minor):
            here = f"pods borrow the torch of {SITE}, which is of Python 3.{sys.version_info.minor}"
            raise Missing(f"no cluster: {WORKER} has Python 3.{minor}, and {here}; give BASE_IMAGE= or PYTHON= to make")
        # Under the name that examples/cluster/store.yaml has, so that no registry is asked for it.
        self.build(SEAWEED, {"weed": Path(weed).resolve()}, "COPY weed /usr/local/bin/weed\nENTRYPOINT []\n")
        files = [path for name in ("digits", "commands") for path in (ROOT / "examples" / name).iterdir()]
        files.append(HANGS)
        self.build(EXAMPLES, {path.name: path for path in files if path.is_file()}, "COPY . ./\n")
        self.build(BARE, {HANGS.name: HANGS}, "USER 65532\nCOPY . ./\n", base="scratch")
        images = (CONTROLLER, WORKER, SEAWEED, EXAMPLES, BARE)
        self.call("kind", "load", "docker-image", "--name", self.name, *images)

    def build(self, image: str, files: Mapping[str, Path], lines: str, *, base: str = WORKER) -> None:
        context = self.folder / "context"
        context.mkdir()
        for name, path in files.items():
            shutil.copy(path, context / name)
        (context / "Dockerfile").write_text(f"FROM {base}\n{lines}")
        self.call("docker", "build", "-q", "-t", image, str(context))
        shutil.rmtree(context)

    def install(self, values: Mapping[str, Any] | None = None, *, release: str = "runonce") -> None:
        self.apply(*stores())
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}, credentials(SYSTEM))
        (self.folder / "values.yaml").write_text(yaml.safe_dump(dict(VALUES if values is None else values)))
        self.call(
            "helm", "upgrade", "--install", release, str(ROOT / "helm" / "runonce"), "--namespace", SYSTEM,
            "--values", str(self.folder / "values.yaml"), "--wait", "--timeout", "5m",
        )  # fmt: skip
        for store in (PLAIN, FRAGILE):
            self.kubectl("rollout", "status", "-n", NAMESPACE, f"deployment/{store.name}", "--timeout=180s")

    # --- what a test asks for -------------------------------------------------------------------------------

    def namespace(self, name: str) -> None:
        """Under the restricted Pod Security standard, with the store's credentials and this machine's torch."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        # One that an earlier test of this name left in a kept cluster is bound to a claim that is gone.
        self.kubectl("delete", "persistentvolume", f"site-{name}", "--ignore-not-found")
        self.apply(credentials(name), *_site(name))

    def node(self) -> dict[str, Any]:
        (found,) = self.get("/api/v1/nodes")["items"]
        return dict(found)

    def fake_gpus(self, resource: str, count: int) -> None:
        """Let the node say that it has some: the scheduler and the kubelet count them, nothing else is needed."""
        path = f"/status/capacity/{resource.replace('/', '~1')}"
        patch = json.dumps([{"op": "add", "path": path, "value": str(count)}])
        name = self.node()["metadata"]["name"]
        self.kubectl("patch", "node", name, "--subresource=status", "--type=json", "-p", patch)

    def report(self, *where: str) -> str:
        commands = (
            ("get", "experiments,jobs,pods", *where, "-o", "wide"),
            (
                "get",
                "experiments",
                *where,
                "-o",
                'jsonpath={range .items[*]}{.metadata.name}{" "}{.status}{"\\n"}{end}',
            ),
            ("logs", "-n", SYSTEM, "deployment/runonce", "--tail=20"),
            ("get", "events", *where, "--sort-by=.lastTimestamp"),
        )
        return "\n".join(self.kubectl(*command, check=False)[-6000:] for command in commands)


VALUES = {
    "image": {"registry": "", "controller": {"pullPolicy": "Never"}},
    "stores": {
        "default": {"url": PLAIN.url(), "secretName": "store"},
        "fragile": {"url": FRAGILE.url(), "secretName": "store"},
        "locked": {"url": PLAIN.url(), "secretName": "own"},
    },
    "credentials": {"secretName": "store"},
    "profiles": {"fake": {"gpuResource": "example.com/gpu"}},
    "controller": {"logLevel": "debug"},
}


def credentials(namespace: str, name: str = "store", variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    given = PLAIN.credentials() if variables is None else dict(variables)
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": given}


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
