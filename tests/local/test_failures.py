"""What failed is kept in the store: who ended how, and the last lines of each, for whoever asks later."""

from __future__ import annotations

import shutil

import pytest

WORDS = """
apiVersion: runonce.dev/v1alpha1
kind: Experiment
metadata: {name: words}
spec:
  command: [sh, -c, 'i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo "line $i of $JOB_COMPLETION_INDEX"; done; exit 3']
  codeVersion: label:1
  retries: 0
  machineParams:
    train: {nprocesses: 2, coupled: false}
"""


@pytest.fixture
def failed(place):
    """An experiment whose two processes failed, and of which this machine has no Job any more."""
    place.write("words.yaml", WORDS)
    assert place.runonce("run", "words.yaml").code == 1
    shutil.rmtree(place.home / "jobs")
    return place


def test_the_last_lines_of_each_failed_process_are_shown_by_file_name_and_key(failed):
    (shown,) = failed.runonce("show", "words.yaml", "-o", "json").json
    assert (shown["name"], shown["mode"], shown["phase"]) == ("words", "train", "Failed")
    told = shown["failure"]["failures"]
    assert [(one["index"], one["exitCode"], one["reason"]) for one in told] == [(0, 3, "Error"), (1, 3, "Error")]
    for index, one in enumerate(told):
        assert one["logTail"].endswith(f"line 2999 of {index}\nline 3000 of {index}\n")
        assert len(one["logTail"]) <= 4096
    for what in ("words", shown["cacheKey"][:8]):
        done = failed.runonce("show", what)
        assert done.code == 0, done.err
        assert "words  train  failed" in done.out
        assert "attempt 1: process 1 ended with Error (exit code 3)\n" in done.out
        assert "line 3000 of 1\n" in done.out


def test_explain_and_logs_tell_of_it_too(failed):
    explained = failed.runonce("explain", "words.yaml")
    assert "train  attempt 1: process 0 ended with Error (exit code 3)" in explained.out
    value = failed.runonce("explain", "words.yaml", "-o", "json").json
    assert value["failures"]["train"]["failures"][0]["logTail"].endswith("line 3000 of 0\n")
    logs = failed.runonce("logs", "words")
    assert (logs.code, "line 3000 of 0\n" in logs.out) == (1, True)


def test_once_there_is_a_result_the_failure_is_no_longer_what_is_shown(place):
    text = WORDS.replace("exit 3", "test -f ok").replace("3000", "3")
    place.write("words.yaml", text)
    assert place.runonce("run", "words.yaml").code == 1
    place.write("ok", "")
    assert place.runonce("run", "words.yaml").code == 0
    (shown,) = place.runonce("show", "words.yaml", "-o", "json").json
    assert (shown["phase"], "failure" in shown) == ("Succeeded", False)
    assert place.runonce("explain", "words.yaml", "-o", "json").json["failures"] == {}
