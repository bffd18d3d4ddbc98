"""The main job, through real processes: run, artifacts, hit; and what makes a result be made again."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

LOOK = """
import sys
from runonce.cli import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


def test_a_class_runs_leaves_artifacts_and_is_a_hit_the_second_time(place):
    first = place.runonce("run", "tiny:Tiny", "-o", "json")
    assert first.code == 0, first.err
    train, test = first.json["modes"]["train"], first.json["modes"]["test"]
    assert (train["cacheHit"], test["cacheHit"], first.json["phase"]) == (False, False, "Succeeded")
    assert json.loads((Path(train["artifacts"]) / "weights.json").read_text())[0] == 0.1
    assert test["metrics"]["score"] == 0.2
    second = place.runonce("run", "tiny:Tiny", "-o", "json")
    assert second.code == 0
    assert second.json["modes"]["train"] == train | {"cacheHit": True}
    assert second.json["modes"]["test"] == test | {"cacheHit": True}


def test_a_file_that_says_what_the_class_says_is_a_hit(place):
    assert place.runonce("run", "tiny:Tiny").code == 0
    done = place.runonce("run", "tiny.yaml", "-o", "json")
    assert [outcome["cacheHit"] for outcome in done.json["modes"].values()] == [True, True]


def test_a_result_under_another_name_is_a_hit_that_is_told_by_the_name_that_was_asked_for(place):
    """The source caches what holds names: asked for C and B it answers A and B."""
    assert place.runonce("run", "tiny.yaml").code == 0
    place.write("other.yaml", (place.folder / "tiny.yaml").read_text().replace("name: tiny", "name: other"))
    done = place.runonce("run", "other.yaml", "-o", "json")
    assert done.json["name"] == "other"
    assert [outcome["cacheHit"] for outcome in done.json["modes"].values()] == [True, True]
    shown = place.runonce("ls", "-o", "json")
    assert {row["cacheKey"] for row in shown.json} == {m["cacheKey"] for m in done.json["modes"].values()}


def test_a_hit_of_a_file_imports_neither_torch_nor_the_code_nor_what_only_a_run_needs(place):
    assert place.runonce("run", "tiny.yaml").code == 0
    place.write("look.py", LOOK)
    done = subprocess.run(
        [sys.executable, "look.py", "run", "tiny.yaml"],
        cwd=place.folder,
        env=place.env(),
        capture_output=True,
        text=True,
    )
    assert "hit" in done.stdout
    imported = set(done.stderr.split())
    assert "runonce.cli.run" in imported
    heavy = {"torch", "numpy", "boto3", "kubernetes", "rich", "tiny", "asyncio", "runonce.local.processes"}
    assert not heavy & imported


def test_an_unrelated_file_beside_the_code_does_not_matter_but_the_code_does(place):
    assert place.runonce("run", "tiny.yaml").code == 0
    place.write("other.py", "x = 1\n")
    assert place.runonce("run", "tiny.yaml", "-o", "json").json["modes"]["train"]["cacheHit"] is True
    place.write("tiny.py", (place.folder / "tiny.py").read_text() + "\n# edited\n")
    done = place.runonce("run", "tiny.yaml", "-o", "json")
    assert done.json["modes"]["train"]["cacheHit"] is False
    assert "codeVersion was" in done.err


def test_an_operational_field_does_not_matter(edited):
    place = edited("machineParams:", "retries: 5\n  machineParams:")
    assert place.runonce("run", "tiny:Tiny").code == 0
    assert place.runonce("run", "tiny.yaml", "-o", "json").json["modes"]["train"]["cacheHit"] is True


def test_a_hit_says_how_many_processes_made_it(edited):
    place = edited("keyMachine: true", "keyMachine: false")
    assert place.runonce("run", "tiny.yaml", "--mode", "train").code == 0
    place = edited("train: {nprocesses: 1,", "train: {nprocesses: 2,")
    done = place.runonce("run", "tiny.yaml", "--mode", "train", "-o", "json")
    assert done.json["modes"]["train"]["cacheHit"] is True
    assert "made with nprocesses=1" in done.json["modes"]["train"]["message"]


def test_a_field_of_the_test_alone_costs_no_training_and_cannot_be_read_there(place, edited):
    edited("import ExperimentConfig", "import only_in, ExperimentConfig", "tiny.py")
    edited('label: str = "a"', 'label: str = only_in("test", default="a")', "tiny.py")
    assert place.runonce("run", "tiny:Tiny").code == 0
    done = place.runonce("run", "tiny:Tiny", "-p", "label=b", "-o", "json")
    assert [mode["cacheHit"] for mode in done.json["modes"].values()] == [True, False]
    edited("    def train(self, run):\n", "    def train(self, run):\n        self.params.label\n", "tiny.py")
    done = place.runonce("run", "tiny:Tiny", "--mode", "train")
    assert done.code == 1
    assert "Params.label is only_in('test'), and this is another mode" in done.err


