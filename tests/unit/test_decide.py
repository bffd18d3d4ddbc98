"""The decision as a table: what is wanted, what was seen, the one thing to do. One row a test."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runonce.controller.decide import (
    MAX_DISRUPTIONS,
    MAX_TOKENS,
    Block,
    Create,
    Fail,
    Hit,
    Join,
    Publish,
    Record,
    Replace,
    Seen,
    Skip,
    Wait,
    Wanted,
    decide,
    judge,
)
from runonce.experiment.job import Failure, JobState, Owner, Round
from runonce.experiment.manifest import Commit, Shard

ME, OTHER = Owner(uid="me", name="mine"), Owner(uid="other", name="theirs")
FROM = "aaaaaaaaaaaa-"


def wanted(**changes) -> Wanted:
    given = {
        "mode": "train",
        "cache_key": "k",
        "owner": ME,
        "total": 2,
        "coupled": True,
        "retries": 2,
        "machine": "m",
        "fresh": FROM + "new",
        "made_from": FROM,
    }
    return Wanted(**(given | changes))


def commit(**changes) -> Commit:
    given = {
        "cache_key": "k", "mode": "train", "name": "mine", "manifest": "d", "files": 1, "size": 1, "total": 2,
        "round": FROM + "r", "attempt": "a", "nonce": "n", "created": 0,
    }  # fmt: skip
    return Commit(**(given | changes))


def job(**changes) -> JobState:
    given = {
        "name": "j", "uid": "u", "cache_key": "k", "completions": 2, "round": Round(round=FROM + "r"), "owners": (ME,),
        "phase": "active",
    }  # fmt: skip
    return JobState(**(given | changes))


def shards(round_: str = FROM + "r", attempt: str = "u") -> list[Shard]:
    return [
        Shard(cache_key="k", mode="train", round=round_, total=2, attempt=attempt, index=i, files=()) for i in (0, 1)
    ]


def failure(code: int | None = 1, reason: str = "Error") -> Failure:
    return Failure(index=0, exit_code=code, reason=reason)


def failed(*failures: Failure, **changes) -> JobState:
    return job(phase="failed", failures=failures or (failure(),), **changes)


# --- a result is there ---


def test_a_commit_is_a_hit():
    assert decide(wanted(), Seen(commit=commit())) == Hit(commit(), cached=True)


def test_the_result_of_ones_own_job_is_no_cache_hit():
    seen = Seen(commit=commit(attempt="u"), job=job(phase="complete"))
    assert decide(wanted(), seen) == Hit(commit(attempt="u"), cached=False)


def test_the_result_of_anothers_job_is_a_cache_hit():
    seen = Seen(commit=commit(attempt="u"), job=job(phase="complete", owners=(OTHER,)))
    assert decide(wanted(), seen) == Hit(commit(attempt="u"), cached=True)


def test_a_commit_counts_also_where_nothing_would_be_run():
    assert decide(wanted(total=0), Seen(commit=commit())) == Hit(commit(), cached=True)


def test_a_commit_counts_where_its_input_is_gone():
    made = commit(mode="test", inputs={"train": "old"})
    assert decide(wanted(mode="test", inputs=None), Seen(commit=made)) == Hit(made, cached=True)


def test_a_commit_made_from_a_replaced_input_is_replaced():
    seen = Seen(commit=commit(inputs={"train": "old"}), etag="e")
    decision = decide(wanted(inputs={"train": "new"}), seen)
    assert isinstance(decision, Create)
    assert (decision.round.round, decision.round.replaces) == (FROM + "new", "e")


def test_a_request_to_overwrite_is_no_hit_until_a_commit_carries_its_token():
    seen = Seen(commit=commit(tokens=("old",)), etag="e")
    decision = decide(wanted(token="t"), seen)
    assert isinstance(decision, Create)
    assert decision.round == Round(round=FROM + "new", machine="m", replaces="e", tokens=("old", "t"))
    assert isinstance(decide(wanted(token="t"), Seen(commit=commit(tokens=("old", "t")))), Hit)


def test_a_commit_carries_the_newest_tokens_alone():
    many = tuple(f"t{i}" for i in range(MAX_TOKENS))
    decision = decide(wanted(token="t"), Seen(commit=commit(tokens=many)))
    assert isinstance(decision, Create)
    assert decision.round.tokens == (*many[1:], "t")


def test_a_damaged_commit_is_a_miss_whose_etag_is_replaced():
    decision = decide(wanted(), Seen(etag="e"))
    assert isinstance(decision, Create)
    assert decision.round.replaces == "e"


# --- nothing is there ---


def test_no_processes_is_skipped_with_its_reason():
    assert decide(wanted(total=0, reason="nprocesses is 0"), Seen()) == Skip("nprocesses is 0")


def test_without_its_input_a_mode_is_blocked():
    assert isinstance(decide(wanted(inputs=None), Seen()), Block)


def test_a_miss_creates_the_first_attempt_of_a_new_round():
    assert decide(wanted(), Seen()) == Create(Round(round=FROM + "new", machine="m"))


def test_an_unfinished_round_goes_on():
    decision = decide(wanted(), Seen(unfinished=FROM + "r"))
    assert isinstance(decision, Create)
    assert decision.round.round == FROM + "r"


def test_an_unfinished_round_does_not_serve_a_request_to_overwrite():
    decision = decide(wanted(token="t"), Seen(unfinished=FROM + "r", shards=shards()))
    assert isinstance(decision, Create)
    assert decision.round.round == FROM + "new"


def test_shards_that_nobody_committed_are_committed_without_a_job():
    decision = decide(wanted(), Seen(unfinished=FROM + "r", shards=shards()))
    assert isinstance(decision, Publish)
    assert (decision.shards, decision.round.round) == (shards(), FROM + "r")


def test_processes_without_a_job_are_waited_for():
    assert isinstance(decide(wanted(), Seen(living=("p",))), Wait)


# --- a Job is there ---


def test_an_active_job_of_ones_own_is_waited_for():
    assert isinstance(decide(wanted(), Seen(job=job())), Wait)


def test_an_active_job_of_another_is_joined():
    assert decide(wanted(), Seen(job=job(owners=(OTHER,)))) == Join("u")


def test_a_failing_job_of_another_is_not_joined():
    assert isinstance(decide(wanted(), Seen(job=job(owners=(OTHER,), failing=True))), Wait)


def test_a_job_that_is_being_deleted_is_waited_for():
    assert isinstance(decide(wanted(), Seen(job=job(phase="ending"))), Wait)


def test_a_job_of_another_key_under_the_name_is_an_error():
    decision = decide(wanted(), Seen(job=job(cache_key="x")))
    assert isinstance(decision, Fail)
    assert decision.reason == "JobNameTaken"


def test_a_complete_job_with_all_shards_is_committed():
    assert decide(wanted(), Seen(job=job(phase="complete"), shards=shards())) == Publish(shards(), job().round)


def test_the_result_of_an_ended_job_replaces_a_commit_that_was_damaged_since():
    decision = decide(wanted(), Seen(etag="e", job=job(phase="complete"), shards=shards()))
    assert decision == Publish(shards(), replace(job().round, replaces="e"))


def test_shards_outrank_a_failed_job():
    assert decide(wanted(), Seen(job=failed(), shards=shards())) == Publish(shards(), job().round)


def test_shards_made_from_a_replaced_input_are_not_committed():
    decision = decide(wanted(made_from="bbbbbbbbbbbb-", fresh="bbbbbbbbbbbb-new"), Seen(job=failed(), shards=shards()))
    assert isinstance(decision, Replace)
    assert decision.round.round == "bbbbbbbbbbbb-new"


def test_an_ended_job_that_did_not_honour_the_request_is_replaced_in_a_new_round():
    decision = decide(wanted(token="t"), Seen(job=job(phase="complete"), shards=shards()))
    assert isinstance(decision, Replace)
    assert (decision.round.round, decision.round.tokens) == (FROM + "new", ("t",))


def test_an_ended_job_that_honours_the_request_is_committed():
    ended = job(phase="complete", round=Round(round=FROM + "r", tokens=("t",)))
    assert isinstance(decide(wanted(token="t"), Seen(job=ended, shards=shards())), Publish)


def test_a_failed_job_is_judged_before_anything_follows_from_it():
    decision = decide(wanted(), Seen(job=failed()))
    assert decision == Record(Round(round=FROM + "r", verdict="charged", charges={"me": 1}), "u")


def test_a_charged_failure_is_tried_again_in_the_same_round():
    judged = Round(round=FROM + "r", verdict="charged", charges={"me": 1})
    decision = decide(wanted(), Seen(job=failed(round=judged)))
    assert decision == Replace(replace(judged, attempt=2, verdict=None), "u")


def test_more_charges_than_retries_are_final():
    judged = Round(round=FROM + "r", verdict="charged", charges={"me": 3})
    assert decide(wanted(), Seen(job=failed(round=judged))) == Fail("Error", (failure(),))


def test_a_final_failure_is_final():
    bad = failure(78, "ConfigurationError")
    judged = Round(round=FROM + "r", verdict="final")
    assert decide(wanted(), Seen(job=failed(bad, round=judged))) == Fail("ConfigurationError", (bad,))


def test_a_disruption_is_not_charged_but_counted():
    lost = failure(None, "SupervisorLost")
    decision = decide(wanted(), Seen(job=failed(lost)))
    assert decision == Record(Round(round=FROM + "r", verdict="disrupted", disruptions=1), "u")
    again = decide(wanted(), Seen(job=failed(lost, round=decision.round)))
    assert isinstance(again, Replace)
    often = replace(decision.round, disruptions=MAX_DISRUPTIONS + 1)
    assert decide(wanted(), Seen(job=failed(lost, round=often))) == Fail("TooManyDisruptions", (lost,))


def test_a_complete_job_without_its_shards_is_charged_and_tried_again():
    decision = decide(wanted(), Seen(job=job(phase="complete")))
    assert isinstance(decision, Record)
    assert decision.round.verdict == "charged"
    after = decide(wanted(retries=0), Seen(job=job(phase="complete", round=replace(decision.round, charges={"me": 1}))))
    assert isinstance(after, Fail)
    assert after.reason == "ShardsMissing"


def test_anothers_failed_job_is_replaced_in_its_round_without_its_charge():
    judged = Round(round=FROM + "r", verdict="final", charges={"other": 9})
    decision = decide(wanted(), Seen(job=failed(owners=(OTHER,), round=judged)))
    assert decision == Replace(replace(judged, attempt=2, verdict=None), "u")


# --- the verdict ---


@pytest.mark.parametrize(
    ("codes", "coupled", "verdict"),
    [
        ([78], True, "final"),
        ([1, 78], False, "final"),
        ([77], False, "final"),
        ([75], True, "disrupted"),
        ([75, 76], True, "disrupted"),
        ([76, 76], True, "charged"),
        ([1, 76], True, "charged"),
        ([-9], True, "charged"),
        ([1], False, "final"),
    ],
)
def test_what_a_failure_says(codes, coupled, verdict):
    assert judge([failure(code) for code in codes], coupled=coupled) == verdict


def test_victims_of_the_group_do_not_hide_that_it_was_stopped():
    assert judge([failure(75), failure(-9, "EndedWithGroup")], coupled=True) == "disrupted"


def test_nothing_known_is_charged_where_coupled():
    assert judge([], coupled=True) == "charged"
