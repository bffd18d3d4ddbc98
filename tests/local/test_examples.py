"""Every example does what it says."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(place):
    def copied(name: str):
        shutil.copytree(EXAMPLES / name, place.folder, dirs_exist_ok=True)
        return place

    return copied


def test_digits_train_from_the_class_and_are_a_hit_from_the_file(example):
    place = example("digits")
    first = place.runonce("run", "digits:Digits", "-o", "json")
    assert first.code == 0, first.err
    assert first.json["modes"]["test"]["metrics"]["accuracy"] >= 0.95
    second = place.runonce("run", "digits.yaml", "-o", "json")
    assert [outcome["cacheHit"] for outcome in second.json["modes"].values()] == [True, True]


def test_a_trial_goes_the_whole_way_of_the_engine_in_a_few_steps_and_nothing_is_published(example):
    place = example("digits")
    done = place.runonce("run", "digits.yaml", "--quick", "3", "-o", "json")
    assert done.code == 0, done.err
    modes = done.json["modes"]
    assert modes["train"]["metrics"]["cross_entropy"] > 0
    assert 0 <= modes["test"]["metrics"]["accuracy"] <= 1
    assert {outcome["message"] for outcome in modes.values()} == {"a trial of 3 steps; nothing is kept"}
    steps = [int(step) for step in re.findall(r"train.*step (\d+)", done.err)]
    assert steps
    assert max(steps) == 3
    assert place.commits() == []
    assert not (place.home / "store").exists()
    plan = place.runonce("plan", "digits.yaml", "-o", "json").json
    assert not any(mode["cached"] for mode in plan["modes"].values())


def test_a_policy_learns_to_balance_a_pole(example):
    done = example("policy").runonce("run", "policy:Policy", "-o", "json")
    assert done.code == 0, done.err
    assert done.json["modes"]["test"]["metrics"]["return"] >= 150


@pytest.mark.parametrize("target", ["own_loop:OwnLoop", "accelerate_loop:AccelerateLoop"])
def test_a_loop_of_ones_own_goes_on_after_a_kill_as_if_nothing_had_been(example, target, tmp_path):
    place = example("digits") if target.startswith("own_loop") else example("accelerate_loop")
    whole = place.runonce("run", target, "-o", "json", RUNONCE_HOME=str(tmp_path / "whole"))
    assert whole.code == 0, whole.err
    process = place.start("run", target)
    records = place.home / "store" / "w"
    deadline = time.monotonic() + 240
    while len([path for path in records.rglob("i*") if "k" in path.parts]) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=180)
    again = place.runonce("run", target, "-o", "json")
    assert again.code == 0, again.err
    first, second = (Path(done.json["modes"]["train"]["artifacts"]) for done in (whole, again))
    weights, others = (torch.load(path / "weights.pt", weights_only=True) for path in (first, second))
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert (first / "metrics.jsonl").read_text().count("\n") == (second / "metrics.jsonl").read_text().count("\n")


def test_commands_in_shell_and_awk(example):
    place = example("commands")
    done = place.runonce("run", "root.yaml", "-o", "json")
    assert done.code == 0, done.err
    shell, awk = (Path(result["modes"]["train"]["artifacts"]) for result in done.json)
    assert (shell / "root.txt").read_text().startswith("1.41421356")
    assert json.loads((awk / "check.json").read_text()) == {"square": 2.0}


def test_there_is_no_example_without_a_test():
    text = Path(__file__).read_text()
    page = (EXAMPLES.parent / "docs" / "get-started.md").read_text()  # followed by tests/kind/test_get_started.py
    names = [path.name for path in EXAMPLES.iterdir() if path.is_dir()]
    assert all(f'example("{name}")' in text or f"kubectl apply -f examples/{name}/" in page for name in names)
