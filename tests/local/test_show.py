"""Looking at results and at what runs: by name, key or target, as text, JSON, CSV, a page, event files."""

from __future__ import annotations

import csv
import io
import json
import time

import pytest


def until(condition, seconds: float = 120.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return value


def key_of(place, mode: str, x: int) -> str:
    planned = place.runonce("plan", "curves.yaml", "-p", f"x={x}", "-o", "json").json
    return planned["modes"][mode]["cacheKey"]


def test_a_result_is_found_by_target_name_and_key_and_told_in_full(swept):
    by_target = swept.runonce("show", "curves.yaml", "-p", "x=2", "-o", "json").json
    train, test = by_target
    assert (train["mode"], train["phase"], train["processes"]) == ("train", "Succeeded", 2)
    assert train["params"] == {"x": 2, "deep": {"z": "a"}, "text": "<b>&"}
    assert train["parts"]["entry"] == ["./curves.sh", "$(params.x)"]
    assert train["curves"] == {"loss": {index: [[0, 2.5], [1, 2.25], [3, 2.125]] for index in "01"}}
    assert test["curves"] == {"score": {"0": [[0, 2.0]]}}
    assert {"metrics.jsonl", "weights.txt", "shard-1/weights.txt"} <= {file["path"] for file in train["files"]}
    assert train["facts"][0]["versions"]["runonce"]
    assert swept.runonce("show", train["cacheKey"][:10], "-o", "json").json == [train]
    assert swept.runonce("show", train["name"], "-o", "json").json == by_target
    assert {one["name"] for one in swept.runonce("show", "curves", "-o", "json").json} == {
        "curves-" + one for one in stems(swept)
    }


def stems(place) -> set[str]:
    rows = csv.DictReader(io.StringIO(place.runonce("compare", "curves", "-o", "csv").out))
    return {row["name"].removeprefix("curves-") for row in rows}


def test_text_has_curves_parameters_key_parts_and_files(swept):
    done = swept.runonce("show", "curves.yaml", "-p", "x=1", "--mode", "train")
    assert done.code == 0, done.err
    for text in ("2 processes", "parameters", "<b>&", "codeVersion", "weights.txt", "versions", "┤", "process 1"):
        assert text in done.out


def test_what_is_not_there_is_said_with_a_way_on(swept):
    done = swept.runonce("show", "nothing")
    assert (done.code, "is no target, no name of an experiment, and no key of a result" in done.err) == (2, True)
    done = swept.runonce("show", "curves.yaml", "-p", "x=99")
    assert (done.code, "has no result, and does not run on this machine" in done.err) == (2, True)
    done = swept.runonce("show", "nothing", "-p", "x=1")
    assert (done.code, "is no file and no module:Class" in done.err) == (2, True)
    assert "Traceback" not in done.err


def test_compare_has_a_row_for_each_result_and_columns_for_what_differs(swept):
    done = swept.runonce("compare", "curves", "--sort=-score")
    assert [line.split()[2:] for line in done.out.splitlines()] == [["x", "score"], ["2", "2"], ["1", "1"]]
    assert "--mode shows those of train" in done.err
    rows = list(csv.DictReader(io.StringIO(swept.runonce("compare", "curves", "--sort", "x", "-o", "csv").out)))
    assert [(row["x"], row["score"]) for row in rows] == [("1", "1.0"), ("2", "2.0")]
    assert set(rows[0]) == {"name", "key", "x", "score"}
    assert [row["key"] for row in rows] == [key_of(swept, "test", 1), key_of(swept, "test", 2)]
    entries = swept.runonce("compare", "curves.yaml", "--grid", "x=[2, 1]", "--mode", "train", "-o", "json").json
    assert [entry["params"]["x"] for entry in entries] == [2, 1]
    assert {entry["mode"] for entry in entries} == {"train"}
    done = swept.runonce("compare", "curves", "--sort", "los")
    assert (done.code, "--sort: is los, which no result has." in done.err) == (2, True)


def test_a_page_and_event_files_are_written_and_say_the_same(swept, tmp_path):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    for _ in range(2):  # written anew, not beside
        done = swept.runonce(
            "show", "curves.yaml", "--html", str(tmp_path / "p.html"), "--tensorboard", str(tmp_path / "t")
        )
        assert done.code == 0, done.err
    text = (tmp_path / "p.html").read_text()
    assert "&lt;b&gt;&amp;" in text
    assert text.count("<polyline") == 2
    folders = sorted(path.name for path in (tmp_path / "t").iterdir())
    train = key_of(swept, "train", 1)[:12]
    assert [name.partition("-train-")[2] for name in folders if "-train-" in name] == [train, f"{train}-process-1"]
    (path,) = (tmp_path / "t" / next(name for name in folders if name.endswith(train))).iterdir()
    events = [event for event in EventFileLoader(str(path)).Load() if event.summary.value]
    assert [event.step for event in events] == [0, 1, 2, 3]
    assert {value.tag for event in events for value in event.summary.value} == {"loss"}
    done = swept.runonce("compare", "curves", "--mode", "train", "--tensorboard", str(tmp_path / "all"))
    assert len(list((tmp_path / "all").iterdir())) == 4
    done = swept.runonce("show", "curves.yaml", "--html", str(tmp_path / "none" / "p.html"))
    assert (done.code, "cannot be written" in done.err) == (2, True)


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_a_run_is_followed_by_name_from_its_first_metric_to_its_end(curves, ends):
    curves.write("waits", "")
    run = curves.start("run", "curves.yaml", "--mode", "train")
    follow = None
    try:
        until(lambda: curves.runonce("show", "curves", "-o", "json").code == 0)
        seen = curves.runonce("show", "curves", "-o", "json").json
        assert [(one["mode"], one["phase"]) for one in seen] == [("train", "Running")]
        follow = curves.start("show", "curves", "--follow", "-o", "json")
        assert follow.stderr.readline() == "train: step 0  loss 1.5\n"
        curves.write("go", "")
        if ends == "badly":
            curves.write("bad", "")
        out, err = follow.communicate(timeout=120)
    finally:
        curves.write("go", "")
        run.communicate(timeout=120)
        if follow is not None:
            follow.kill()
    if ends == "well":
        assert follow.returncode == 0, err
        (shown,) = json.loads(out)
        assert shown["phase"] == "Succeeded"
    else:
        assert (follow.returncode, "curves train ended without a result: Error." in err) == (1, True)
