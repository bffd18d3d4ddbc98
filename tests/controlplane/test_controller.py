"""Experiments on a real API server: what a user sees, and what nobody runs twice."""

from __future__ import annotations

import json

import pytest
from control_plane import wait_for
from place import condition, first_fails

from runonce.kube.cluster import Signing
from runonce.store.failures import newest_failure


def test_a_cold_run_makes_one_job_and_ends_succeeded(place):
    place.start()
    place.apply("cold")
    with place.working():
        status = place.until("cold", "Succeeded")
    train = status["modes"]["train"]
    assert (train["cacheHit"], train["attempt"], train["total"]) == (False, 1, 2)
    assert train["cacheKey"] == place.key("cold")
    assert place.commits() == [f"c/{train['cacheKey'][:2]}/{train['cacheKey']}"]
    assert len(place.jobs()) == 1
    assert condition(status, "Ready")["status"] == "True"
    assert condition(status, "CacheHit")["status"] == "False"


def test_a_hit_succeeds_without_a_job_or_a_pod(place):
    place.start()
    place.apply("first")
    with place.working():
        place.until("first", "Succeeded")
    place.delete("first")
    wait_for("no Job", lambda: not place.jobs())
    place.apply("second")
    status = place.until("second", "Succeeded")
    assert condition(status, "CacheHit")["status"] == "True"
    assert (status["cached"], place.jobs(), place.kubelet.pods(place.namespace)) == (True, [], [])


def test_a_result_that_no_key_has_signed_is_none_and_is_told_and_made_anew(place, tmp_path):
    place.start()
    place.apply("forged")
    with place.working():
        place.until("forged", "Succeeded")
        place.delete("forged")
        wait_for("no Job", lambda: not place.jobs())
        place.stop()
        for entry in list(place.backend.list("w/")):  # else it is committed again from its shards
            place.backend.delete(entry.name)
        (tmp_path / "keys").write_text(f"one {'6e' * 32}")
        place.cluster_changes["signing"] = Signing(key_file=str(tmp_path / "keys"), required=True)
        place.start()
        place.apply("real")
        status = place.until("real", "Succeeded")
        assert condition(status, "CacheHit")["status"] == "False"
        told = place.api.must("GET", f"/apis/events.k8s.io/v1/namespaces/{place.namespace}/events")["items"]
        (event,) = [event for event in told if event["reason"] == "UnsignedCommit"]
        assert "is not signed" in event["note"]
        place.apply("again")
        assert condition(place.until("again", "Succeeded"), "CacheHit")["status"] == "True"
    (record,) = [place.backend.get(name)[0] for name in place.commits()]
    assert json.loads(record)["signature"]["keyId"] == "one"


def test_modes_run_in_order_and_a_test_reads_what_train_made(place):
    place.start()
    place.apply("both", machineParams={"train": {"nprocesses": 1}, "test": {"nprocesses": 3}})
    with place.working():
        status = place.until("both", "Succeeded")
    train, test = status["modes"]["train"], status["modes"]["test"]
    assert (train["total"], test["total"]) == (1, 3)
    env = {
        entry["name"]: entry.get("value")
        for job in place.jobs()
        for entry in job["spec"]["template"]["spec"]["containers"][0]["env"]
        if "-test-" in job["metadata"]["name"]
    }
    assert train["manifest"] in env["RUNONCE_INPUTS"]


def test_a_failed_attempt_is_charged_and_the_next_one_takes_its_name(place):
    place.start()
    place.apply("flaky", retries=1)

    with place.working(first_fails()):
        status = place.until("flaky", "Succeeded")
    assert status["modes"]["train"]["attempt"] == 2
    assert len(place.jobs()) == 1


def test_more_failures_than_retries_end_it_with_the_reason(place):
    place.start()
    place.apply("bad", retries=0)
    pods = place.pods(2)
    for pod in pods:
        place.kubelet.start(pod)
    place.kubelet.end(pods[1], 3, message="Traceback\nValueError: no such file")
    with place.kubelet.playing(place.namespace, lambda pod: None):
        status = place.until("bad", "Failed")
    failure = status["modes"]["train"]["failure"]
    assert (failure["index"], failure["exitCode"], failure["logTail"]) == (1, 3, "Traceback\nValueError: no such file")
    assert "no such file" in status["message"]
    assert condition(status, "Stalled")["status"] == "True"
    kept = newest_failure(place.backend, place.key("bad"))
    assert (kept.name, kept.mode, kept.failures[0].log_tail) == ("bad", "train", failure["logTail"])