def test_p_changes_a_parameter_and_a_miss_names_the_nearest_earlier_result(place):
    assert place.runonce("run", "tiny:Tiny").code == 0
    done = place.runonce("run", "tiny:Tiny", "-p", "lr=0.2", "-o", "json")
    assert done.json["modes"]["test"]["metrics"]["score"] == 0.4
    assert "nearest earlier result" in done.err
    assert "params.lr was 0.1, is 0.2" in done.err


def test_p_on_a_file_is_the_file_with_that_value(place, edited):
    changed = place.runonce("key", "tiny.yaml", "-p", "lr=1", "-o", "json").json
    edited("lr: 0.1", "lr: 1")
    assert place.runonce("key", "tiny.yaml", "-o", "json").json == changed


def test_overwrite_makes_the_result_anew_once_and_then_it_is_a_hit_again(place):
    first = place.runonce("run", "tiny.yaml", "-o", "json").json
    done = place.runonce("run", "tiny.yaml", "--overwrite", "-o", "json")
    assert done.code == 0
    assert [outcome["cacheHit"] for outcome in done.json["modes"].values()] == [False, False]
    again = place.runonce("run", "tiny.yaml", "-o", "json").json
    assert [outcome["cacheHit"] for outcome in again["modes"].values()] == [True, True]
    assert again["modes"]["train"]["cacheKey"] == first["modes"]["train"]["cacheKey"]


def test_a_mode_brings_what_it_reads(place):
    done = place.runonce("run", "tiny.yaml", "--mode", "test", "-o", "json")
    assert set(done.json["modes"]) == {"train", "test"}
    done = place.runonce("run", "tiny.yaml", "--mode", "train", "-o", "json")
    assert set(done.json["modes"]) == {"train"}


def test_a_mode_without_processes_is_skipped_and_what_needs_it_is_blocked(edited):
    place = edited("train: {nprocesses: 1,", "train: {nprocesses: 0,")
    done = place.runonce("run", "tiny.yaml", "-o", "json")
    assert done.code == 1
    assert [outcome["phase"] for outcome in done.json["modes"].values()] == ["Skipped", "Blocked"]


def test_several_documents_are_several_experiments(place):
    text = (place.folder / "tiny.yaml").read_text()
    place.write("both.yaml", text + "---" + text.replace("name: tiny}", "name: other}").replace("0.1", "0.3"))
    done = place.runonce("run", "both.yaml", "-o", "json")
    assert [result["name"] for result in done.json] == ["tiny", "other"]
    assert len(place.commits()) == 4


def test_standard_input_is_a_file(place):
    done = place.runonce("run", "-", "-o", "json", stdin=(place.folder / "tiny.yaml").read_text())
    assert (done.code, done.json["phase"]) == (0, "Succeeded")


def test_two_coupled_processes_form_a_group(place):
    place.write(
        "pair.py",
        (place.folder / "tiny.py")
        .read_text()
        .replace("nprocesses=1, coupled=False", "nprocesses=2")
        .replace("    def train(self, run):", "    def train(self, run):\n        self.check(run)")
        + """
    def check(self, run):
        import torch, torch.distributed as dist
        total = torch.tensor([run.process_ind + 1])
        dist.all_reduce(total)
        assert total.item() == 3
        assert not run.should_stop()
""",
    )
    done = place.runonce("run", "pair:Tiny", "--mode", "train", "-o", "json")
    assert done.code == 0, done.err
    artifacts = Path(done.json["modes"]["train"]["artifacts"])
    assert (artifacts / "weights.json").exists()
    assert (artifacts / "shard-1" / "weights.json").exists()


def test_a_failing_loop_shows_its_traceback_is_retried_and_never_cached(edited):
    place = edited("machineParams:", "retries: 1\n  machineParams:")
    edited("        for step in", "        raise RuntimeError('no luck')\n        for step in", "tiny.py")
    done = place.runonce("run", "tiny.yaml", "-o", "json")
    assert (done.code, done.json["phase"]) == (1, "Failed")
    assert done.err.count("RuntimeError: no luck") >= 2
    assert "train: process 0 ended with Error (exit code 1)" in done.err
    assert place.commits() == []


def test_a_failed_mode_stops_the_later_ones(edited):
    place = edited("        for step in", "        raise SystemExit(3)\n        for step in", "tiny.py")
    done = place.runonce("run", "tiny.yaml", "-o", "json")
    assert list(done.json["modes"]) == ["train"]


def test_results_are_read_only_files(place):
    done = place.runonce("run", "tiny.yaml", "-o", "json")
    weights = Path(done.json["modes"]["train"]["artifacts"]) / "weights.json"
    assert not weights.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)


def stored(place, kind: str, holding: bytes) -> Path:
    (found,) = [path for path in (place.home / "store" / kind).glob("*/*") if holding in path.read_bytes()]
    os.chmod(found, 0o644)
    return found


