"""Grids: every point is an experiment of its own, made once, and none takes another down."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import pytest

from runonce.api.target import locate
from runonce.errors import InputError

FILE = """
apiVersion: runonce.dev/v1alpha1
kind: Experiment
metadata: {name: point}
spec:
  command: [./point.sh, $(params.x), $(params.deep.z)]
  code: ["*.sh"]
  params: {x: 0, deep: {z: a}, note: text}
  hashExclude: [note]
  retries: 0
  machineParams:
    train: {nprocesses: 1}
"""

# Notes that it started; waits for the files that its name is listed with in `waits`; fails where `bad` names it.
SCRIPT = """#!/bin/sh
echo "$1$2" >> starts
echo $$ >> pids
touch "up-$1$2"
while [ -f waits ] && ! [ -f go ]; do sleep 0.05; done
if [ -f "bad-$1$2" ]; then echo "no luck with $1$2"; exit 3; fi
echo "{\\"step\\": 1, \\"name\\": \\"x\\", \\"value\\": $1}" > "$RUNONCE_OUTPUT/metrics.jsonl"
"""

LOOK = """
import sys
from runonce.cli import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


@pytest.fixture
def sweep(place):
    place.write("point.yaml", FILE)
    place.write("point.sh", SCRIPT).chmod(0o755)
    return place


def starts(place) -> list[str]:
    path = place.folder / "starts"
    return sorted(path.read_text().split()) if path.exists() else []


def run(place, *grid: str, more: tuple[str, ...] = ("-o", "json")):
    return place.runonce("run", "point.yaml", *(part for axis in grid for part in ("--grid", axis)), *more)


