"""Experiments that are programs in any language: arguments, parameters, folders, code, exit codes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

FILE = """
apiVersion: runonce.dev/v1alpha1
kind: Experiment
metadata: {name: program}
spec:
  command: [./run.sh, $(params.lr), "x$(params.deep.name)y"]
  code: ["*.sh"]
  params: {lr: 0.1, deep: {name: a b, none: {$none: true}}, t: {$tuple: [1, {$int: "9007199254740993"}]}}
  env: {GREETING: $(HOME)}
  retries: 0
  machineParams:
    train: {nprocesses: 2, coupled: false}
    test: {nprocesses: 1}
"""

SCRIPT = """#!/bin/sh
set -eu
printf '%s|' "$@" > "$RUNONCE_OUTPUT/arguments"
cp "$RUNONCE_PARAMS" "$RUNONCE_OUTPUT/params.json"
printf '%s' "$GREETING" > "$RUNONCE_OUTPUT/greeting"
pwd > "$RUNONCE_OUTPUT/place"
if [ -n "${RUNONCE_INPUT_TRAIN:-}" ]; then ls "$RUNONCE_INPUT_TRAIN" > "$RUNONCE_OUTPUT/input"; fi
"""


@pytest.fixture
def program(place):
    place.write("program.yaml", FILE)
    place.write("run.sh", SCRIPT).chmod(0o755)
    return place


def artifacts(done, mode: str) -> Path:
    assert done.code == 0, done.err
    return Path(done.json["modes"][mode]["artifacts"])


def test_what_a_program_logs_are_the_metrics_of_its_result(program):
    """Of each process the last finite value of each name, and of several processes their mean; the rest is passed over."""
    lines = ['{"step": 0, "name": "loss", "value": 9}', "no entry", '{"step": 1, "name": "loss", "value": 2.5}']
    lines += ['{"step": 1, "name": "huge", "value": 1e999}', ""]
    lines += [
        '{"step": 2, "name": "loss", "value": "nan"}',
        '{"step": 2, "name": "rank", "value": \'$JOB_COMPLETION_INDEX\'}',
    ]
    script = "\n".join(["#!/bin/sh", *(f"echo '{line}' >> $RUNONCE_OUTPUT/metrics.jsonl" for line in lines)])
    program.write("run.sh", script).chmod(0o755)
    done = program.runonce("run", "program.yaml", "--mode", "train", "-o", "json")
    assert done.code == 0, done.err
    assert done.json["modes"]["train"]["metrics"] == {"loss": 2.5, "rank": 0.5}
    assert done.err.count("warning: metrics.jsonl: 2 lines are no entries and do not count.") == 2  # a process each
    again = program.runonce("run", "program.yaml", "--mode", "train", "-o", "json")
    assert again.json["modes"]["train"]["cacheHit"] is True
    assert again.json["modes"]["train"]["metrics"] == {"loss": 2.5, "rank": 0.5}


def test_a_program_gets_its_arguments_parameters_and_folders_and_is_a_hit_the_second_time(program, tmp_path):
    done = program.runonce("run", "../work/program.yaml", "-o", "json", cwd=_made(tmp_path / "elsewhere"))
    train, test = artifacts(done, "train"), artifacts(done, "test")
    assert (train / "arguments").read_text() == "0.1|xa by|"
    assert json.loads((train / "params.json").read_text()) == {
        "lr": 0.1,
        "deep": {"name": "a b", "none": None},
        "t": [1, 9007199254740993],
    }
    assert (train / "greeting").read_text() == "$(HOME)"
    assert (train / "place").read_text().strip() == str(program.folder)
    assert (train / "shard-1" / "arguments").exists()
    assert "arguments" in (test / "input").read_text()
    again = program.runonce("run", "program.yaml", "-o", "json")
    assert [outcome["cacheHit"] for outcome in again.json["modes"].values()] == [True, True]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_the_files_of_its_code_count_and_no_others(program):
    first = program.runonce("key", "program.yaml", "-o", "json").json["modes"]["train"]["cacheKey"]
    program.write("notes.txt", "x")
    assert program.runonce("key", "program.yaml", "-o", "json").json["modes"]["train"]["cacheKey"] == first
    program.write("more.sh", "")
    assert program.runonce("key", "program.yaml", "-o", "json").json["modes"]["train"]["cacheKey"] != first


@pytest.mark.parametrize(
    ("code", "exit_code", "reason"), [(3, 1, "Error"), (78, 2, "ConfigurationError"), (77, 1, "DamagedInput")]
)
def test_its_exit_code_means_what_a_workers_means(program, code, exit_code, reason):
    program.write("run.sh", f"#!/bin/sh\necho why\nexit {code}\n")
    done = program.runonce("run", "program.yaml", "-o", "json")
    assert (done.code, done.json["modes"]["train"]["message"]) == (exit_code, reason)
    assert "why" in done.err


def test_what_it_saved_when_it_ended_is_there_at_the_next_try(program):
    program.write(
        "run.sh",
        '#!/bin/sh\nif [ -f "$RUNONCE_CHECKPOINT/sub/state" ]; then cp "$RUNONCE_CHECKPOINT/sub/state" "$RUNONCE_OUTPUT/state"; '
        'exit 0; fi\nmkdir "$RUNONCE_CHECKPOINT/sub"; echo "step $JOB_COMPLETION_INDEX" > "$RUNONCE_CHECKPOINT/sub/state"; exit 75\n',
    )
    train = artifacts(program.runonce("run", "program.yaml", "--mode", "train", "-o", "json"), "train")
    assert (train / "state").read_text() == "step 0\n"
    assert (train / "shard-1" / "state").read_text() == "step 1\n"


def test_a_program_that_cannot_be_started_is_told(program):
    program.write("program.yaml", FILE.replace("./run.sh", "./nothing.sh"))
    done = program.runonce("run", "program.yaml")
    assert done.code == 2
    assert "cannot be started: " in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", ["run", "plan", "submit"])
def test_an_argument_that_names_no_parameter_is_refused_before_anything_runs(program, command):
    program.write("program.yaml", FILE.replace("$(params.deep.name)", "$(params.deep.nam)"))
    done = program.runonce(command, "program.yaml")
    said = "spec.command[2]: names $(params.deep.nam), which params does not have. Did you mean deep.name?"
    assert (done.code, said in done.err, (program.home / "jobs").exists()) == (2, True, False), done.err


@pytest.mark.parametrize(
    ("option", "saying"),
    [
        (("-p", "lrr=1"), "lrr: is no parameter in the file of this program. Did you mean lr?"),
        (
            ("--grid", "deep.nam=[1, 2]"),
            "deep.nam: is no parameter in the file of this program. Did you mean deep.name?",
        ),
        (("-p", "lr=null"), "spec.params.lr: is null. Write {$none: true} for None"),
    ],
)
def test_a_change_of_what_a_program_does_not_have_is_refused(program, option, saying):
    done = program.runonce("plan", "program.yaml", *option)
    assert (done.code, saying in done.err) == (2, True), done.err


def test_a_pinned_version_that_is_not_that_of_the_files_is_refused(program):
    program.write("pinned.yaml", program.runonce("render", "program.yaml").out)
    assert program.runonce("run", "pinned.yaml").code == 0
    program.write("run.sh", SCRIPT + "# edited\n")
    done = program.runonce("run", "pinned.yaml")
    assert (done.code, "but the code here is source:" in done.err) == (2, True)


def test_a_stopped_program_gets_sigterm_and_time(program):
    program.write(
        "run.sh",
        "#!/bin/sh\ntrap 'echo saved > \"$RUNONCE_CHECKPOINT/state\"; exit 75' TERM\n"
        'if [ -f "$RUNONCE_CHECKPOINT/state" ]; then exit 0; fi\n'
        'touch "$BASE/up-$JOB_COMPLETION_INDEX"\nwhile :; do sleep 0.05; done\n',
    )
    process = program.start("run", "program.yaml", "--mode", "train", BASE=str(program.folder))
    deadline = time.monotonic() + 180
    while not all((program.folder / f"up-{i}").exists() for i in (0, 1)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.terminate()
    process.communicate(timeout=180)
    assert process.returncode == 75
    assert program.runonce("run", "program.yaml", "--mode", "train", BASE=str(program.folder)).code == 0


def test_of_a_version_that_nobody_proved_it_is_said_everywhere_that_the_user_promised_it(program, tmp_path):
    program.write("program.yaml", FILE.replace("  code: [", "  codeVersion: label:1.2\n  # code: ["))
    said = "the user's promise"
    assert program.runonce("run", "program.yaml").code == 0
    for arguments in (("key", "program.yaml"), ("plan", "program.yaml"), ("show", "program.yaml")):
        shown = program.runonce(*arguments).out
        assert said in next(line for line in shown.splitlines() if "label:1.2" in line)
    page = tmp_path / "page.html"
    program.runonce("show", "program.yaml", "--html", str(page))
    assert said.replace("'", "&#39;") in page.read_text() or said in page.read_text()
    program.write("program.yaml", FILE)
    assert said not in program.runonce("key", "program.yaml").out