@pytest.mark.parametrize("kind", ["c", "m", "b"])
@pytest.mark.parametrize("damage", ["cut", "lost"])
def test_a_damaged_result_is_never_served_and_is_made_anew_with_all_that_was_made_from_it(place, kind, damage):
    place.runonce("run", "tiny.yaml")
    path = stored(place, kind, b'"mode":"train"' if kind != "b" else b"[0.1, ")
    if damage == "lost":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-2])
    done = place.runonce("run", "tiny.yaml", "-o", "json")
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    for outcome in done.json["modes"].values():
        assert all(json.loads(file.read_text()) for file in Path(outcome["artifacts"]).glob("*.json"))
    again = place.runonce("run", "tiny.yaml", "-o", "json")
    assert [outcome["cacheHit"] for outcome in again.json["modes"].values()] == [True, True]


def test_an_input_that_a_process_finds_damaged_is_made_anew_before_it_is_read(place):
    place.runonce("run", "tiny.yaml", "--mode", "train")
    blob = stored(place, "b", b"[0.1, ")
    blob.write_bytes(blob.read_bytes()[:-2] + b"9]")
    done = place.runonce("run", "tiny.yaml", "-o", "json")
    assert done.code == 0, done.err
    assert "the result of train is damaged and is made anew" in done.err
    assert done.json["modes"]["test"]["metrics"]["score"] == 0.2


def test_the_store_may_be_anywhere_but_not_in_a_folder_of_other_things(place, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    done = place.runonce("run", "tiny.yaml", "--store", str(elsewhere), "-o", "json")
    assert done.json["modes"]["train"]["artifacts"].startswith(str(elsewhere))
    done = place.runonce("run", "tiny.yaml", "--store", str(place.folder))
    assert done.code == 2
    assert "is a folder with other things in it, and no store" in done.err
    assert not (place.folder / "runonce-store.json").exists()


def test_a_partial_file_runs_with_the_codes_defaults_and_says_which_now_and_on_a_hit(edited):
    place = edited("params: {lr: 0.1, steps: 3, label: a}", "params: {lr: 0.1}")
    for hit in (False, True):
        done = place.runonce("run", "tiny.yaml")
        assert done.code == 0, done.err
        assert ("hit" in done.out) is hit
        assert "left to the code's defaults: label, steps" in done.out
    rendered = place.runonce("render", "-f", "tiny.yaml").out
    assert '"steps": 3' in rendered


@pytest.mark.parametrize("target", ["tiny:Tiny", "tiny.yaml"])
def test_plan_says_what_would_run_and_runs_nothing(place, target):
    plan = place.runonce("plan", target, "-o", "json")
    assert plan.code == 0, plan.err
    assert [planned["cached"] for planned in plan.json["modes"].values()] == [False, False]
    assert not (place.home / "store").exists()
    assert place.runonce("run", target).code == 0
    plan = place.runonce("plan", target)
    assert "2 results: 2 cached, 0 to be made" in plan.out


def test_plan_names_what_depends_on_a_number_of_processes_that_is_not_in_the_key(edited):
    two = edited("train: {nprocesses: 1, coupled: false}", "train: {nprocesses: 2}")
    assert "notKeyed" not in two.runonce("plan", "tiny.yaml", "-o", "json").json["modes"]["train"]
    modes = edited("  keyMachine: true\n", "").runonce("plan", "tiny.yaml", "-o", "json").json["modes"]
    assert "batch norm" in modes["train"]["notKeyed"]
    assert "notKeyed" not in modes["test"]
    assert modes["train"]["notKeyed"] in two.runonce("plan", "tiny.yaml").out


def test_explain_names_the_parts_that_differ(place):
    place.write("b.yaml", (place.folder / "tiny.yaml").read_text().replace("lr: 0.1", "lr: 0.2"))
    done = place.runonce("explain", "tiny.yaml", "b.yaml", "-o", "json")
    assert done.json["modes"]["train"]["differences"] == [{"path": "/params/lr", "first": 0.2, "second": 0.1}]
    assert place.runonce("run", "tiny.yaml").code == 0
    key = place.runonce("key", "tiny.yaml", "-o", "json").json["modes"]["train"]["cacheKey"]
    assert "params.lr was 0.1, is 0.2" in place.runonce("explain", "b.yaml").out
    assert "params.lr was 0.1, is 0.2" in place.runonce("explain", "b.yaml", key[:8]).out
    assert "is a hit" in place.runonce("explain", "tiny.yaml").out


def test_a_record_of_a_job_that_cannot_be_read_is_as_none(place):
    """A power cut may leave an empty one; the result and the checkpoints are in the store."""
    assert place.runonce("run", "tiny.yaml").code == 0
    for record in (place.home / "jobs").glob("*/*/job.json"):
        record.write_bytes(b"")
    assert place.runonce("ls").code == 0
    assert "hit" in place.runonce("run", "tiny.yaml").out
    again = place.runonce("run", "tiny.yaml", "--overwrite")
    assert again.code == 0, again.err
    assert place.runonce("run", "tiny.yaml", "-p", "lr=0.5").code == 0
