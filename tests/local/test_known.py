"""What is remembered of a file makes a hit fast and never wrong."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def ran(place):
    assert place.runonce("run", "tiny.yaml").code == 0
    return place


def entries(place):
    return list((place.home / "known").glob("*.json"))


def hits(done) -> list[bool]:
    assert done.code == 0, done.err
    return [outcome["cacheHit"] for outcome in done.json["modes"].values()]


def test_the_short_way_says_what_the_long_way_says(ran):
    (entry,) = entries(ran)
    short = ran.runonce("run", "tiny.yaml", "-o", "json").json
    entry.unlink()
    assert ran.runonce("run", "tiny.yaml", "-o", "json").json == short
    assert entry.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "[{}]", '{"a": 1}', "[null]"])
def test_a_damaged_entry_costs_time_alone(ran, text):
    (entry,) = entries(ran)
    entry.write_text(text)
    assert hits(ran.runonce("run", "tiny.yaml", "-o", "json")) == [True, True]


def test_an_edit_of_the_code_is_seen(ran):
    ran.write("tiny.py", (ran.folder / "tiny.py").read_text() + "# edited\n")
    assert hits(ran.runonce("run", "tiny.yaml", "-o", "json")) == [False, False]
    assert hits(ran.runonce("run", "tiny.yaml", "-o", "json")) == [True, True]


def test_an_edit_of_the_file_is_seen(ran, edited):
    edited("lr: 0.1", "lr: 0.7")
    assert hits(ran.runonce("run", "tiny.yaml", "-o", "json")) == [False, False]


def test_a_lost_commit_is_seen_and_written_anew_from_the_shards_that_are_there(ran):
    lost = ran.commits()[0]
    lost.unlink()
    done = ran.runonce("run", "tiny.yaml", "-o", "json")
    assert hits(done) == [True, True]
    assert lost.exists()
    assert "processes" not in done.err


def test_a_pinned_version_that_is_not_that_of_the_code_stops_also_where_the_result_is_there(ran):
    rendered = ran.runonce("render", "tiny.yaml").out
    ran.write("pinned.yaml", rendered)
    assert hits(ran.runonce("run", "pinned.yaml", "-o", "json")) == [True, True]
    assert hits(ran.runonce("run", "pinned.yaml", "-o", "json")) == [True, True]
    ran.write("tiny.py", (ran.folder / "tiny.py").read_text() + "# edited\n")
    done = ran.runonce("run", "pinned.yaml")
    assert done.code == 2
    assert "but the code here is source:" in done.err
    assert "changed: tiny." in done.err
    assert "renew the file by `runonce render -f FILE`" in done.err


def test_a_file_that_asks_to_overwrite_is_not_remembered(edited):
    place = edited("keyMachine: true", "keyMachine: true\n  overwrite: true")
    for _ in range(2):
        assert hits(place.runonce("run", "tiny.yaml", "-o", "json")) == [False, False]
    assert entries(place) == []


def test_another_store_is_another_answer(ran, tmp_path):
    assert hits(ran.runonce("run", "tiny.yaml", "--store", str(tmp_path / "other"), "-o", "json")) == [False, False]


def test_modes_are_chosen_as_on_the_long_way(ran):
    done = ran.runonce("run", "tiny.yaml", "--mode", "train", "-o", "json")
    assert list(done.json["modes"]) == ["train"]
    done = ran.runonce("run", "tiny.yaml", "--mode", "valid")
    assert (done.code, "tiny has no mode valid" in done.err) == (2, True)


def test_a_home_that_cannot_be_written_is_no_error(ran):
    (entry,) = entries(ran)
    folder = entry.parent
    entry.unlink()
    folder.rmdir()
    folder.write_text("in the way")
    assert hits(ran.runonce("run", "tiny.yaml", "-o", "json")) == [True, True]
    assert json.loads((ran.home / "store" / "runonce-store.json").read_text())["format"] == 1
