"""The command line on this machine, beside a cluster whose store it reaches."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import yaml
from cluster import EXAMPLES, HANGS, ROOT, SITE_PACKAGES
from stores import PLAIN
from story import SALT, Story

# What a pod needs to borrow this machine's torch. None of it is in the key.
BORROWED = {"PYTHONPATH": f"/site/{SITE_PACKAGES}", "OMP_NUM_THREADS": "1"}
SITE_VOLUME = {"name": "site", "mountPath": "/site", "persistentVolumeClaim": "site"}


class Laptop:
    def __init__(self, story: Story, folder: Path) -> None:
        self.story, self.folder = story, folder
        (folder / "home").mkdir()
        self._env = {**os.environ, **PLAIN.credentials(), "RUNONCE_HOME": str(folder / "home"), "NO_COLOR": "1"}

    def runonce(self, *arguments: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "runonce", *arguments]
        done = subprocess.run(command, cwd=self.folder, env=self._env, capture_output=True, text=True, timeout=300)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.runonce(*arguments, "-o", "json"))

    def write(self, experiment: dict[str, Any]) -> str:
        path = self.folder / f"{experiment['metadata']['name']}.yaml"
        path.write_text(yaml.safe_dump(experiment))
        return path.name

    def submit(self, file: str, *arguments: str, code: int = 0) -> str:
        return self.runonce("submit", file, *self._where(), *arguments, code=code)

    def cluster(self, *arguments: str, code: int = 0) -> str:
        return self.runonce("cluster", *arguments, *self._where(), code=code)

    @contextlib.contextmanager
    def following(self, *arguments: str) -> Iterator[IO[str]]:
        """The lines of a `runonce cluster` that goes on."""
        command = [sys.executable, "-m", "runonce", "cluster", *arguments, *self._where()]
        with subprocess.Popen(command, cwd=self.folder, env=self._env, stdout=subprocess.PIPE, text=True) as going:
            assert going.stdout is not None
            try:
                yield going.stdout
            finally:
                going.terminate()

    def _where(self) -> tuple[str, ...]:
        """The cluster's kubeconfig, and the namespace of the story."""
        return ("--kubeconfig", str(self.story.cluster.kubeconfig), "-n", self.story.namespace)

    def digits(
        self, name: str, *, epochs: int = 2, tests: int = 2, env: dict[str, str] | None = None, **spec: Any
    ) -> str:
        """examples/digits as its file has it, with what this cluster needs; two processes train, and `tests` test."""
        source = ROOT / "examples" / "digits"
        for path in (source / "digits.py", HANGS):
            (self.folder / path.name).write_text(path.read_text())
        experiment: dict[str, Any] = yaml.safe_load((source / "digits.yaml").read_text())
        experiment["metadata"]["name"] = name
        experiment["spec"]["params"]["epochs"] = epochs
        experiment["spec"] |= {"image": EXAMPLES, "volumes": [SITE_VOLUME], "cacheKeyExtra": [SALT], **spec}
        for mode, block in experiment["spec"]["machineParams"].items():
            block |= {"nprocesses": 2 if mode == "train" else tests, "env": {**BORROWED, **(env or {})}}
        return self.write(experiment)