def until(condition, seconds: float = 120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_a_grid_is_a_product_and_a_grown_one_runs_only_its_new_points(sweep):
    plan = sweep.runonce("plan", "point.yaml", "--grid", "x=[1, 2]", "--grid", "deep.z=[a]")
    assert plan.out.splitlines()[-1] == "2 experiments, 2 results: 0 cached, 2 to be made"
    assert starts(sweep) == []

    done = run(sweep, "x=[1, 2]", "deep.z=[a]")
    assert done.code == 0, done.err
    assert [ended["point"] for ended in done.json] == [{"x": 1, "deep.z": "a"}, {"x": 2, "deep.z": "a"}]
    assert "2 experiments: 0 cached, 2 made, 0 failed" in done.err

    done = run(sweep, "x=[1, 2]", "deep.z=[a, b]")
    assert starts(sweep) == ["1a", "1b", "2a", "2b"]
    assert [ended["modes"]["train"]["cacheHit"] for ended in done.json] == [True, False, True, False]
    assert len({ended["name"] for ended in done.json}) == 4
    assert "4 experiments: 2 cached, 2 made, 0 failed" in done.err
    assert "2 of 4 done: 2 cached, 0 made" not in done.err  # only what was made is counted up
    plan = sweep.runonce("plan", "point.yaml", "--grid", "x=[1, 2, 3]", "-o", "json")
    assert [entry["modes"]["train"]["cached"] for entry in plan.json] == [True, True, False]


def test_hits_of_a_grid_start_nothing_and_import_nothing_that_only_a_run_needs(sweep):
    assert run(sweep, "x=[1, 2]").code == 0
    sweep.write("look.py", LOOK)
    done = subprocess.run(
        [sys.executable, "look.py", "run", "point.yaml", "--grid", "x=[1, 2]"],
        cwd=sweep.folder,
        env=sweep.env(),
        capture_output=True,
        text=True,
    )
    assert done.stdout.count("  hit  ") == 2, done.stderr
    heavy = {"torch", "numpy", "boto3", "kubernetes", "rich", "runonce.local.processes", "runonce.api.session"}
    assert not heavy & set(done.stderr.split())


def test_a_point_that_fails_ends_no_other_is_named_at_the_end_and_runs_alone_the_next_time(sweep):
    sweep.write("bad-1a", "")
    done = run(sweep, "x=[1, 2, 3]")
    assert done.code == 1
    assert [ended["phase"] for ended in done.json] == ["Failed", "Succeeded", "Succeeded"]
    assert "no luck with 1a" in done.err
    assert f"failed: {done.json[0]['name']}  x=1  train: Error" in done.err
    (sweep.folder / "bad-1a").unlink()
    again = run(sweep, "x=[1, 2, 3]")
    assert (again.code, starts(sweep)) == (0, ["1a", "1a", "2a", "3a"])


def test_jobs_says_how_many_points_run_at_one_time(sweep):
    """Each waits for the file that is written when both are up."""
    sweep.write("waits", "")
    process = sweep.start("run", "point.yaml", "--grid", "x=[1, 2, 3]", "--jobs", "2", "-o", "json")
    until(lambda: len(starts(sweep)) == 2)
    assert starts(sweep) == ["1a", "2a"]
    sweep.write("go", "")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert len(json.loads(out)) == 3


def test_an_interrupt_stops_all_points_and_the_same_command_goes_on(sweep):
    sweep.write("waits", "")
    process = sweep.start("run", "point.yaml", "--grid", "x=[1, 2, 3]", "--jobs", "2", "-o", "json")
    until(lambda: len(starts(sweep)) == 2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 75, err
    assert [ended["phase"] for ended in json.loads(out)] == ["Pending"] * 3
    assert all("stopped" in ended["modes"]["train"]["message"] for ended in json.loads(out))
    assert "3 stopped or not begun" in err
    assert not any(alive(int(pid)) for pid in (sweep.folder / "pids").read_text().split())
    sweep.write("go", "")
    assert run(sweep, "x=[1, 2, 3]").code == 0
    assert starts(sweep) == ["1a", "1a", "2a", "2a", "3a"]


def alive(pid: int) -> bool:
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return found.stdout.strip() not in ("", "Z")


@pytest.mark.parametrize("target", ["point.yaml", "tiny:Tiny", "tiny.yaml"])
def test_render_writes_the_points_and_a_file_of_them_is_the_grid(sweep, target):
    name = "x" if target == "point.yaml" else "lr"
    rendered = sweep.runonce("render", target, "--grid", f"{name}=[1, 2]")
    sweep.write("points.yaml", rendered.out)
    plan = sweep.runonce("plan", "points.yaml", "-o", "json").json
    assert [entry["modes"] for entry in plan] == [
        entry["modes"] | {} for entry in sweep.runonce("plan", target, "--grid", f"{name}=[1, 2]", "-o", "json").json
    ]
    names = [entry["name"] for entry in plan]
    assert all(name.startswith(("point-", "tiny-")) and len(name.rpartition("-")[2]) == 8 for name in names)
    if target == "tiny.yaml":  # a file and its class agree on the name of a point
        assert names == [
            entry["name"] for entry in sweep.runonce("plan", "tiny:Tiny", "--grid", "lr=[1, 2]", "-o", "json").json
        ]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (["x=[1]", "x=[2]"], "--grid: names x twice"),
        (["x"], "--grid: is 'x'. Write --grid name=[value, …]."),
        (["x=1"], "--grid x: is 1, no list."),
        (["x=[]"], "--grid x: has no values"),
        (["x=[1, 1.0]"], "--grid x: has 1 twice"),
        (["x=[1"], "--grid x: "),
        (["deep={}", "deep.z=[1]"], "--grid deep: is {}, no list."),
        (["deep=[{}]", "deep.z=[1]"], "deep.z: and deep are both given, and one lies in the other."),
        (["x.z=[1, 2]"], "x.z: x is no mapping with fields."),
        (["note=[a, b]"], "which have one key"),
        ([f"x={list(range(200))}", f"note={list(range(200))}"], "200 x 200 = 40000 points; at most 10000"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_before_anything_runs(sweep, grid, message, monkeypatch):
    monkeypatch.chdir(sweep.folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(InputError, match=re.escape(message)):
        locate("point.yaml", (), grid)


def test_a_class_refuses_a_point_that_its_fields_cannot_take(sweep):
    done = sweep.runonce("plan", "tiny:Tiny", "--grid", "lr=[0.1, much, more]", "--grid", "lrr=[1]")
    assert done.code == 2
    assert "lrr" in done.err
    assert "Did you mean lr?" in done.err
