"""What a Job and its pods say, as a value: phases, who failed and why, and who is only a victim."""

from __future__ import annotations

import pytest
from conftest_kube import job

from runonce.experiment.job import Round
from runonce.kube.job_state import decode_round, encode_round, indexes, job_state
from runonce.kube.objects import JobObject, PodObject


def seen(*conditions: str, completions: int = 2, independent: bool = False, deleted: bool = False, **status):
    spec = {"completions": completions, "parallelism": completions}
    spec |= {"backoffLimitPerIndex": 1} if independent else {}
    metadata = {"annotations": {"runonce.dev/cache-key": "k", "runonce.dev/round": encode_round(Round(round="r"))}}
    metadata |= {"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {}
    told = [{"type": kind, "status": "True", "reason": "R"} for kind in conditions]
    given = job("j", 1, metadata=metadata, status={"conditions": told} | status) | {"spec": spec}
    return JobObject.model_validate(given)


def pod(index: int, phase: str = "Failed", code: int | None = None, *, disrupted=False, deleted=False, **more):
    metadata = {
        "name": f"p{index}",
        "uid": f"u{index}",
        "resourceVersion": "1",
        "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
    } | ({"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {})
    status = {"phase": phase, **more}
    if code is not None:
        ended = {"exitCode": code, "reason": "Error", "message": f"tail {index}"}
        status["containerStatuses"] = [{"name": "worker", "state": {"terminated": ended}}]
    if disrupted:
        status["conditions"] = [{"type": "DisruptionTarget", "status": "True"}]
    return PodObject.model_validate({"metadata": metadata, "status": status})


def told(job_, *pods) -> list[tuple[int, int | None, str]]:
    return [(f.index, f.exit_code, f.reason) for f in job_state(job_, pods).failures]


@pytest.mark.parametrize(
    ("conditions", "phase", "failing"),
    [
        ((), "active", False),
        (("SuccessCriteriaMet",), "active", False),
        (("FailureTarget",), "active", True),
        (("FailureTarget", "Failed"), "failed", False),
        (("SuccessCriteriaMet", "Complete"), "complete", False),
    ],
)
def test_the_phase_is_that_of_the_conditions(conditions, phase, failing):
    """`FailureTarget` is not the end: pods may still live, and the next attempt would be a second writer."""
    state = job_state(seen(*conditions))
    assert (state.phase, state.failing) == (phase, failing)


def test_a_condition_that_is_false_says_nothing():
    found = seen()
    value = found.model_dump(by_alias=True)
    value["status"]["conditions"] = [{"type": "Suspended", "status": "False"}, {"type": "Failed", "status": "False"}]
    assert job_state(JobObject.model_validate(value)).phase == "active"


def test_a_job_that_is_deleted_is_ending_whatever_else_it_says():
    assert job_state(seen("Complete", deleted=True)).phase == "ending"


def test_what_a_failed_container_left_is_its_failure():
    state = job_state(seen("FailureTarget"), [pod(0, "Running"), pod(1, code=3)])
    (failure,) = state.failures
    assert (failure.index, failure.exit_code, failure.reason, failure.log_tail) == (1, 3, "Error", "tail 1")


def test_a_pod_that_is_deleted_ended_for_no_group_where_it_was_the_only_one():
    assert told(seen("FailureTarget", completions=1), pod(0, code=75, deleted=True)) == [(0, 75, "PodLost")]


def test_the_cause_stands_before_its_victims():
    assert told(seen("FailureTarget"), pod(0, code=76), pod(1, code=9)) == [(1, 9, "Error"), (0, 76, "LostPeer")]


def test_who_hung_is_the_cause_and_not_those_that_lost_it():
    found = told(seen("FailureTarget"), pod(0, code=76), pod(1, code=137, deleted=True))
    assert found == [(1, 137, "Hung"), (0, 76, "LostPeer")]


def test_who_was_ended_with_the_group_is_no_cause():
    found = told(seen("FailureTarget"), pod(0, code=143, deleted=True), pod(1, code=1))
    assert found == [(1, 1, "Error"), (0, 143, "EndedWithGroup")]


def test_a_pod_that_is_being_evicted_is_named_though_it_still_runs():
    found = told(seen("FailureTarget"), pod(0, "Running", disrupted=True), pod(1, code=1))
    assert found == [(0, None, "DisruptionTarget"), (1, 1, "Error")]


def test_an_index_whose_pod_is_gone_was_evicted():
    assert told(seen("FailureTarget"), pod(1, code=1)) == [(1, 1, "Error"), (0, None, "PodLost")]


def test_a_configuration_error_and_an_outlived_deadline_have_their_names():
    assert told(seen("Failed"), pod(0, code=78), pod(1, code=1, reason="DeadlineExceeded")) == [
        (0, 78, "ConfigurationError"),
        (1, 1, "DeadlineExceeded"),
    ]


@pytest.mark.parametrize(
    ("said", "reason", "text"),
    [
        (
            'runc create failed: unable to start container process: exec: "runonce": executable file not found in $PATH',
            "NoProgram",
            'the image has no such program: "runonce": executable file not found in $PATH',
        ),
        (
            "crun: executable file `runonce` not found in $PATH: No such file or directory: unknown",
            "NoProgram",
            "the image has no such program: `runonce` not found in $PATH: No such file or directory: unknown",
        ),
        ("error running hook #0: no such device", "StartError", "error running hook #0: no such device"),
    ],
)
def test_an_image_without_the_program_is_told_from_a_node_that_cannot_start_it(said, reason, text):
    ended = {"exitCode": 128, "reason": "StartError", "message": said}
    found = pod(0, containerStatuses=[{"name": "worker", "state": {"terminated": ended}}])
    (failure,) = job_state(seen("FailureTarget", completions=1), [found]).failures
    assert (failure.exit_code, failure.reason, failure.log_tail) == (128, reason, text)


def test_a_sigkill_of_which_the_kubelet_says_no_more_has_its_name():
    """Now and then it does not hear that it was for memory."""
    assert told(seen("FailureTarget"), pod(0, code=137), pod(1, code=76))[0] == (0, 137, "KilledKill")


def test_of_an_independent_job_only_failed_indexes_count_and_not_what_disturbed_them_before():
    found = seen("Failed", completions=3, independent=True, failedIndexes="2", completedIndexes="0-1")
    pods = [pod(1, code=1), pod(2, code=75, disrupted=True), pod(2, code=4)]
    assert told(found, *pods) == [(2, 4, "Error")]


def test_an_independent_job_that_a_rule_ended_names_no_failed_index_so_its_pods_tell():
    """A real cluster leaves failedIndexes empty after FailJob; the cause would read ShardsMissing."""
    found = seen("FailureTarget", "Failed", completions=3, independent=True, completedIndexes="0")
    pods = [pod(0, "Succeeded"), pod(1, code=78), pod(2, code=143, deleted=True)]
    assert told(found, *pods)[0] == (1, 78, "ConfigurationError")


def test_pods_that_are_due_and_not_there_are_counted():
    assert job_state(seen(active=1)).missing == 1
    assert job_state(seen(active=1, terminating=1)).missing == 0
    assert job_state(seen(completedIndexes="0")).missing == 1
    assert job_state(seen("Complete")).missing == 0


@pytest.mark.parametrize(("text", "value"), [("", ()), ("3", (3,)), ("0,2-4,7", (0, 2, 3, 4, 7))])
def test_intervals_of_indexes_are_read(text, value):
    assert indexes(text) == value


def test_a_record_survives_the_annotation_and_a_broken_one_is_none():
    data = Round(round="r", attempt=3, charges={"u": 2}, disruptions=1, verdict="charged", tokens=("t",), deletions=2)
    assert decode_round(encode_round(data)) == data
    for text in (None, "", "{", "[]", '{"round": 1}'):
        assert decode_round(text).round == "unreadable"
