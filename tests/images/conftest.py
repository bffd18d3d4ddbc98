"""The images that `make images` has built, run by a Docker engine as a restricted pod would run them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import runonce

RESTRICTED = ("--read-only", "--tmpfs", "/tmp:mode=1777", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


class Image:
    def __init__(self, docker: str, name: str) -> None:
        self.docker, self.name = docker, name

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self.docker, *arguments], capture_output=True, text=True, timeout=120)

    def run(
        self, *arguments: str, options: tuple[str, ...] = ("--network", "none")
    ) -> subprocess.CompletedProcess[str]:
        return self.call("run", "--rm", *RESTRICTED, *options, self.name, *arguments)

    def python(self, program: str) -> Any:
        """What a Python program in the image prints as JSON."""
        done = self.run("-c", program, options=("--network", "none", "--entrypoint", "python"))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def inspect(self) -> dict[str, Any]:
        (found,) = json.loads(self.call("image", "inspect", self.name).stdout)
        return dict(found)

    @property
    def torch(self) -> str:
        """Which one it was built with, as make's TORCH= says it."""
        return str(self.inspect()["Config"]["Labels"].get("dev.runonce.torch", "none"))


@pytest.fixture(scope="session")
def docker() -> str:
    found = shutil.which("docker")
    if found is None or subprocess.run([found, "info"], capture_output=True).returncode:
        pytest.skip("there is no Docker engine on this machine")
    return found


@pytest.fixture(scope="session", params=["controller", "worker"])
def image(request, docker) -> Image:
    made = Image(docker, f"{os.environ.get('REGISTRY', '')}runonce-dev/{request.param}:{runonce.__version__}")
    revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    label = '{{index .Config.Labels "org.opencontainers.image.revision"}}'
    if made.call("image", "inspect", "--format", label, made.name).stdout != revision.stdout:
        unmade = "no images are built of this very commit; `make images` builds them"
        pytest.fail(unmade) if os.environ.get("RUNONCE_IMAGES") else pytest.skip(unmade)
    return made
