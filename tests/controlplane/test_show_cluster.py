"""`make cluster` does what it says, with the example that is done soonest."""

from __future__ import annotations

import subprocess
import sys

import show_cluster


def test_examples_are_applied_run_by_real_workers_and_found_again(programs):
    done = subprocess.run(
        [sys.executable, show_cluster.__file__, "commands"], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout[done.stdout.rindex("IMAGE") :].splitlines()]
    table = {row[0]: row[1:4] for row in rows if row and row[0].startswith("root")}
    assert table == {
        "root": ["Succeeded", "train", "false"],
        "root-awk": ["Succeeded", "train", "false"],
        "root-again": ["Succeeded", "train", "true"],
        "root-awk-again": ["Succeeded", "train", "true"],
    }
    jobs = [row[0] for row in rows if row and row[0].startswith("command-train-")]
    assert len(jobs) == 2


def test_every_example_is_shown():
    folders = {path.name for path in (show_cluster.ROOT / "examples").iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} == {folder for folder, _ in show_cluster.EXAMPLES.values()}
