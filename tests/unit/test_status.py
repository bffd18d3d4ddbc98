"""The status as a table: what was decided, and what people, kubectl wait, kstatus and Argo CD then see."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from runonce.controller.decide import Block, Create, Fail, Hit, Join, Pause, Skip, Suspend, Wait
from runonce.controller.size import clip
from runonce.controller.status import (
    Subject,
    View,
    between_attempts,
    build_status,
    closed,
    only_counts_differ,
    read_status,
    to_value,
)
from runonce.experiment.contract import LOST_PEER
from runonce.experiment.job import Failure, JobState, Owner, Round
from runonce.experiment.manifest import Commit
from runonce.experiment.status import MAX_HISTORY, MAX_ROUND, ModeStatus, Status
from runonce.kube.job_state import decode_round, mirrored

ME = Owner(uid="me", name="mine")
NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"


def subject(**changes) -> Subject:
    given = {"uid": "me", "generation": 3, "digest": "d", "rerun": "", "now": NOW, "modes": ("train",)}
    return Subject(**(given | changes))


def job(**changes) -> JobState:
    given = {
        "name": "j", "uid": "u", "cache_key": "k", "completions": 2, "round": Round(round="r"), "owners": (ME,),
        "phase": "active",
    }  # fmt: skip
    return JobState(**(given | changes))


def view(decision, found: JobState | None = None, **changes) -> View:
    given = {
        "mode": "train", "cache_key": "k" * 64, "decision": decision, "job": found, "job_name": "j", "total": 2,
        "gpus": 4, "store": "s3://b", "logs": "runonce cluster logs n -n ns", "round": "{}" if found else "",
    }  # fmt: skip
    return View(**(given | changes))


def hit(cached: bool = True, **changes) -> Hit:
    given = {
        "cache_key": "k", "mode": "train", "name": "n", "manifest": "m", "files": 1, "size": 1, "total": 2,
        "round": "r", "attempt": "a", "nonce": "n", "created": 0,
    }  # fmt: skip
    return Hit(Commit(**(given | changes)), cached)


LOST = Failure(index=1, exit_code=3, reason="Error", log_tail="Traceback\nValueError: no\n")

ROWS = {
    "created": (view(Create(Round(round="r")), job()), "Pending", "JobCreated"),
    "joined": (view(Join("u"), job()), "Pending", "JobCreated"),
    "waits for pods": (view(Wait("x", "Running"), job()), "Pending", "JobCreated"),
    "runs": (view(Wait("x", "Running"), job(ready=1)), "Running", "Running"),
    "some are done": (view(Wait("x", "Running"), job(succeeded=(0,))), "Running", "Running"),
    "refused": (view(Wait("quota", "PodsRefused"), job()), "Pending", "PodsRefused"),
    "the Job was refused": (view(Wait("quota", "JobRefused")), "Pending", "JobRefused"),
    "another cluster": (view(Wait("held", "OtherCluster")), "Pending", "OtherCluster"),
    "is deleted": (view(Wait("ends", "Ending"), job(phase="ending")), "Pending", "Ending"),
    "paused": (view(Pause("spec.suspend is true")), "Suspended", "Suspended"),
    "pausing": (view(Suspend("u", True), job(ready=1)), "Suspended", "Suspended"),
    "resuming": (view(Suspend("u", False), job()), "Pending", "JobCreated"),
    "hit": (view(hit()), "Succeeded", "CacheHit"),
    "made": (view(hit(False), job(phase="complete")), "Succeeded", "Succeeded"),
    "skipped": (view(Skip("nprocesses is 0")), "Succeeded", "Skipped"),
    "blocked": (view(Block("train is needed")), "Blocked", "InputMissing"),
    "failed": (view(Fail("Error", (LOST,)), job(phase="failed", failures=(LOST,))), "Failed", "Error"),
}


def conditions(status: Status) -> dict[str, str]:
    return {condition.type: condition.status for condition in status.conditions}


@pytest.mark.parametrize("row", ROWS)
def test_every_decision_has_its_phase_and_reason(row):
    seen, phase, reason = ROWS[row]
    status = build_status(subject(), [seen], Status())
    assert (status.phase, status.modes.train.reason) == (phase, reason)
    assert status.observed_generation == 3
    assert {c.observed_generation for c in status.conditions} == {3}
    assert all(c.reason and c.last_transition_time for c in status.conditions)


def kstatus(value: dict, generation: int = 3) -> str:
    """The documented order of cli-utils' kstatus for a kind that it does not know."""
    found = {c["type"]: c["status"] for c in value.get("conditions", ())}
    if value.get("observedGeneration", generation) != generation:
        return "InProgress"
    if found.get("Reconciling") == "True":
        return "InProgress"
    if found.get("Stalled") == "True":
        return "Failed"
    if "Ready" in found:
        return "Current" if found["Ready"] == "True" else "InProgress"
    return "Current"


