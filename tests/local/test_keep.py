"""Commands about results that are there, as a user has them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

WEIGHTS = json.dumps({"lr": 0.1}).encode()

FILE = (Path(__file__).parents[1] / "samples" / "tiny.yaml").read_text()
SCRIPT = """echo hello from $JOB_COMPLETION_INDEX
cp "$RUNONCE_PARAMS" "$RUNONCE_OUTPUT/weights.json"
"""


@pytest.fixture
def script(place):
    """A program that copies its parameters: it starts fast."""
    place.write("tiny.yaml", FILE)
    place.write("run.sh", SCRIPT)
    return place


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
    """A home and a folder in which it was run once, for every test to have a copy of."""
    return tmp_path_factory.mktemp("pattern")


@pytest.fixture
def made(script, pattern):
    """train and test are in the store."""
    if not (pattern / "home").exists():
        done = script.runonce("run", "tiny.yaml", "-o", "json")
        assert done.code == 0, done.err
        shutil.copytree(script.home, pattern / "home", symlinks=True)
    else:
        shutil.copytree(pattern / "home", script.home, symlinks=True)
    keys = {}
    for path in script.commits():
        commit = json.loads(path.read_bytes())
        keys[commit["mode"]] = commit["cacheKey"]
    script.keys = keys
    return script


def blob_of_train(place) -> Path:
    """The path of the blob behind weights.json."""
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    return place.home / "store" / "b" / digest[:2] / digest


def test_results_are_listed_for_people_and_for_programs(made):
    done = made.runonce("ls")
    assert done.out.splitlines()[0].split() == ["NAME", "MODE", "KEY", "MADE", "FILES", "SIZE", "METRICS"]
    assert made.keys["train"][:12] in done.out
    listed = made.runonce("ls", "-o", "json").json
    assert {one["mode"]: one["cacheKey"] for one in listed} == made.keys
    assert set(listed[0]) == {
        "name", "mode", "cacheKey", "phase", "created", "files", "size", "nprocesses", "manifest", "metrics",
    }  # fmt: skip
    assert [one["mode"] for one in made.runonce("ls", "tiny", "--mode", "test", "-o", "json").json] == ["test"]
    assert [one["mode"] for one in made.runonce("ls", made.keys["train"][:8], "-o", "json").json] == ["train"]


def test_what_runs_is_listed_above_the_results(curves):
    assert curves.runonce("run", "curves.yaml", "-p", "x=2").code == 0
    curves.write("waits", "")
    running = curves.start("run", "curves.yaml", "--mode", "train")
    try:
        deadline = time.monotonic() + 180
        while not (listed := [one for one in curves.runonce("ls", "-o", "json").json if one["phase"] == "Running"]):
            assert time.monotonic() < deadline, "it is not listed"
        assert (listed[0]["name"], listed[0]["mode"], listed[0]["nprocesses"]) == ("curves", "train", 2)
        rows = curves.runonce("ls").out.splitlines()
        assert rows[1].split()[:4] == ["curves", "train", listed[0]["cacheKey"][:12], "running"]
        assert "of 2 processes done" in rows[1]
        of_key = curves.runonce("ls", listed[0]["cacheKey"][:8], "-o", "json")
        assert [one["phase"] for one in of_key.json] == ["Running"]
        assert "Running" not in curves.runonce("ls", "--mode", "test", "-o", "json").out
    finally:
        curves.write("go", "")
        running.communicate(timeout=180)
    assert [one["phase"] for one in curves.runonce("ls", "-o", "json").json] == ["Succeeded"] * 3


def test_what_is_not_there_is_said_and_no_traceback(place):
    for words in (
        ["ls", "nothing"],
        ["pull", "nothing"],
        ["rm", "nothing", "--yes"],
        ["verify", "abcd"],
        ["logs", "no"],
    ):
        done = place.runonce(*words)
        assert done.code == 2, (words, done.err)
        assert done.err.startswith("error: no "), done.err


def test_files_are_pulled_by_name_and_are_ones_own(made):
    done = made.runonce("pull", "tiny", "mine", "--mode", "train")
    assert done.code == 0, done.err
    weights = made.folder / "mine" / "weights.json"
    assert weights.read_bytes() == WEIGHTS
    weights.write_text("mine")
    assert blob_of_train(made).read_bytes() == WEIGHTS
    again = made.runonce("pull", "tiny", "mine", "--mode", "train")
    assert (again.code, "has files in it" in again.err, weights.read_text()) == (2, True, "mine")
    folders = [one["folder"] for one in made.runonce("pull", "tiny", "-o", "json").json]
    assert [(made.folder / folder).is_dir() for folder in folders] == [True, True]


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".zip"])
def test_a_result_is_exported_with_what_it_was_made_from(made, ending):
    done = made.runonce("export", "tiny", f"out{ending}", "--mode", "train")
    assert done.code == 0, done.err
    path = made.folder / f"out{ending}"
    if ending == ".zip":
        with zipfile.ZipFile(path) as pack:
            read = {name: pack.read(name) for name in pack.namelist()}
    else:
        with tarfile.open(path) as tar:
            read = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
    assert read["tiny-train/files/weights.json"] == WEIGHTS
    provenance = json.loads(read["tiny-train/runonce.json"])
    assert (provenance["cacheKey"], provenance["params"]["lr"]) == (made.keys["train"], 0.1)
    assert made.runonce("export", "tiny", f"out{ending}", "--mode", "train").code == 2
    assert sorted(path.name for path in made.folder.iterdir() if path.name.startswith(".runonce")) == []


def test_a_removed_result_is_a_miss_and_made_anew(made):
    asked = made.runonce("rm", "tiny", "--mode", "test", stdin="n\n")
    assert (asked.code, "Remove 1 results" in asked.err, len(made.commits())) == (130, True, 2)
    unasked = made.runonce("rm", "tiny", "--mode", "test")
    told = "error: --yes: is not given, and nobody is there to ask. Give it to remove them."
    assert (unasked.code, told in unasked.err, len(made.commits())) == (2, True, 2)
    done = made.runonce("rm", "tiny", "--mode", "test", "--yes")
    assert done.code == 0, done.err
    assert [path.name for path in made.commits()] == [made.keys["train"]]
    assert not list((made.home / "store" / "results").glob("tiny-test-*"))
    again = made.runonce("run", "tiny.yaml", "-o", "json").json["modes"]
    assert (again["train"]["cacheHit"], again["test"]["cacheHit"]) == (True, False)


def test_of_a_test_whose_train_is_gone_nobody_promises_a_hit(made):
    """Train is made first, and the test's result names the training that it was made from."""
    assert made.runonce("rm", "tiny", "--mode", "train", "--yes").code == 0
    plan = made.runonce("plan", "tiny.yaml", "-o", "json").json["modes"]
    assert [(mode, one["cached"], one.get("awaits")) for mode, one in plan.items()] == [
        ("train", False, None), ("test", False, ["train"]),
    ]  # fmt: skip
    assert made.runonce("plan", "tiny.yaml").out.endswith("2 results: 0 cached, 1 to be made, 1 known later\n")
    explained = made.runonce("explain", "tiny.yaml")
    assert f"test  {made.keys['test'][:12]} is no hit yet: train is made first" in explained.out
    assert "hits" not in made.runonce("explain", "tiny.yaml", "-o", "json").json
    ran = made.runonce("run", "tiny.yaml", "-o", "json").json["modes"]
    assert [one["cacheHit"] for one in ran.values()] == [False, False]
    assert made.runonce("plan", "tiny.yaml").out.endswith("2 results: 2 cached, 0 to be made\n")


