"""Every example does what it says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

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


def test_commands_in_shell_and_awk(example):
    place = example("commands")
    done = place.runonce("run", "root.yaml", "-o", "json")
    assert done.code == 0, done.err
    shell, awk = (Path(result["modes"]["train"]["artifacts"]) for result in done.json)
    assert (shell / "root.txt").read_text().startswith("1.41421356")
    assert json.loads((awk / "check.json").read_text()) == {"square": 2.0}


def test_there_is_no_example_without_a_test():
    text = Path(__file__).read_text()
    assert all(f'example("{path.name}")' in text for path in EXAMPLES.iterdir() if path.is_dir())
