"""The Python API: the same runs, from a program or a notebook."""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
import sys
import threading

import pytest

import runonce
from runonce.errors import Damaged, InputError, RunFailed


@pytest.fixture
def here(curves, monkeypatch):
    monkeypatch.chdir(curves.folder)
    monkeypatch.setenv("RUNONCE_HOME", str(curves.home))
    monkeypatch.delenv("RUNONCE_STORE", raising=False)
    return curves


def test_a_run_gives_results_by_mode_inside_an_event_loop_and_in_a_thread_and_the_caller_keeps_its_path(here, capfd):
    path = list(sys.path)

    async def cell():
        return runonce.run("curves.yaml", {"x": 3})

    ran = asyncio.run(cell())
    assert (list(ran), ran.phase, ran.is_hit) == (["train", "test"], "Succeeded", False)
    train = ran["train"]
    assert train.params == {"x": 3, "deep": {"z": "a"}, "text": "<b>&"}
    assert (train.mode, train.name, len(train.cache_key)) == ("train", "curves", 64)
    entries = train.metrics()
    assert [(one["index"], one["step"]) for one in entries] == [(i, step) for i in range(2) for step in range(4)]
    assert entries[0] == {"step": 0, "mode": "train", "index": 0, "name": "loss", "value": 3.5, "time": 1.5}
    assert math.isnan(entries[2]["value"])
    assert train.files["weights.txt"] == len("weights\n")
    assert train.path("shard-1/weights.txt").read_text() == "weights\n"
    with pytest.raises(InputError, match=re.escape("has no file 'weight.txt'. Did you mean weights.txt?")):
        train.path("weight.txt")
    assert "train" in capfd.readouterr().err

    again = []
    thread = threading.Thread(target=lambda: again.append(runonce.run("curves.yaml", {"x": 3}, progress=False)))
    thread.start()
    thread.join()
    assert again[0].is_hit
    assert capfd.readouterr().err == ""
    assert sys.path == path
    assert here.runonce("run", "curves.yaml", "-p", "x=3", "-o", "json").json["modes"]["train"]["cacheHit"] is True
    (found,) = runonce.results(name="curves", mode="train")
    assert found.cache_key == train.cache_key
    assert repr(train) == f"<Result curves train {train.cache_key[:12]} loss=3.125>"


def test_a_file_that_was_changed_in_place_is_not_handed_out(here):
    """A folder store shows its own bytes: of the same size no look at the folder would tell."""
    train = runonce.run("curves.yaml", modes="train", progress=False)["train"]
    weights = train.path("weights.txt")
    weights.chmod(0o644)
    weights.write_text("Weights\n")
    with pytest.raises(Damaged, match="its bytes were changed in place") as caught:
        train.path("weights.txt")
    assert f"`runonce verify {train.cache_key[:12]}` makes it a miss" in str(caught.value)
    assert here.runonce("verify", train.cache_key[:12]).code == 1
    again = runonce.run("curves.yaml", modes="train", progress=False)
    assert (again.is_hit, again["train"].path("weights.txt").read_text()) == (False, "weights\n")


