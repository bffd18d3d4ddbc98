"""The chart as Helm renders it, with the defaults and with everything set."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "runonce"
EVERYTHING = Path(__file__).with_name("everything.yaml")


class Helm:
    def __init__(self, program: str) -> None:
        self.program = program

    def call(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([self.program, *arguments], capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stderr
        return done

    def text(self, values: dict[str, Any] | None = None, *, namespace: str = "runonce-system") -> str:
        given = ["--values", "-"] if values is not None else []
        command = [self.program, "template", "lab", str(CHART), "--namespace", namespace, *given]
        done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def render(
        self, values: dict[str, Any] | None = None, *, namespace: str = "runonce-system"
    ) -> list[dict[str, Any]]:
        return [found for found in yaml.safe_load_all(self.text(values, namespace=namespace)) if found]

    def refusal(self, values: dict[str, Any]) -> str:
        command = [self.program, "template", "lab", str(CHART), "--values", "-"]
        done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True)
        assert done.returncode != 0, "these values were taken"
        return done.stderr


def helm_here() -> Helm:
    found = shutil.which("helm") or shutil.which("helm", path=os.environ.get("KUBEBUILDER_ASSETS", ""))
    if found is None:
        pytest.skip("helm is not on this machine")
    return Helm(found)


@pytest.fixture(scope="session")
def helm() -> Helm:
    return helm_here()


@pytest.fixture(scope="session")
def everything() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(EVERYTHING.read_text())
    return values


@pytest.fixture(scope="session")
def defaults() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return values


@pytest.fixture(scope="session")
def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return found


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [found for found in objects if found["kind"] == kind]