def test_a_test_whose_train_is_not_to_be_run_again_stays_a_hit(script):
    text = FILE + "\n  keyMachine: false"
    script.write("tiny.yaml", text)
    assert script.runonce("run", "tiny.yaml").code == 0
    script.write("tiny.yaml", text.replace("train: {nprocesses: 1}", "train: {nprocesses: 0}"))
    assert script.runonce("rm", "tiny", "--mode", "train", "--yes").code == 0
    plan = script.runonce("plan", "tiny.yaml", "-o", "json").json["modes"]
    ran = script.runonce("run", "tiny.yaml", "-o", "json").json["modes"]
    assert (plan["test"]["cached"], ran["test"]["cacheHit"]) == (True, True)


def test_a_file_that_asks_for_overwrite_is_no_hit_to_plan_either(made):
    made.write("tiny.yaml", FILE + "\n  overwrite: true")
    plan = made.runonce("plan", "tiny.yaml", "-o", "json").json["modes"]
    assert [one["cached"] for one in plan.values()] == [False, False]
    assert plan["train"]["message"] == "overwrite asks for it to be made anew"


def test_explain_tells_of_a_hit_who_made_it_and_when(made):
    done = made.runonce("explain", "tiny.yaml")
    lines = done.out.splitlines()
    assert [line.partition(" is a hit: tiny made it, 20")[0].split() for line in lines] == [
        [mode, key[:12]] for mode, key in sorted(made.keys.items(), reverse=True)
    ]
    hits = made.runonce("explain", made.keys["test"][:8], "-o", "json").json["hits"]
    assert {mode: (one["cacheKey"], one["name"]) for mode, one in hits.items()} == {"test": (made.keys["test"], "tiny")}


