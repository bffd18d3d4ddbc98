"""The decision as a table: what is wanted, what was seen, the one thing to do. One row a test."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runonce.controller.decide import (
    MAX_DELETIONS,
    MAX_DISRUPTIONS,
    MAX_OWNERS,
    MAX_TOKENS,
    Block,
    Create,
    Earlier,
    Expire,
    Fail,
    Hit,
    Join,
    Leave,
    Pause,
    Publish,
    Record,
    Replace,
    Seen,
    Skip,
    Suspend,
    Wait,
    Wanted,
    decide,
)
from runonce.experiment.blame import judge
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
    decision = decide(wanted(tokens=("t",)), seen)
    assert isinstance(decision, Create)
    assert decision.round == Round(round=FROM + "new", machine="m", replaces="e", tokens=("old", "t"))
    assert isinstance(decide(wanted(tokens=("t",)), Seen(commit=commit(tokens=("old", "t")))), Hit)


def test_a_commit_carries_the_newest_tokens_alone():
    many = tuple(f"t{i}" for i in range(MAX_TOKENS))
    decision = decide(wanted(tokens=("t",)), Seen(commit=commit(tokens=many)))
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
    decision = decide(wanted(tokens=("t",)), Seen(unfinished=FROM + "r", shards=shards()))
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


def test_a_suspended_job_that_cannot_end_is_replaced():
    """Failing and without a start time: the API server never lets it be Failed, so nobody waits for that."""
    stuck = job(failing=True, suspended=True, failures=(failure(None, "DisruptionTarget"),))
    decision = decide(wanted(), Seen(job=stuck))
    assert isinstance(decision, Record)
    assert isinstance(decide(wanted(), Seen(job=replace(stuck, round=decision.round))), Replace)
    assert isinstance(decide(wanted(), Seen(job=replace(stuck, owners=(OTHER,)))), Replace)
    assert isinstance(decide(wanted(), Seen(job=replace(stuck, active=1, round=decision.round))), Wait)


def test_a_failing_job_is_not_suspended():
    failing = job(failing=True, failures=(failure(1),))
    assert isinstance(decide(wanted(suspend=True), Seen(job=failing)), Pause)


def test_a_failing_job_of_another_is_not_joined():
    assert isinstance(decide(wanted(), Seen(job=job(owners=(OTHER,), failing=True))), Wait)


def test_a_job_that_is_being_deleted_is_waited_for():
    assert isinstance(decide(wanted(), Seen(job=job(phase="ending"))), Wait)


def test_a_job_of_another_key_under_the_name_is_an_error():
    decision = decide(wanted(), Seen(job=job(cache_key="x")))
    assert isinstance(decision, Block)
    assert decision.cause == "JobNameTaken"


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
    decision = decide(wanted(tokens=("t",)), Seen(job=job(phase="complete"), shards=shards()))
    assert isinstance(decision, Replace)
    assert (decision.round.round, decision.round.tokens) == (FROM + "new", ("t",))


def test_an_ended_job_that_honours_the_request_is_committed():
    ended = job(phase="complete", round=Round(round=FROM + "r", tokens=("t",)))
    assert isinstance(decide(wanted(tokens=("t",)), Seen(job=ended, shards=shards())), Publish)


def test_a_failed_job_is_judged_before_anything_follows_from_it():
    decision = decide(wanted(), Seen(job=failed()))
    assert decision == Record(Round(round=FROM + "r", verdict="charged", charges={"me": 1}), "u")


def test_a_charged_failure_is_tried_again_in_the_same_round():
    judged = Round(round=FROM + "r", verdict="charged", charges={"me": 1}, machine="m")
    decision = decide(wanted(), Seen(job=failed(round=judged)))
    assert decision == Replace(replace(judged, attempt=2, verdict=None), "u")


def test_more_charges_than_retries_are_final():
    judged = Round(round=FROM + "r", verdict="charged", charges={"me": 3})
    assert decide(wanted(), Seen(job=failed(round=judged))) == Fail("Error", (failure(),))


def test_a_final_failure_is_final():
    bad = failure(78, "ConfigurationError")
    judged = Round(round=FROM + "r", verdict="final")
    assert decide(wanted(), Seen(job=failed(bad, round=judged))) == Fail("ConfigurationError", (bad,))
    told = replace(bad, log_tail="error (PartialFile): spec.params: lacks lr.")
    assert decide(wanted(), Seen(job=failed(told, round=judged))) == Fail("PartialFile", (told,))


def test_a_disruption_is_not_charged_but_counted():
    lost = failure(None, "SupervisorLost")
    decision = decide(wanted(), Seen(job=failed(lost)))
    assert decision == Record(Round(round=FROM + "r", verdict="disrupted", disruptions=1), "u")
    again = decide(wanted(), Seen(job=failed(lost, round=decision.round)))
    assert isinstance(again, Replace)
    often = replace(decision.round, disruptions=MAX_DISRUPTIONS + 1)
    assert decide(wanted(), Seen(job=failed(lost, round=often))) == Fail("TooManyDisruptions", (lost,))
    stopped = (failure(75, "Stopped"), failure(76, "LostPeer"))
    assert decide(wanted(), Seen(job=failed(*stopped, round=often))) == Fail("TooManyStops", stopped)


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
    assert decision == Replace(replace(judged, attempt=2, verdict=None, machine="m"), "u")


# --- what only a resource has: suspension, other owners, a status that remembers ---


def earlier(uid: str = "u", *, given_up: bool = False, **changes) -> Earlier:
    return Earlier(uid=uid, round=Round(**({"round": FROM + "r"} | changes)), given_up=given_up)


def test_a_suspended_experiment_creates_and_joins_nothing():
    assert isinstance(decide(wanted(suspend=True), Seen()), Pause)
    assert isinstance(decide(wanted(suspend=True), Seen(job=job(owners=(OTHER,)))), Pause)
    assert isinstance(decide(wanted(suspend=True), Seen(job=failed())), Pause)


def test_a_suspended_experiment_has_its_result_nevertheless():
    assert isinstance(decide(wanted(suspend=True), Seen(commit=commit())), Hit)


def test_a_job_is_suspended_when_all_of_its_owners_say_so():
    assert decide(wanted(suspend=True), Seen(job=job())) == Suspend("u", True)
    assert isinstance(decide(wanted(suspend=True), Seen(job=job(owners=(ME, OTHER)), others_want=True)), Pause)
    assert isinstance(decide(wanted(suspend=True), Seen(job=job(suspended=True))), Pause)


def test_a_suspended_job_is_resumed_by_an_owner_that_is_not():
    assert decide(wanted(), Seen(job=job(suspended=True))) == Suspend("u", False)


def test_the_suspension_of_a_queued_job_is_the_queues():
    assert isinstance(decide(wanted(), Seen(job=job(suspended=True, queued=True))), Wait)
    assert decide(wanted(suspend=True), Seen(job=job(queued=True))) == Leave("u")


def test_a_job_with_as_many_owners_as_it_can_have_is_waited_for():
    many = tuple(Owner(uid=str(i), name="x") for i in range(MAX_OWNERS))
    assert isinstance(decide(wanted(), Seen(job=job(owners=many))), Wait)


def test_an_ownerless_job_is_adopted():
    assert decide(wanted(), Seen(job=job(owners=()))) == Join("u")


def test_a_request_while_the_job_runs_is_added_to_those_that_it_honours():
    decision = decide(wanted(tokens=("t",)), Seen(job=job(round=Round(round=FROM + "r", tokens=("old",)))))
    assert decision == Record(Round(round=FROM + "r", tokens=("old", "t")), "u")
    assert isinstance(decide(wanted(tokens=("t",)), Seen(job=job(round=decision.round))), Wait)


def test_a_request_is_honoured_by_whoever_replaced_the_commit_meanwhile():
    ended = job(phase="complete", round=Round(round=FROM + "r", tokens=("t",), replaces="old"))
    seen = Seen(commit=commit(), etag="new", job=ended, shards=shards())
    assert isinstance(decide(wanted(tokens=("t",)), seen), Hit)
    assert isinstance(decide(wanted(tokens=("t",)), replace(seen, etag="old")), Publish)


def test_pods_are_judged_while_they_can_be_seen():
    """At `Failed` the evicted ones, and the victims, may be gone."""
    failing = job(failing=True, failures=(failure(None, "DisruptionTarget"), failure(1)))
    decision = decide(wanted(), Seen(job=failing))
    assert decision == Record(Round(round=FROM + "r", verdict="disrupted", disruptions=1), "u")
    assert isinstance(decide(wanted(), Seen(job=replace(failing, round=decision.round))), Wait)


def test_what_ended_well_before_its_job_was_deleted_is_a_result_and_honours_what_its_round_honoured():
    round_ = Round(round=FROM + "r", tokens=("t",))
    seen = Seen(shards=shards(), unfinished=FROM + "r")
    asked = wanted(tokens=("t",), earlier=Earlier(uid="u", round=round_))
    assert isinstance(decide(asked, seen), Publish)
    other = replace(asked, earlier=Earlier(uid="u", round=replace(round_, round=FROM + "s")))
    assert isinstance(decide(other, seen), Create)


def test_an_index_without_a_pod_was_evicted():
    assert judge([failure(1), failure(None, "PodLost")], coupled=True) == "disrupted"


def test_who_joined_with_another_machine_charges_the_creator():
    seen = Seen(job=failed(owners=(OTHER, ME), round=Round(round=FROM + "r", machine="theirs")))
    decision = decide(wanted(), seen)
    assert isinstance(decision, Record)
    assert decision.round.charges == {"other": 1}


@pytest.mark.parametrize(
    "changes",
    [{"active": 2}, {"suspended": True, "succeeded": (0,)}, {"suspended": True}],
    ids=["never-ran", "resumed", "never-begun"],
)
def test_edited_machines_are_had_at_once_where_nothing_is_lost(changes):
    made = Round(round=FROM + "r", machine="before")
    decision = decide(wanted(), Seen(job=job(round=made, **changes)))
    assert decision == Replace(replace(made, attempt=2, machine="m"), "u")


def test_a_pod_that_someone_deleted_costs_nothing():
    """It ends with 75 or by the signal, the group after it, and none of them ended by itself."""
    assert judge([failure(75, "EndedWithGroup"), failure(143, "EndedWithGroup")], coupled=True) == "disrupted"


@pytest.mark.parametrize("changes", [{"active": 2, "ready": 1}, {"active": 1, "succeeded": (0,)}])
def test_edited_machines_wait_for_the_next_attempt_of_what_runs(changes):
    made = Round(round=FROM + "r", machine="before")
    assert isinstance(decide(wanted(), Seen(job=job(round=made, **changes))), Wait)


def test_who_only_shares_a_job_does_not_replace_it():
    made = Round(round=FROM + "r", machine="theirs")
    assert isinstance(decide(wanted(), Seen(job=job(round=made, owners=(OTHER, ME), active=2))), Wait)


def test_the_next_attempt_is_of_the_machine_of_who_makes_it():
    judged = Round(round=FROM + "r", verdict="charged", charges={"other": 9}, machine="theirs")
    decision = decide(wanted(), Seen(job=failed(owners=(OTHER, ME), round=judged)))
    assert isinstance(decision, Replace)
    assert (decision.round.machine, decision.round.attempt) == ("m", 2)


def test_an_attempt_that_was_decided_and_not_made_is_made_as_decided():
    """A crash between the status that closed attempt 1 and the end of its Job."""
    seen = Seen(job=failed(round=Round(round=FROM + "r", verdict="charged", charges={"me": 1})))
    closed = earlier("", attempt=2, charges={"me": 1})
    assert decide(wanted(earlier=closed), seen) == Replace(closed.round, "u")
    assert decide(wanted(earlier=closed), Seen()) == Create(closed.round)


def test_a_job_that_the_status_names_and_that_is_gone_is_posted_again_and_counted():
    decision = decide(wanted(earlier=earlier()), Seen())
    assert decision == Create(Round(round=FROM + "r", attempt=2, machine="m", deletions=1))
    again = decide(wanted(earlier=earlier(deletions=MAX_DELETIONS)), Seen())
    assert isinstance(again, Fail)
    assert again.reason == "JobDeleted"


def test_a_judged_job_that_is_gone_keeps_its_charge():
    decision = decide(wanted(earlier=earlier(verdict="charged", charges={"me": 1})), Seen())
    assert decision == Create(Round(round=FROM + "r", attempt=2, charges={"me": 1}, machine="m"))


def test_shards_outrank_the_status_that_names_a_job():
    assert isinstance(decide(wanted(earlier=earlier()), Seen(unfinished=FROM + "r", shards=shards())), Publish)


def test_what_was_given_up_goes_on_after_an_edit_from_what_was_there_and_with_all_its_retries():
    spent = {"verdict": "charged", "charges": {"me": 3, "other": 1}, "disruptions": 4, "attempt": 3}
    given_up = earlier(given_up=True, **spent)
    for seen in (Seen(unfinished=FROM + "r"), Seen(), Seen(job=failed(round=Round(round=FROM + "r", **spent)))):
        decision = decide(wanted(earlier=given_up), seen)
        assert isinstance(decision, Create | Replace)
        assert decision.round == Round(round=FROM + "r", attempt=4, charges={"other": 1}, machine="m")


def test_what_was_given_up_begins_anew_where_that_is_asked_for():
    """A checkpoint that can only fail again is left behind so."""
    decision = decide(wanted(earlier=earlier(given_up=True), tokens=("t",)), Seen(unfinished=FROM + "r"))
    assert decision == Create(Round(round=FROM + "new", machine="m", tokens=("t",)))


def test_the_attempt_after_an_edit_is_judged_for_itself():
    """The status still tells of the one before: nobody has written it since."""
    again = failed(round=Round(round=FROM + "r", attempt=2))
    decision = decide(wanted(earlier=earlier(given_up=True)), Seen(job=again))
    assert isinstance(decision, Record)


def test_a_status_of_other_inputs_says_nothing():
    moved = wanted(made_from="bbbbbbbbbbbb-", fresh="bbbbbbbbbbbb-new", earlier=earlier())
    assert decide(moved, Seen()) == Create(Round(round="bbbbbbbbbbbb-new", machine="m"))


def test_the_job_stays_for_its_time_after_the_commit_alone():
    seen = Seen(commit=commit(attempt="u"), job=job(phase="complete"))
    assert decide(wanted(ttl_s=3600), seen) == Expire("u", 3600)
    after = replace(seen, job=job(phase="complete", ttl_s=3600))
    assert decide(wanted(ttl_s=3600), after) == Hit(commit(attempt="u"), cached=False)


def test_a_result_that_came_from_elsewhere_ends_ones_own_job():
    assert decide(wanted(), Seen(commit=commit(), job=job())) == Leave("u")


def test_the_result_of_a_job_that_the_status_names_is_no_cache_hit():
    for named in (earlier("a"), earlier("b")):
        assert decide(wanted(earlier=named), Seen(commit=commit())) == Hit(commit(), cached=False)
    other = earlier("b", round=FROM + "other")
    assert decide(wanted(earlier=other), Seen(commit=commit())) == Hit(commit(), cached=True)


def test_a_job_that_does_not_start_in_time_fails():
    late = decide(wanted(start_deadline_s=60), Seen(job=job(), waited_s=61))
    assert isinstance(late, Fail)
    assert late.reason == "StartDeadlineExceeded"
    assert isinstance(decide(wanted(start_deadline_s=60), Seen(job=job(), waited_s=59)), Wait)


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


def test_a_program_that_the_image_does_not_have_is_not_tried_again():
    assert judge([failure(128, "NoProgram"), failure(128, "NoProgram")], coupled=True) == "final"
    assert judge([failure(128, "StartError")], coupled=True) == "charged"


def test_victims_of_the_group_do_not_hide_that_it_was_stopped():
    assert judge([failure(75), failure(-9, "EndedWithGroup")], coupled=True) == "disrupted"


def test_nothing_known_is_charged_where_coupled():
    assert judge([], coupled=True) == "charged"


@pytest.mark.parametrize(("coupled", "verdict"), [(True, "charged"), (False, "final")])
def test_a_limit_of_time_is_the_experiments_own(coupled, verdict):
    """Its process ends as one that was evicted, and would be tried again for ever."""
    late = [failure(75, "DeadlineExceeded"), failure(76), failure(75, "EndedWithGroup")]
    assert judge(late, coupled=coupled) == verdict
