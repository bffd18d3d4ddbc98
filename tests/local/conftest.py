"""The command line as a user has it: a program, a folder with code, a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

EXPERIMENT = """
import json
from dataclasses import dataclass, field
from runonce import ExperimentConfig, ExperimentParameters, MachineParams


@dataclass
class Params(ExperimentParameters):
    lr: float = 0.1
    steps: int = 3
    label: str = "a"


class Tiny(ExperimentConfig):
    Params = Params

    def tag(self):
        return "tiny"

    def machine_params(self, mode="train", **kwargs):
        if mode == "valid":
            raise NotImplementedError
        return MachineParams(nprocesses=1, coupled=False)

    def train(self, run):
        for step in range(self.params.steps):
            run.log({"loss": self.params.lr / (step + 1)}, step=step)
        (run.output / "weights.json").write_text(json.dumps([self.params.lr, run.seed, run.process_ind]))

    def test(self, run):
        weights = json.loads((run.inputs["train"] / "weights.json").read_text())
        run.log({"score": weights[0] * 2}, step=0)
        (run.output / "score.json").write_text(json.dumps(weights))
"""

FILE = """
apiVersion: runonce.dev/v1alpha1
kind: Experiment
metadata: {name: tiny}
spec:
  config: tiny:Tiny
  params: {lr: 0.1, steps: 3, label: a}
  keyMachine: true
  machineParams:
    train: {nprocesses: 1, coupled: false}
    test: {nprocesses: 1, coupled: false}
"""


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@dataclass
class Workplace:
    """A folder with code and files, and a home of its own."""

    folder: Path
    home: Path

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def env(self, **more: str) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("RUNONCE_", "PYTHONPATH"))}
        return env | {"RUNONCE_HOME": str(self.home)} | more

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "runonce", *arguments]

    def runonce(self, *arguments: str, stdin: str = "", cwd: Path | None = None, **env: str) -> Done:
        done = subprocess.run(
            self.command(*arguments),
            cwd=cwd or self.folder,
            env=self.env(**env),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.env(**env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def commits(self) -> list[Path]:
        return sorted((self.home / "store" / "c").glob("*/*"))


def made_in(folder: Path) -> Workplace:
    made = Workplace(folder / "work", folder / "home")
    made.folder.mkdir()
    made.write("tiny.py", EXPERIMENT)
    made.write("tiny.yaml", FILE)
    return made


@pytest.fixture(scope="session")
def new_place() -> Callable[[Path], Workplace]:
    """For fixtures that live longer than one test."""
    return made_in


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return made_in(tmp_path)


CURVES = """
apiVersion: runonce.dev/v1alpha1
kind: Experiment
metadata: {name: curves}
spec:
  command: [./curves.sh, $(params.x)]
  code: ["*.sh"]
  params: {x: 1, deep: {z: a}, text: "<b>&"}
  retries: 0
  machineParams:
    train: {nprocesses: 2, coupled: false}
    test: {nprocesses: 1}
"""

# Writes what the engine writes; in training it waits for `go` where there is `waits`, and fails where there is `bad`.
CURVES_SCRIPT = """#!/bin/sh
set -eu
log() { echo "{\\"step\\": $1, \\"name\\": \\"$2\\", \\"value\\": $3, \\"time\\": 1.5}" >> "$RUNONCE_OUTPUT/metrics.jsonl"; }
if [ -n "${RUNONCE_INPUT_TRAIN:-}" ]; then log 0 score "$1"; exit 0; fi
log 0 loss "$1.5"
while [ -f waits ] && ! [ -f go ]; do sleep 0.05; done
if [ -f bad ]; then exit 3; fi
log 1 loss "$1.25"
log 2 loss '"nan"'
log 3 loss "$1.125"
echo "no entry" >> "$RUNONCE_OUTPUT/metrics.jsonl"
echo weights > "$RUNONCE_OUTPUT/weights.txt"
"""


def with_curves(made: Workplace) -> Workplace:
    made.write("curves.yaml", CURVES)
    made.write("curves.sh", CURVES_SCRIPT).chmod(0o755)
    return made


@pytest.fixture
def curves(place: Workplace) -> Workplace:
    """An experiment in shell that measures something; nothing is made yet."""
    return with_curves(place)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """The same with the results of two points. To be looked at."""
    made = with_curves(made_in(tmp_path_factory.mktemp("swept")))
    done = made.runonce("run", "curves.yaml", "--grid", "x=[1, 2]")
    assert done.code == 0, done.err
    return made


@pytest.fixture
def edited(place: Workplace) -> Callable[..., Workplace]:
    """The workplace with one text of the file put in the place of another."""

    def edit(old: str, new: str, name: str = "tiny.yaml") -> Workplace:
        text = (place.folder / name).read_text()
        assert old in text
        place.write(name, text.replace(old, new))
        return place

    return edit