def test_a_first_attempt_is_called_none_because_of_the_jobs_of_another_store_or_of_what_was_removed(made):
    elsewhere = made.runonce("run", "tiny.yaml", "--store", "another")
    made.runonce("rm", "tiny", "--yes")
    again = made.runonce("run", "tiny.yaml")
    for done in (elsewhere, again):
        assert (done.code, "attempt" in done.err, "train: 1 process, key" in done.err) == (0, False, True), done.err
    made.write("run.sh", "[ -f done ] || { touch done; echo why; exit 7; }")
    retried = made.runonce("run", "tiny.yaml", "--mode", "train", "--store", "another")
    assert retried.code == 1
    assert "attempt 2" in made.runonce("run", "tiny.yaml", "--mode", "train", "--store", "another").err


def test_a_pinned_result_is_neither_collected_nor_removed(made):
    assert made.runonce("pin").err.startswith("no pins in ")
    done = made.runonce("pin", "paper", "tiny", "--mode", "train", "-o", "json")
    assert (done.code, done.json) == (0, [{"label": "paper", "cacheKeys": [made.keys["train"]]}])
    aged = ("gc", "--delete", "--older-than", "0d", "--newest-too")
    assert [one["mode"] for one in made.runonce(*aged, "-o", "json").json["results"]] == ["test"]
    refused = made.runonce("rm", "tiny", "--yes")
    assert (refused.code, "is pinned by paper" in refused.err) == (2, True)
    moved = made.runonce("run", "tiny.yaml", "--overwrite", "-o", "json")
    assert moved.code == 0, moved.err
    assert made.runonce("pin", "paper", made.keys["test"][:8]).out.split()[-1] == made.keys["test"][:12]
    assert [one["mode"] for one in made.runonce(*aged, "-o", "json").json["results"]] == []  # what test was made from
    assert made.runonce("unpin", "paper").code == 0
    assert {one["mode"] for one in made.runonce(*aged, "-o", "json").json["results"]} == {"train", "test"}


def test_a_bad_pin_is_refused_with_the_way_out(made):
    for words, told in (
        (("pin", "paper"), "nothing is named that paper is to keep"),
        (("pin", "../paper", "tiny"), "is no label"),
        (("pin", "paper", "nothing"), "no result in"),
        (("unpin", "paper"), "has the label paper"),
    ):
        done = made.runonce(*words)
        assert (done.code, told in done.err) == (2, True), done.err
    assert not (made.home / "store" / "p").exists() or not list((made.home / "store" / "p").iterdir())


