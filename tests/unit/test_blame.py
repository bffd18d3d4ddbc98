"""Who is to blame for a failed attempt, and what a condition calls it."""

from __future__ import annotations

from pathlib import Path

import pytest

from runonce.errors import CodeError, Fault
from runonce.experiment.blame import error_line, merged, named, only_victims, ordered, reason_of
from runonce.experiment.job import Failure


def failure(index: int, code: int | None, reason: str | None = None, tail: str = "") -> Failure:
    return Failure(index=index, exit_code=code, reason=reason or reason_of(code or 0), log_tail=tail)


def told(failures) -> list[tuple[int, str]]:
    return [(f.index, f.reason) for f in failures]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (75, "Stopped"),
        (76, "LostPeer"),
        (77, "DamagedInput"),
        (78, "ConfigurationError"),
        (79, "Stalled"),
        (1, "Error"),
        (137, "KilledKill"),
    ],
)
def test_every_code_of_the_contract_has_a_name(code, reason):
    assert reason_of(code) == reason


def test_the_cause_stands_before_those_that_lost_it_and_those_that_were_ended():
    found = ordered([failure(0, 76), failure(1, 143, "EndedWithGroup"), failure(2, 1)])
    assert told(found) == [(2, "Error"), (0, "LostPeer"), (1, "EndedWithGroup")]


def test_who_had_to_be_ended_while_the_others_waited_for_it_hung():
    found = ordered([failure(0, 76), failure(1, 137, "EndedWithGroup"), failure(2, 76)])
    assert told(found) == [(1, "Hung"), (0, "LostPeer"), (2, "LostPeer")]


def test_who_saved_or_lost_a_peer_too_when_it_was_ended_did_not_hang():
    found = ordered([failure(0, 76), failure(1, 75, "EndedWithGroup")])
    assert told(found) == [(0, "LostPeer"), (1, "EndedWithGroup")]


def test_a_pod_that_still_ran_when_the_others_had_lost_it_and_is_gone_then_hung():
    """The kubelet takes a pod away that had to be killed; what was seen before tells that it had not ended by itself."""
    first = merged((), (failure(0, 76),))
    assert only_victims(first)
    assert told(merged(first, (failure(0, None, "PodLost"), failure(1, None, "PodLost")))) == [
        (1, "Hung"),
        (0, "LostPeer"),
    ]


def test_pods_that_nobody_saw_end_are_lost_and_no_cause():
    lost = (failure(0, None, "PodLost"), failure(1, None, "PodLost"))
    assert merged((), lost) == lost


def test_what_the_worker_said_last_is_reason_and_text_whole():
    """Several faults are several lines, and each of them counts."""
    error = CodeError(Fault("spec.codeVersion", "is old."), Fault("spec.params", "lacks lr."))
    tail = f"warning: x\nerror (Earlier): y\n{error_line(error.reason, error)}\n"
    assert named(failure(0, 78, tail=tail)) == ("CodeError", "spec.codeVersion: is old.\nspec.params: lacks lr.")


def test_of_a_program_that_says_nothing_in_our_words_the_last_line_is_the_text():
    assert named(failure(0, 3, tail="a\nValueError: no\n")) == ("Error", "ValueError: no")
    assert named(failure(0, 78, tail="exit")) == ("ConfigurationError", "exit")
    assert named(failure(0, None, "PodLost")) == ("PodLost", "")


@pytest.mark.parametrize("reason", ["DisruptionTarget", "DeadlineExceeded", "EndedWithGroup", "Hung", "OOMKilled"])
def test_what_the_machine_says_is_not_overruled_by_what_a_program_prints(reason):
    assert named(failure(0, 137, reason, error_line("CodeError", "x")))[0] == reason


@pytest.mark.parametrize("line", ["error: no class", "error (lower): x", "an error (CodeError): x", "error (X-Y): x"])
def test_what_only_looks_like_it_is_text(line):
    assert named(failure(0, 1, tail=line)) == ("Error", line.strip())


def test_the_page_about_failures_has_the_codes_and_their_names():
    page = (Path(__file__).parents[2] / "docs" / "failures.md").read_text()
    for code in (75, 76, 77, 78, 79):
        assert f"| {code} | `{reason_of(code)}` |" in page
