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
    uses = re.findall(r"uses: (?!\./)(.*)", path.read_text())
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
        for step in job.get("steps", ())
        if step.get("run", "").startswith("make ")
    }
    assert [word for word in words if not re.search(rf"^{word}:.*##", MAKEFILE, re.MULTILINE)] == []


def test_the_cluster_is_tested_on_every_version_that_is_promised():
    nodes = jobs(FOLDER / "workflows" / "ci.yaml")["kind"]["strategy"]["matrix"]["node"]
    assert [re.match(r"kindest/node:v(1\.\d+)\.\d+@sha256:[0-9a-f]{64}$", node)[1] for node in nodes] == [
        "1.34", "1.35", "1.36", "1.37",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["ci", "release"])
def test_an_image_for_torch_on_the_cpu_is_left_out_where_no_index_of_it_is_named_and_that_is_told(name):
    """PyPI, chart and all other images need no variable of the repository."""
    job = jobs(FOLDER / "workflows" / f"{name}.yaml")["images"]
    matrix = job["strategy"]["matrix"]
    assert "cpu" in matrix["torch"]
    assert {"torch": "${{ vars.TORCH_CPU_INDEX == '' && 'cpu' || 'nothing' }}"} in matrix["exclude"]
    (notice,) = (step for step in job["steps"] if "::notice::" in step.get("run", ""))
    assert notice["if"].startswith("vars.TORCH_CPU_INDEX == ''")
    assert "`TORCH_CPU_INDEX`" in (ROOT / "CONTRIBUTING.md").read_text()


def test_what_is_released_for_another_processor_is_built_where_programs_of_it_run():
    steps = jobs(FOLDER / "workflows" / "release.yaml")["images"]["steps"]
    (build,) = (step for step in steps if "platforms" in step.get("with", {}) and "push" in step["with"])
    (emulator,) = (step for step in steps if "setup-qemu-action" in step.get("uses", ""))
    assert build["with"]["platforms"] == "${{ matrix.torch == 'cuda' && 'linux/amd64' || 'linux/amd64,linux/arm64' }}"
    assert (emulator["if"], emulator["with"]) == ("matrix.torch != 'cuda'", {"platforms": "arm64"})
    assert steps.index(emulator) < steps.index(build)