def test_a_flipped_byte_is_found_and_healed_by_the_next_run(made):
    assert made.runonce("verify").out == "nothing is damaged\n"
    blob = blob_of_train(made)
    blob.chmod(0o644)
    blob.write_bytes(b"X" + blob.read_bytes()[1:])
    looked = made.runonce("verify", "--dry-run", "tiny", "-o", "json")
    touched = {key for damage in looked.json["damaged"] for key in damage["cacheKeys"]}
    assert (looked.code, touched, looked.json["discarded"]) == (1, set(made.keys.values()), False)
    refused = made.runonce("pull", "tiny", "--mode", "train")
    assert refused.code == 1
    assert "has the digest" in refused.err
    assert "`runonce verify" in refused.err
    found = made.runonce("verify")
    assert (found.code, made.keys["train"][:12] in found.out) == (1, True)
    again = made.runonce("run", "tiny.yaml", "-o", "json")
    assert again.code == 0, again.err
    assert again.json["modes"]["train"]["cacheHit"] is False
    assert made.runonce("verify").code == 0
    assert blob_of_train(made).read_bytes() == WEIGHTS


def test_a_damaged_commit_and_a_lost_manifest_are_found_and_healed(made):
    made.commits()[0].write_bytes(b"{")
    next(path for path in (made.home / "store" / "m").rglob("*") if path.is_file()).unlink()
    found = made.runonce("verify")
    assert found.code == 1
    assert made.runonce("verify").code == 0
    again = made.runonce("run", "tiny.yaml")
    assert again.code == 0, again.err
    assert made.runonce("verify").code == 0


@pytest.mark.parametrize("text", ["", "{", None])
def test_a_damaged_shard_of_a_round_that_was_not_committed_is_made_again_by_the_next_run(script, text):
    """Both processes have published, and the run is killed before it commits: the commit is taken away for that."""
    script.write("tiny.yaml", FILE.replace("train: {nprocesses: 1}", "train: {nprocesses: 2, coupled: false}"))
    script.write("run.sh", SCRIPT + 'echo "$JOB_COMPLETION_INDEX" >> "$STARTS"\n')
    starts = script.folder / "starts"
    assert script.runonce("run", "tiny.yaml", "--mode", "train", STARTS=str(starts)).code == 0
    (commit,) = script.commits()
    commit.unlink()
    shard = next((script.home / "store" / "w").glob("*/*/2/*/i1"))
    shard.unlink() if text is None else shard.write_text(text)
    done = script.runonce("run", "tiny.yaml", "--mode", "train", "-o", "json", STARTS=str(starts))
    assert done.code == 0, done.err
    assert sorted(starts.read_text().split()) == ["0", "1", "1"]  # what was published is not paid for again
    assert len(script.commits()) == 1
    assert [
        one["cacheHit"]
        for one in script.runonce("run", "tiny.yaml", "--mode", "train", "-o", "json").json["modes"].values()
    ] == [True]


def test_a_damaged_marker_is_found_and_healed(made):
    marker = made.home / "store" / "runonce-store.json"
    marker.write_text("")
    assert len(made.runonce("ls", "-o", "json").json) == 2
    found = made.runonce("verify")
    assert (found.code, "runonce-store.json is damaged" in found.out) == (1, True)
    assert made.runonce("verify").out == "nothing is damaged\n"
    assert json.loads(marker.read_text())["format"] == 1


def test_no_command_of_care_makes_a_store_where_none_is(made):
    (made.folder / "empty").mkdir()
    before = sorted(made.folder.rglob("*"))
    for words in (["gc"], ["gc", "--delete"], ["verify"], ["rm", "tiny", "--yes"], ["ls"]):
        for folder in ("empty", "mistyped"):
            done = made.runonce(*words, "--store", folder)
            assert (done.code, "no " in done.err) == (0 if words == ["ls"] else 2, True), (words, done.err)
    assert sorted(made.folder.rglob("*")) == before
    assert made.runonce("gc", RUNONCE_HOME=str(made.folder / "new")).out == "would free 0 B\n"
    assert not (made.folder / "new" / "store").exists()


