"""A control plane for each process that runs tests of this folder, a namespace for each test, and users of both."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from clock import Clock
from control_plane import Api, ControlPlane
from kubelet import Kubelet
from node import Node
from place import Place, grant
from programs import ProgramsMissing, find

CONFIG = """
from dataclasses import dataclass
from runonce import ExperimentConfig, ExperimentParameters, MachineParams

@dataclass
class Params(ExperimentParameters):
    lr: float = 0.1

class Tiny(ExperimentConfig):
    Params = Params
    def tag(self): return "tiny"
    def machine_params(self, mode="train", **kwargs):
        if mode != "train":
            raise NotImplementedError
        return MachineParams(nprocesses=1)
    def training_pipeline(self, **kwargs): raise NotImplementedError
    def create_model(self, **kwargs): raise NotImplementedError
    def make_sampler_fn(self, **kwargs): raise NotImplementedError
"""

SCRIPT = """
apiVersion: runonce.dev/v1alpha1
kind: Experiment
metadata: {name: NAME}
spec:
  command: [sh, -c, 'SCRIPT', sh, $(params.word)]
  codeVersion: label:1
  image: here
  params: {word: hello}
  retries: 0
  machineParams:
    train: {nprocesses: 1}
"""


@pytest.fixture(scope="session")
def programs():
    try:
        return find()
    except ProgramsMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def control_plane(programs) -> Iterator[ControlPlane]:
    """Shared by the tests of one process, which leave it as they found it; they work in `namespace`."""
    with ControlPlane(programs) as plane:
        yield plane


@pytest.fixture
def own_control_plane(programs) -> Iterator[ControlPlane]:
    """For a test that kills, stops or restores a part of it."""
    with ControlPlane(programs) as plane:
        yield plane


@pytest.fixture
def api(control_plane) -> Api:
    return control_plane.api()


@pytest.fixture
def namespace(control_plane) -> Iterator[str]:
    with control_plane.namespace() as name:
        yield name


@pytest.fixture
def kubelet(api) -> Kubelet:
    return Kubelet(api)


@pytest.fixture
def node(control_plane, tmp_path) -> Iterator[Node]:
    """Runs pods of the image `here` as processes in tmp_path, while it is `playing`."""
    with Node(control_plane, {"here": tmp_path}, tmp_path / "node") as made:
        yield made


@pytest.fixture
def place(control_plane, namespace, kubelet, tmp_path) -> Iterator[Place]:
    """A namespace with a store, for controllers that a test starts; they are stopped at its end."""
    grant(control_plane)
    folder = tmp_path / "store"
    folder.mkdir()
    made = Place(control_plane, namespace, folder, kubelet)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def runonce(place, tmp_path):
    """The program, with the code and the context of a user."""
    (tmp_path / "tiny.py").write_text(CONFIG)
    config = str(place.plane.kubeconfig(namespace=place.namespace))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("RUNONCE_", "PYTHONPATH"))}
        return subprocess.run(
            [sys.executable, "-m", "runonce", *arguments],
            cwd=tmp_path,
            env=env | {"KUBECONFIG": config, "RUNONCE_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def write(tmp_path):
    """Write a file of one experiment, a shell script; gives its path."""

    def made(name: str, script: str, *, change: tuple[str, str] = ("", "")) -> str:
        path = tmp_path / f"{name}.yaml"
        text = SCRIPT.replace("NAME", name).replace("SCRIPT", script.replace("'", "''"))
        path.write_text(text.replace(*change))
        return str(path)

    return made


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """Of the controllers that a test starts after this."""
    made = Clock()
    made.into(monkeypatch)
    return made
