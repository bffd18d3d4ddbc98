"""The workflows: valid, pinned by commit, with no more rights than each job needs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github"
WORKFLOWS = sorted((FOLDER / "workflows").glob("*.yaml"))
MAKEFILE = (ROOT / "Makefile").read_text()
BIN = Path(sys.executable).parent


def program(name: str) -> str:
    found = shutil.which(name, path=str(BIN)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed here; make setup installs it")
    return found


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())["jobs"]
    return found


def test_zizmor_finds_nothing():
    done = subprocess.run(
        [program("zizmor"), "--offline", "--no-progress", "--persona", "pedantic", "--min-severity", "low", str(ROOT)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_what_github_takes(path):
    command = [program("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_is_pinned_by_commit_and_its_version_is_told(path):
    uses = re.findall(r"uses: (.*)", path.read_text())
    assert uses
    assert [line for line in uses if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_no_rights_and_a_job_only_those_it_names(path):
    assert yaml.safe_load(path.read_text())["permissions"] == {}
    for name, job in jobs(path).items():
        assert "permissions" in job, name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_says_only_make_words_that_there_are(path):
    """The same words at the desk and in a workflow."""
    words = {
        step["run"].split()[1]
        for job in jobs(path).values()
        for step in job["steps"]
        if step.get("run", "").startswith("make ")
    }
    assert [word for word in words if not re.search(rf"^{word}:.*##", MAKEFILE, re.MULTILINE)] == []


def test_the_cluster_is_tested_on_every_version_that_is_promised():
    nodes = jobs(FOLDER / "workflows" / "ci.yaml")["kind"]["strategy"]["matrix"]["node"]
    assert [re.match(r"kindest/node:v(1\.\d+)\.\d+@sha256:[0-9a-f]{64}$", node)[1] for node in nodes] == [
        "1.34", "1.35", "1.36", "1.37",
    ]  # fmt: skip
