"""What the test command of a machine says and ends with: red where a cluster could be had and was not, never green for it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / ".ci" / "run"
RIG = "echo 'export KIND_NODE_IMAGE=node:here'"


@pytest.fixture
def machine(tmp_path):
    """A checkout whose programs only say that they were called; give each the lines of a shell script."""
    programs = tmp_path / "bin"
    for folder in ("bin", "work/.ci", "work/.venv/bin", "shared/rig"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(RUN, tmp_path / "work" / ".ci" / "run")

    def write(path: Path, text: str) -> None:
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    # Those that the script itself needs; nothing else of this machine is there.
    for name in ("bash", "sh", "dirname", "timeout", "mktemp", "rm", "grep", "id"):
        (programs / name).symlink_to(shutil.which(name) or name)
    for name in ("chromium", "make", "docker", "kind", "kubectl", "helm"):
        write(programs / name, f'echo "called {name} $*"')
    write(tmp_path / "work" / ".venv" / "bin" / "python", "echo tests/kind/test_x.py::test_it")

    def run(*, rig: str = "", seconds: int = 0, without: str = "", **scripts: str) -> subprocess.CompletedProcess[str]:
        if rig:
            write(tmp_path / "shared" / "rig" / "up", rig)
        for name, text in scripts.items():
            write(programs / name, text)
        if without:
            (programs / without).unlink()
        env = {"PATH": str(programs), "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "SECONDS": str(seconds)}
        command = [str(tmp_path / "work" / ".ci" / "run")]
        return subprocess.run(["bash", *command], env=env, capture_output=True, text=True, timeout=60)

    return run


@pytest.mark.parametrize("rig", ["", RIG])
def test_where_there_is_a_cluster_its_stories_and_the_images_are_tested(machine, rig):
    done = machine(rig=rig)
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("check", "test", "demo", "kind", "image-tests"):
        assert f"called make {words}\n" in done.stdout
    assert ("--image node:here" in done.stdout) == bool(rig)
    assert "NOT RUN" not in done.stdout


@pytest.mark.parametrize("program", ["docker", "kind"])
def test_a_machine_without_a_cluster_says_what_was_not_run_and_is_green(machine, program):
    done = machine(without=program)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"NOT RUN on this machine: {program} is not on this machine" in done.stdout
    assert "test_x.py::test_it" in done.stdout
    assert "called make kind" not in done.stdout


def test_a_machine_on_which_the_rig_makes_no_engine_says_so_after_all_else_was_run(machine):
    done = machine(rig="echo no room >&2; exit 1")
    assert done.returncode == 0
    assert "called make demo" in done.stdout
    assert "no room" in done.stderr
    assert "NOT RUN on this machine: ../shared/rig/up failed" in done.stdout


@pytest.mark.parametrize("broken", [{"kind": "exit 1"}, {"docker": "exit 1"}, {"without": "helm"}], ids=str)
def test_a_machine_that_has_the_rig_and_no_cluster_is_red(machine, broken):
    done = machine(rig=RIG, **broken)
    assert done.returncode == 1
    assert "FAILED: this machine has ../shared/rig/up, and no cluster" in done.stdout


def test_after_fifty_minutes_one_part_of_the_stories_is_run_and_that_is_said(machine):
    done = machine(rig=RIG, seconds=3100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOT RUN: what came before took 51 minutes" in done.stdout
    (run,) = re.findall("called make kind STORIES=(.*)", done.stdout)
    expression = run.removeprefix("-k ")
    stories = [path.read_text() for path in (RUN.parents[1] / "tests" / "kind").glob("test_*.py")]
    assert re.search(f"^def test_\\w*{expression}", "\n".join(stories), re.MULTILINE)
    assert "called make image-tests" in done.stdout


@pytest.mark.parametrize("word", ["check", "test", "demo", "kind", "image-tests"])
def test_what_fails_is_red(machine, word):
    done = machine(make=f'case "$1" in {word}) exit 1;; esac')
    assert done.returncode == 1, done.stdout + done.stderr


def test_a_story_that_fails_once_is_told_alone_again(machine):
    done = machine(make='echo "called make $*"; case "$*" in kind) exit 1;; esac')
    assert done.returncode == 0, done.stdout + done.stderr
    assert "called make kind STORIES=--last-failed" in done.stdout