@pytest.mark.parametrize("row", ROWS)
def test_kstatus_agrees_with_the_phase(row):
    seen, phase, _ = ROWS[row]
    words = {"Succeeded": "Current", "Failed": "Failed", "Blocked": "Failed"}
    assert kstatus(to_value(build_status(subject(), [seen], Status()))) == words.get(phase, "InProgress")


def test_a_word_of_a_kubelet_becomes_a_reason_that_a_condition_may_have():
    full = Failure(index=0, exit_code=None, reason="OutOfnvidia.com/gpu")
    failed = view(Fail(full.reason, (full,)), job(phase="failed", failures=(full,)))
    found = build_status(subject(), [failed], Status())
    pattern = re.compile("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")  # of metav1.Condition
    assert all(pattern.fullmatch(condition.reason) for condition in found.conditions)
    assert "OutOfnvidia.com/gpu" in found.message


def test_why_it_was_a_miss_stays_as_long_as_the_key():
    text = "train: nearest earlier result abc: params.lr was 1, is 2"
    first = build_status(subject(), [view(Wait("x", "Running"), job(), missed=text)], Status())
    later = build_status(subject(), [view(Wait("x", "Running"), job(ready=1))], first)
    made = build_status(subject(), [view(hit(False), job(phase="complete"))], later)
    for status, reason in ((first, "Missed"), (later, "Missed"), (made, "Made")):
        told = next(condition for condition in status.conditions if condition.type == "CacheHit")
        assert (told.status, told.reason, told.message) == ("False", reason, text)
    edited = build_status(subject(), [view(Wait("x", "Running"), job(), cache_key="other")], later)
    assert "CacheHit" not in conditions(edited)
    assert (
        next(c for c in build_status(subject(), [view(hit())], later).conditions if c.type == "CacheHit").message == ""
    )


def test_a_fresh_object_and_an_edited_one_are_in_progress():
    done = to_value(build_status(subject(), [view(hit())], Status()))
    assert kstatus({"observedGeneration": -1}) == "InProgress"
    assert kstatus(done, generation=4) == "InProgress"


def test_what_was_refused_is_stalled_with_its_message():
    refused = subject(accepted=("UnknownProfile", "spec.profile: is 'x'."), rejected=True)
    status = build_status(refused, [], Status())
    assert (status.phase, status.message) == ("Failed", "spec.profile: is 'x'.")
    assert (conditions(status)["Accepted"], conditions(status)["Stalled"]) == ("False", "True")
    assert "Reconciling" not in conditions(status)


def test_trouble_with_the_store_is_in_progress_and_keeps_what_was_known():
    before = build_status(subject(), [view(Wait("x", "Running"), job(ready=1))], Status())
    status = build_status(subject(trouble="the store is away"), [], before)
    assert (status.phase, status.message) == ("Running", "the store is away")
    assert status.modes.train.cache_key == "k" * 64
    assert kstatus(to_value(status)) == "InProgress"


def test_a_time_of_transition_stays_until_the_condition_changes():
    first = build_status(subject(), [view(Wait("x", "Running"), job())], Status())
    second = build_status(subject(now=LATER), [view(Wait("x", "Running"), job(ready=1))], first)
    times = {c.type: c.last_transition_time for c in second.conditions}
    assert (times["Ready"], times["Running"]) == (NOW, LATER)


def test_modes_that_have_to_wait_say_so():
    status = build_status(subject(modes=("train", "test")), [view(Wait("x", "Running"), job())], Status())
    assert (status.modes.test.phase, status.modes.test.message) == ("Pending", "waits for its turn")
    assert (status.mode, status.gpus, status.key) == ("train", 4, "k" * 12)


def test_the_failure_names_process_code_and_last_line():
    status = build_status(subject(), [ROWS["failed"][0]], Status())
    where = "runonce cluster logs n -n ns --index 1"
    assert status.message == f"process 1 ended with Error (exit code 3): ValueError: no (logs: {where})"
    assert status.modes.train.failure.log_tail == LOST.log_tail