def test_a_rank_that_hangs_is_named_and_not_the_one_that_lost_it(place):
    """Its pod still runs when the Job begins to fail, and has to be killed; nothing of it is left then."""
    place.start()
    place.apply("hangs", retries=0)
    pods = place.pods(2)
    for pod in pods:
        place.kubelet.start(pod)
    place.kubelet.end(
        pods[0], 76, message="error (LostPeer): train, process 0 of 2: another process is gone or hangs: x"
    )
    # A pod that is gone before anybody looked may as well have been the first to go.
    wait_for("a look at them", lambda: place.reason("hangs") == "Failing")
    with place.kubelet.playing(place.namespace, lambda pod: None):
        status = place.until("hangs", "Failed")
    assert (status["modes"]["train"]["failure"]["index"], condition(status, "Failed")["reason"]) == (1, "Hung")
    assert "process 1 ended with Hung" in status["message"]
    assert "another process is gone or hangs" in status["message"]
    assert newest_failure(place.backend, place.key("hangs")).failures[0].reason == "Hung"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (78, "CodeError"),
        (78, "ContractTooNew"),
        (1, "AccessDenied"),
        (1, "BadCredentials"),
        (1, "ClockSkew"),
        (1, "StoreFailed"),
        (1, "StoreFull"),
        (1, "TooManyStops"),
        (79, "Stalled"),
    ],
)
def test_what_the_worker_named_is_the_condition(place, code, reason):
    place.start()
    place.apply("told", retries=0, params={"lr": reason})
    for pod in place.pods(2):
        place.kubelet.start(pod)
        place.kubelet.end(pod, code, message=f"warning: x\nerror ({reason}): the cause.\nThe way out.")
    status = place.until("told", "Failed")
    assert condition(status, "Failed")["reason"] == reason
    assert f"(exit code {code}): the cause.\nThe way out." in status["message"]


def test_a_rerun_makes_it_anew_once_for_each_text(place):
    place.start()
    place.apply("again")
    with place.working():
        first = place.until("again", "Succeeded")["modes"]["train"]
        place.apply("again", annotations={"runonce.dev/rerun": "monday"})
        wait_for("another attempt", lambda: place.status("again")["modes"]["train"].get("jobUid") != first["jobUid"])
        place.until("again", "Succeeded")
    uid = place.job()["metadata"]["uid"]
    place.apply("again", annotations={"runonce.dev/rerun": "monday", "other": "x"})
    place.stop()
    place.start()
    place.until("again", "Succeeded")
    assert place.job()["metadata"]["uid"] == uid


def test_two_experiments_of_one_key_share_one_job_which_lives_for_the_second(place):
    place.start()
    place.apply("one")
    place.pods(2)
    place.apply("two", retries=5)
    wait_for("two owners", lambda: len(place.job()["metadata"]["ownerReferences"]) == 2)
    wait_for("the word", lambda: (condition(place.status("two"), "Accepted") or {}).get("reason") == "SharedJob")
    place.delete("one", "Foreground")
    wait_for("one owner", lambda: len(place.job()["metadata"]["ownerReferences"]) == 1)
    with place.working():
        place.until("two", "Succeeded")
    assert len(place.commits()) == 1


def test_the_last_owner_takes_the_job_along(place):
    place.start()
    place.apply("gone")
    place.job()
    place.delete("gone")
    with place.kubelet.playing(place.namespace, lambda pod: None):
        wait_for("no Job", lambda: not place.jobs())


def test_an_edit_of_the_key_lets_go_of_the_old_job(place):
    place.start()
    place.apply("edited", params={"lr": 1})
    old = place.job()["metadata"]["name"]
    place.apply("edited", params={"lr": 2})
    with place.working():
        status = place.until("edited", "Succeeded")
        wait_for("one Job", lambda: [j["metadata"]["name"] for j in place.jobs()] == [status["job"]])
    assert status["job"] != old


def test_suspension_stops_the_pods_and_resume_goes_on(place):
    place.start()
    place.apply("paused")
    place.pods(2)
    place.apply("paused", suspend=True)
    place.until("paused", "Suspended")
    assert place.job()["spec"]["suspend"] is True
    place.apply("paused", suspend=False)
    with place.working():
        place.until("paused", "Succeeded")
    assert len(place.commits()) == 1


def test_a_suspension_is_no_failure_however_slowly_pods_go(place):
    place.start()
    place.apply("paused")
    place.kubelet.lingers_s = 1.5
    with place.kubelet.playing(place.namespace, lambda pod: None):
        place.until("paused", "Running")
        for _ in range(2):
            place.apply("paused", suspend=True)
            place.until("paused", "Suspended")
            wait_for("no pod", lambda: not place.kubelet.pods(place.namespace))
            place.apply("paused", suspend=False)
            place.until("paused", "Running")
    mode = place.status("paused")["modes"]["train"]
    assert (mode["attempt"], mode.get("disruptions", 0)) == (1, 0)