def test_a_store_that_is_a_file_or_below_one_or_a_folder_of_something_else_is_wrong_input(made):
    made.write("notes/today.txt", "")
    for words in (
        ["run", "tiny.yaml"],
        ["plan", "tiny.yaml"],
        ["ls"],
        ["gc"],
        ["verify"],
        ["store", "check", "run.sh"],
    ):
        done = made.runonce(*words, *(() if "check" in words else ("--store", "run.sh")))
        assert (done.code, "run.sh is a file; a store is a folder." in done.err) == (2, True), (words, done.err)
        assert "Traceback" not in done.err
        below = made.runonce(*words[:2], *(() if "check" in words else ("--store",)), "run.sh/x")
        assert (below.code, "run.sh is a file; a store is a folder." in below.err) == (2, True), (words, below.err)
        other = made.runonce(*words[:2], *(() if "check" in words else ("--store",)), "notes")
        assert (other.code, "is a folder with other things in it, and no store" in other.err) == (2, True), words


def test_gc_looks_only_unless_told_and_keeps_what_is_needed(made):
    made.runonce("rm", "tiny", "--mode", "test", "--yes")
    looked = made.runonce("gc", "--no-writers", "-o", "json").json
    assert looked["deleted"] is False
    assert looked["freed"] > 0
    assert made.runonce("gc", "--no-writers", "--delete", "-o", "json").json["kinds"] == looked["kinds"]
    assert made.runonce("gc", "--no-writers").out.splitlines()[-1] == "would free 0 B"
    assert made.runonce("run", "tiny.yaml", "--mode", "train", "-o", "json").json["modes"]["train"]["cacheHit"] is True
    assert made.runonce("gc", "--older-than", "soon").code == 2
    assert made.runonce("gc", "--older-than", "1h", "--delete", "-o", "json").json["results"] == []


def test_logs_are_read_after_the_end_and_followed_until_it(made):
    for words in (("tiny",), ("tiny", "--follow"), ("tiny", "--mode", "train", "--index", "0")):
        done = made.runonce("logs", *words)
        assert done.code == 0, done.err
        assert "[train 0] hello from 0" in done.out
    assert "hello" not in made.runonce("logs", "tiny", "--index", "1").out


def test_the_logs_of_what_failed_end_with_exit_code_1(script):
    script.write("run.sh", "echo why; exit 7")
    assert script.runonce("run", "tiny.yaml", "--mode", "train").code == 1
    done = script.runonce("logs", "tiny")
    assert (done.code, done.out) == (1, "[train 0] why\n")
    shutil.rmtree(script.home / "jobs")
    key = next((script.home / "store" / "f").iterdir()).name
    assert "why" in script.runonce("logs", key[:8]).out


def test_of_one_name_the_newest_logs_of_each_mode_are_shown_and_the_others_named(script):
    """An old failure says nothing of what runs now."""
    script.write("run.sh", "echo old; exit 7")
    assert script.runonce("run", "tiny.yaml", "--mode", "train").code == 1
    old = next((script.home / "store" / "f").iterdir()).name
    script.write("run.sh", 'if [ -z "$RUNONCE_INPUT_TRAIN" ]; then echo new; fi')
    assert script.runonce("run", "tiny.yaml").code == 0
    done = script.runonce("logs", "tiny")
    assert (done.code, done.out) == (0, "[train 0] new\n")
    said = done.err.splitlines()
    assert said[0] == f"train: the newest of 2; `runonce logs KEY` shows the others ({old[:12]})"
    assert said[1].startswith("test: nothing was logged (key ")
    done = script.runonce("logs", old[:12])
    assert (done.code, done.out, done.err) == (1, "[train 0] old\n", "")
    assert "by process 5" in script.runonce("logs", "tiny", "--index", "5").err


def test_a_shell_completes_commands_names_and_keys(made):
    def completed(*words: str) -> list[str]:
        env = {
            "_RUNONCE_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(("runonce", *words)),
            "COMP_CWORD": f"{len(words)}",
        }
        done = subprocess.run(
            [os.path.join(os.path.dirname(made.command()[0]), "runonce")],
            env=made.env(**env), cwd=made.folder, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert {"ls", "logs"} <= set(completed("l"))
    assert completed("pull", "ti") == ["tiny"]
    assert completed("pull", made.keys["train"][:6]) == [made.keys["train"]]