def test_what_no_process_wrote_has_no_logs_to_look_at():
    late = Failure(index=-1, exit_code=None, reason="StartDeadlineExceeded", log_tail="0/1 nodes are available")
    status = build_status(subject(), [view(Fail(late.reason, (late,)), job(failures=(late,)))], Status())
    assert status.message == "the Job ended with StartDeadlineExceeded: 0/1 nodes are available"


def test_a_job_that_a_queue_holds_says_so():
    seen = view(Wait("x", "Running"), job(queued=True, suspended=True))
    assert build_status(subject(), [seen], Status()).message == "its Job waits until its queue lets it begin"


def test_what_the_worker_named_is_the_reason_and_the_message_of_the_conditions():
    tail = "warning: x\nerror (AccessDenied): cannot write b/aa in s3://b: the credentials do not allow it.\n"
    bad = Failure(index=0, exit_code=1, reason="Error", log_tail=tail)
    status = build_status(
        subject(), [view(Fail("AccessDenied", (bad,)), job(phase="failed", failures=(bad,)))], Status()
    )
    failed = next(c for c in status.conditions if c.type == "Failed")
    assert failed.reason == "AccessDenied"
    assert status.message.startswith(
        "process 0 ended with AccessDenied (exit code 1): cannot write b/aa in s3://b: the credentials do not allow it."
    )


def test_of_one_that_hung_in_silence_its_peer_tells():
    hung = Failure(index=1, exit_code=None, reason="Hung")
    peer = Failure(index=0, exit_code=76, reason="LostPeer", log_tail="error (LostPeer): train: another process hangs.")
    status = build_status(
        subject(), [view(Fail("Hung", (hung, peer)), job(phase="failed", failures=(hung, peer)))], Status()
    )
    assert status.message.startswith("process 1 ended with Hung: train: another process hangs. (logs: ")


def test_after_a_restart_a_failure_is_not_replaced_by_less():
    before = build_status(subject(), [ROWS["failed"][0]], Status())
    gone = Failure(index=0, exit_code=None, reason="PodLost")
    seen = view(Fail("PodLost", (gone,)), job(phase="failed", failures=(gone,)))
    assert build_status(subject(), [seen], before).modes.train.failure.exit_code == 3


def test_who_hung_takes_the_place_of_who_lost_it_also_where_nothing_of_it_is_left():
    peer = Failure(index=0, exit_code=LOST_PEER, reason="LostPeer")
    failing = view(Wait("ends", "Failing"), job(failing=True, failures=(peer,)))
    before = build_status(subject(), [failing], Status())
    assert before.modes.train.failure.index == 0
    hung = Failure(index=1, exit_code=None, reason="Hung")
    seen = view(Fail("Hung", (hung, peer)), job(phase="failed", failures=(hung, peer)))
    assert build_status(subject(), [seen], before).modes.train.failure.index == 1


def test_what_a_name_had_under_other_keys_is_kept_in_short():
    status = build_status(subject(), [view(hit())], Status())
    for number in range(MAX_HISTORY + 3):
        status = build_status(subject(), [view(hit(), cache_key=f"{number:064x}")], status)
    assert len(status.history) == MAX_HISTORY
    assert status.history[-1].cache_key == f"{MAX_HISTORY + 1:064x}"


def test_a_closed_attempt_has_no_uid_and_the_record_of_the_next():
    running = build_status(subject(), [view(Wait("x", "Running"), job(ready=1))], Status()).modes.train
    after = closed(running, Round(round="r", attempt=2), "{next}", (LOST,))
    assert (after.job_uid, after.attempt, after.round, after.failure.attempt) == ("", 2, "{next}", 1)


def test_between_attempts_all_conditions_say_what_the_phase_says():
    before = build_status(subject(), [view(Wait("x"), job(ready=2))], Status())
    assert conditions(before)["Running"] == "True"
    entry = closed(before.modes.train, Round(round="r", attempt=2), "{next}", (LOST,))
    between = between_attempts(subject(generation=4, now=LATER), "train", entry, before)
    true = {kind for kind, value in conditions(between).items() if value == "True"}
    assert (between.phase, true) == ("Pending", {"Accepted", "Reconciling"})
    assert between.observed_generation == 3  # the edit itself has not been looked at
    assert {condition.observed_generation for condition in between.conditions} == {3}
    assert kstatus(to_value(between)) == "InProgress"


def test_the_status_of_a_namesake_is_not_believed():
    value = to_value(build_status(subject(uid="other"), [view(hit())], Status()))
    assert read_status(value, "me") == Status()
    assert read_status(value, "other").phase == "Succeeded"


