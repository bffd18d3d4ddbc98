"""submit, cluster ls, show and logs, as programs against a real API server."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from control_plane import wait_for

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


def test_what_is_submitted_is_complete_and_is_followed_to_its_end(place, runonce):
    place.cluster_changes["worker_image"] = "example.org/tiny:1"
    place.start()
    with place.working():
        done = runonce("submit", "tiny:Tiny", "-p", "lr=0.5", "--wait", "-o", "json")
    assert done.returncode == 0, done.stderr
    (told,) = json.loads(done.stdout)
    assert (told["phase"], told["modes"]["train"]["cacheHit"]) == ("Succeeded", False)
    spec = place.get(told["name"])["spec"]
    assert (spec["params"], spec["codeVersion"][:7]) == ({"lr": 0.5}, "source:")
    assert f"{told['name']}  train  Succeeded" in done.stderr
    again = runonce("submit", "tiny:Tiny", "-p", "lr=0.5", "--wait")
    assert again.returncode == 0
    listed = runonce("cluster", "ls")
    assert f"{told['name']}  train  succeeded" in listed.stdout


def test_a_failure_is_told_with_its_end_and_ends_with_1(place, runonce):
    place.cluster_changes["worker_image"] = "example.org/tiny:1"
    place.start()
    submitted = runonce("submit", "tiny:Tiny", "-o", "json")
    (name,) = json.loads(submitted.stdout)
    (pod,) = place.pods(1)
    place.kubelet.start(pod)
    place.kubelet.end(pod, 78, message="no such data set")
    wait_for("its failure", lambda: place.phase(name) == "Failed")
    done = runonce("submit", "tiny:Tiny", "--wait")
    assert done.returncode == 1
    shown = runonce("cluster", "show", name)
    assert "process 0 ConfigurationError, exit code 78" in shown.stdout
    assert "no such data set" in shown.stdout


def test_what_cannot_be_is_told_in_words(place, runonce):
    for arguments, words in (
        (("cluster", "show", "nobody"), "no Experiment nobody is in namespace"),
        (("cluster", "ls", "--context", "nowhere"), "no cluster can be found"),
        (("submit", "tiny:Nothing"), "Nothing"),
    ):
        done = runonce(*arguments)
        assert done.returncode == 2, done
        assert words in done.stderr
        assert "Traceback" not in done.stderr