def test_a_sweep_goes_on_past_a_point_that_fails_and_a_run_raises(here):
    (here.folder / "curves.sh").write_text((here.folder / "curves.sh").read_text().replace("-f bad", '"$1" = 2'))
    points = runonce.sweep("curves.yaml", {"x": range(1, 3)}, modes=["train"], jobs=2, progress=False)
    assert [(ran.point, ran.phase) for ran in points] == [({"x": 1}, "Succeeded"), ({"x": 2}, "Failed")]
    assert "train" not in points[1]
    with pytest.raises(RunFailed, match="Failed: Error"):
        points[1]["train"]
    with pytest.raises(KeyError):
        points[0]["valid"]
    with pytest.raises(RunFailed, match="curves train: Failed: Error"):
        runonce.run("curves.yaml", {"x": 2}, progress=False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: runonce.run("none.yaml"), "none.yaml cannot be read"),
        (lambda: runonce.run("curves.yaml", {"x": object()}), "x: "),
        (lambda: runonce.run("curves.yaml", modes="valid"), "curves has no mode valid."),
        (lambda: runonce.sweep("curves.yaml", {"x": "ab"}), "x: is 'ab', no list of values."),
        (lambda: runonce.sweep("curves.yaml", {"x": []}), "x: has no values"),
        (lambda: runonce.sweep("curves.yaml", {"x": [1]}, jobs=0), "jobs: is 0."),
        (lambda: runonce.results(name="curves", mode="tset"), "mode: is 'tset', which is none. Did you mean test?"),
        (lambda: runonce.run("both.yaml"), "both.yaml holds 2 experiments. Use runonce.sweep"),
    ],
)
def test_what_cannot_be_is_an_input_error(here, call, message):
    text = (here.folder / "curves.yaml").read_text()
    here.write("both.yaml", f"{text}---{text.replace('name: curves', 'name: other')}")
    with pytest.raises(InputError, match=re.escape(message)):
        call()
    assert here.commits() == []


SCRIPT = """
import json, sys
import numpy as np
import runonce
sys.path.insert(0, "code")
from cell import Cell

class Own(Cell):
    pass

def make():
    class Local(Cell):
        pass
    return Local

said = []
for target in (Own, make()):
    try:
        runonce.run(target, progress=False)
    except runonce.errors.InputError as error:
        said.append(str(error))
ran = runonce.run(Cell, {"lr": np.float64(0.5)}, modes=["train"], progress=False)
same = runonce.run(Cell(Cell.Params(lr=0.5)), modes=["train"], progress=False)
other = runonce.sweep(Cell, {"lr": np.array([0.5])}, modes=["train"], progress=False)
print(json.dumps([said, ran["train"].final, same.is_hit, other[0].is_hit, ran.name == other[0].name]))
"""


def test_a_class_or_an_instance_is_a_target_and_main_and_functions_are_refused_with_the_reason(place):
    """The module lies in a folder that the caller put on its path: the processes find it too."""
    place.write("code/cell.py", (place.folder / "tiny.py").read_text().replace("Tiny", "Cell"))
    place.write("script.py", SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=place.folder, env=place.env(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    said, final, same, other, name = json.loads(done.stdout)
    assert "is in __main__, which no other process can import. Move it into a module." in said[0]
    assert "is made inside a function" in said[1]
    assert (final["loss"], same, other, name) == (0.5 / 3, True, True, True)


def test_a_trial_prints_what_it_measured_and_leaves_nothing(curves):
    curves.write(
        "curves.sh",
        'echo "{\\"step\\": 0, \\"name\\": \\"quick\\", \\"value\\": $RUNONCE_QUICK}" > "$RUNONCE_OUTPUT/metrics.jsonl"',
    )
    (curves.folder / "curves.yaml").write_text(
        (curves.folder / "curves.yaml").read_text().replace("[./curves.sh,", "[sh, curves.sh,")
    )
    done = curves.runonce("run", "curves.yaml", "--quick", "3", "-o", "json")
    assert (done.code, done.json["phase"]) == (0, "Succeeded"), done.err
    assert "step 0  quick 3" in done.err
    for outcome in done.json["modes"].values():
        assert outcome["message"] == "a trial of 3 steps; nothing is kept"
        assert (outcome["artifacts"], outcome["cacheHit"]) == ("", False)
    assert not (curves.home / "store").exists()
    done = curves.runonce("run", "curves.yaml", "-o", "json")
    assert [outcome["cacheHit"] for outcome in done.json["modes"].values()] == [False, False]
    assert "step 0  quick 0" in done.err
    curves.write("curves.sh", "exit 3")
    assert curves.runonce("run", "curves.yaml", "--quick", "3").code == 1