def test_a_job_that_fails_as_it_is_suspended_is_replaced(place):
    """It can never be Failed: the API server wants a start time for that, and suspension takes it away."""
    place.start()
    place.apply("paused", retries=1)
    pods = place.pods(2)
    for pod in pods:
        place.kubelet.start(pod)
    place.until("paused", "Running")
    place.kubelet.end(pods[0], 1)
    job = f"{place.jobs_path}/{place.job()['metadata']['name']}"
    place.api.must("PATCH", job, {"spec": {"suspend": True}}, content="application/merge-patch+json")
    with place.working():
        assert place.until("paused", "Succeeded")["modes"]["train"]["attempt"] == 2


def test_a_job_that_someone_deletes_is_made_again_after_its_pods_have_ended(place):
    place.start()
    place.apply("robbed")
    pods = place.pods(2)
    for pod in pods:
        place.kubelet.start(pod)
    name = place.job()["metadata"]["name"]
    place.api.must("DELETE", f"{place.jobs_path}/{name}", {"propagationPolicy": "Background"})
    wait_for("a wait", lambda: place.status("robbed")["modes"]["train"].get("reason") == "WaitingForPods")
    with place.working():
        status = place.until("robbed", "Succeeded")
    assert status["modes"]["train"]["attempt"] == 2


def test_the_time_to_live_is_set_after_the_commit(place):
    place.start()
    place.apply("short", ttlSecondsAfterFinished=3600)
    assert "ttlSecondsAfterFinished" not in place.job()["spec"]
    with place.working():
        place.until("short", "Succeeded")
    assert place.job()["spec"]["ttlSecondsAfterFinished"] == 3600


def test_a_namespace_that_is_deleted_goes_though_a_pod_of_it_still_runs(place):
    """Without the controller it would stay: its pods go first, and the Job holds the last one until it has another."""
    place.start()
    place.apply("closing", machineParams={"train": {"nprocesses": 1, "coupled": False}})
    place.job()
    with place.kubelet.playing(place.namespace, lambda _: None):
        wait_for("a running pod", lambda: place.status("closing").get("phase") == "Running")
        path = f"/api/v1/namespaces/{place.namespace}"
        place.api.must("DELETE", path)
        wait_for("the end", lambda: place.api.request("GET", path).status == 404, within_s=120)


def test_what_failed_for_good_stays_failed_with_its_job_and_pods(place):
    """Whatever its processes' exit says: a reason of theirs is never taken for trouble with the store."""
    place.start()
    place.apply("broken", retries=0)
    uid = place.job()["metadata"]["uid"]
    with place.kubelet.playing(place.namespace, lambda _: 1):
        place.until("broken", "Failed")
    place.stop()
    place.start()
    place.apply("other", params={"lr": 0.5})
    wait_for("the other's Job", lambda: len(place.jobs()) == 2)
    assert uid in {job["metadata"]["uid"] for job in place.jobs()}
    assert place.status("broken")["phase"] == "Failed"
    assert place.status("broken")["modes"]["train"]["attempt"] == 1


def test_pods_that_do_not_start_show_why_and_heal(place):
    place.start()
    place.apply("stuck")
    place.job()
    for pod in place.kubelet.pods(place.namespace):
        place.kubelet.hold(pod, "ImagePullBackOff", 'Back-off pulling image "example.org/digits:1"')
    wait_for(
        "the reason",
        lambda: place.status("stuck").get("modes", {}).get("train", {}).get("reason") == "ImageUnavailable",
    )
    assert place.status("stuck")["phase"] == "Pending"
    assert 'ImagePullBackOff: Back-off pulling image "example.org/digits:1"' in place.status("stuck")["message"]
    with place.working():
        status = place.until("stuck", "Succeeded", within_s=120)
    assert status["modes"]["train"]["reason"] == "Succeeded"


def test_a_start_deadline_says_what_kept_the_pods_from_starting(place):
    place.start()
    place.apply("late", startDeadlineSeconds=5)
    for pod in place.pods(2):
        place.kubelet.hold(pod, "ImagePullBackOff", 'Back-off pulling image "example.org/digits:1"')
    message = place.until("late", "Failed")["message"]
    assert message.startswith("the Job ended with StartDeadlineExceeded: pod digits-train-")
    assert message.endswith('ImagePullBackOff: Back-off pulling image "example.org/digits:1"')


@pytest.mark.parametrize("propagation", ["Background", "Foreground", "Orphan"])
def test_a_deleted_experiment_is_left_alone(place, propagation):
    place.start()
    place.apply("gone")
    place.job()
    place.delete("gone", propagation)
    wait_for("its end", lambda: place.api.get(f"{place.experiments}/gone") is None)
    if propagation == "Orphan":
        place.apply("heir")
        wait_for("its adoption", lambda: place.job()["metadata"].get("ownerReferences"))
        with place.working():
            place.until("heir", "Succeeded")