@pytest.mark.parametrize("value", [{}, {"observedGeneration": -1}, {"uid": "me", "phase": 7}, {"conditions": "x"}])
def test_a_status_that_cannot_be_read_is_as_none(value):
    assert read_status(value, "me") == Status()


def test_what_was_written_is_read_back_the_same():
    for seen, _, _ in ROWS.values():
        status = build_status(subject(), [seen], Status())
        assert read_status(to_value(status), "me") == status


def test_counts_alone_are_no_news():
    few = build_status(subject(), [view(Wait("x", "Running"), job(ready=1, active=2))], Status())
    more = build_status(subject(), [view(Wait("x", "Running"), job(ready=2, active=1, succeeded=(0,)))], few)
    assert only_counts_differ(few, more)
    assert not only_counts_differ(few, replace_phase(more))


def replace_phase(status: Status) -> Status:
    return status.model_copy(update={"phase": "Failed"})


# As the API server writes them, 1, 2, 2, 6, 6, 8 and 4 bytes; in a record, which is JSON in JSON, up to 14.
ODD = ("x", '"', "é", "\x01", "<", ".\u2028.", "🧪")


def stored_size(value) -> int:
    """Of a value in etcd: Go escapes what HTML gives a meaning to, and line separators."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return len(re.sub("[<>&\u2028\u2029]", "123456", text).encode())


@pytest.mark.parametrize("odd", ODD)
def test_a_status_is_never_larger_than_16_kib(odd):
    """Every text as long as can be, eight requests to run again in each record, a full history."""
    long = odd * 5000
    bad = Failure(index=99_999, exit_code=1, reason=long, log_tail=long + "\x00")
    status = build_status(subject(), [view(hit())], Status())
    for number in range(MAX_HISTORY + 1):
        status = build_status(subject(), [view(hit(), cache_key=f"{number:064x}")], status)
    owner = Owner(uid="u" * 36, name="mine")
    texts = tuple(f"{number:02}" + odd * (62 // len(odd.encode())) for number in range(40))
    record = Round(
        round="r" * 64,
        attempt=1000,
        charges={f"{number:036}": 3 for number in range(10)},
        machine="m" * 64,
        replaces="e" * 64,
        tokens=texts,
        deletions=5,
    )
    text = mirrored(record, owner)
    kept = decode_round(text)
    assert len(text) <= MAX_ROUND
    assert (kept.attempt, kept.charges, kept.tokens[-1]) == (1000, record.charges, texts[-1])
    views = []
    for mode in ("train", "valid", "test"):
        failed = job(phase="failed", failures=(bad,), name="j" * 57)
        views.append(replace(view(Fail(long, (bad,)), failed, round=text, cache_key="f" * 64, store=long), mode=mode))
    status = build_status(
        subject(modes=("train", "valid", "test"), rerun=long, accepted=("R" * 99, long)), views, status
    )
    value = to_value(status)
    assert stored_size(value) <= 16 * 1024
    assert [decode_round(mode["round"]) for mode in value["modes"].values()] == [kept] * 3
    assert all(mode["failure"]["logTail"].endswith(odd) for mode in value["modes"].values())
    assert len(value["history"]) == MAX_HISTORY
    back = read_status(value, "me")
    assert to_value(back) == value
    assert (
        to_value(
            build_status(subject(modes=("train", "valid", "test"), rerun=long, accepted=("R" * 99, long)), views, back)
        )
        == value
    )


def test_nor_is_one_in_which_somebody_else_has_written():
    short = "\x01" * 256
    entry = ModeStatus(cache_key=short, job=short, job_uid=short, round="\x01" * MAX_ROUND, artifacts="\x01" * 640)
    before = Status(uid="me", observed_generation=1, modes=dict.fromkeys(("train", "valid", "test"), entry))
    value = to_value(build_status(subject(trouble="the store is away"), [], before))
    assert stored_size(value) <= 16 * 1024
    assert value["message"] == "the store is away"


@pytest.mark.parametrize("odd", ODD)
def test_a_text_is_cut_by_what_it_takes_in_the_server(odd):
    assert clip(odd * 10) == odd * 10
    cut = clip(odd * 1000)
    assert (cut[: len(odd)], cut[-1]) == (odd, "…")
    assert 640 - 10 <= stored_size(cut) - 2 <= 640


def test_a_mode_without_a_status_has_none():
    assert ModeStatus().phase == "Pending"
    assert to_value(Status(observed_generation=1)).get("modes") is None
