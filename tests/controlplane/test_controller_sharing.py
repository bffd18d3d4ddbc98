"""One key, many who want it: Jobs that are shared, raced for, left and asked for once more."""

from __future__ import annotations

import json

import pytest
from control_plane import wait_for
from place import condition, first_fails

from runonce.controller import waits


def posted(place, since: int) -> int:
    """Jobs that were made."""
    return sum(
        call["verb"] == "create" and call["objectRef"]["resource"] == "jobs" and call["responseStatus"]["code"] == 201
        for call in place.calls(since)
    )


def owners(place) -> list[str]:
    return [owner["name"] for owner in place.job()["metadata"].get("ownerReferences", ())]


def test_of_twenty_controllers_that_race_for_each_attempt_one_wins(place):
    since = place.position()
    place.cluster_changes = {"workers": 1}
    for _ in range(20):
        place.start()
    place.apply("raced", retries=1)

    with place.working(first_fails()):
        status = place.until("raced", "Succeeded", within_s=120)
    assert status["modes"]["train"]["attempt"] == 2
    assert sum(json.loads(status["modes"]["train"]["round"])["charges"].values()) == 1
    assert (posted(place, since), len(place.jobs()), len(place.commits())) == (2, 1, 1)


def test_the_job_lives_for_a_second_owner_when_the_first_is_deleted_in_the_foreground(place):
    place.start()
    place.apply("one")
    uid = place.job()["metadata"]["uid"]
    pods = place.pods(2)
    for pod in pods:
        place.kubelet.start(pod)
    place.apply("two")
    wait_for("two owners", lambda: len(owners(place)) == 2)
    place.delete("one", "Foreground")
    wait_for("its end", lambda: place.api.get(f"{place.experiments}/one") is None)
    wait_for("one owner", lambda: owners(place) == ["two"])
    assert place.job()["metadata"]["uid"] == uid
    assert [pod["metadata"]["uid"] for pod in place.kubelet.pods(place.namespace)] == [
        p["metadata"]["uid"] for p in pods
    ]
    with place.working():
        status = place.until("two", "Succeeded")
    assert status["modes"]["train"]["attempt"] == 1


def test_a_shared_job_is_suspended_when_all_of_its_owners_say_so(place):
    place.start()
    place.apply("one")
    place.job()
    place.apply("two")
    wait_for("two owners", lambda: len(owners(place)) == 2)
    place.apply("one", suspend=True)
    place.until("one", "Suspended")
    assert not place.job()["spec"].get("suspend")
    place.apply("two", suspend=True)
    place.until("two", "Suspended")
    wait_for("a suspended Job", lambda: place.job()["spec"].get("suspend"))
    place.apply("two", suspend=False)
    with place.working():
        place.until("two", "Succeeded")
    assert len(place.commits()) == 1


def test_overwrite_makes_it_anew_once_for_each_object_and_key(place):
    since = place.position()
    place.start()
    place.apply("first")
    with place.working():
        place.until("first", "Succeeded")
        place.apply("again", overwrite=True)
        status = place.until("again", "Succeeded")
        assert (status["cached"], posted(place, since)) == (False, 2)
        place.apply("again", overwrite=True, ttlSecondsAfterFinished=7200)
        place.stop()
        place.start()
        place.until("again", "Succeeded")
        assert posted(place, since) == 2
        place.delete("again")
        wait_for("its end", lambda: place.api.get(f"{place.experiments}/again") is None)
        place.apply("again", overwrite=True)
        place.until("again", "Succeeded")
    assert (posted(place, since), len(place.commits())) == (3, 1)


def test_overwrite_and_a_rerun_are_honoured_both_and_together_by_one_run(place):
    since = place.position()
    place.start()
    rerun = {"runonce.dev/rerun": "monday"}
    with place.working():
        place.apply("both", annotations=rerun)
        place.until("both", "Succeeded")
        place.apply("both", annotations=rerun, overwrite=True)
        wait_for("the second", lambda: posted(place, since) == 2)
        place.until("both", "Succeeded")
        place.apply("both", overwrite=True)
        wait_for("the text gone", lambda: "rerun" not in place.status("both"))
        place.until("both", "Succeeded")
        assert posted(place, since) == 2
        place.apply("at-once", params={"lr": 7}, annotations=rerun, overwrite=True)
        place.until("at-once", "Succeeded")
        place.apply("at-once", params={"lr": 7}, overwrite=True)
        wait_for("the text gone", lambda: "rerun" not in place.status("at-once"))
        place.until("at-once", "Succeeded")
    assert posted(place, since) == 3


def test_a_rerun_while_the_job_runs_joins_it(place):
    since = place.position()
    place.start()
    place.apply("one")
    place.job()
    place.apply("one", annotations={"runonce.dev/rerun": "now"})
    wait_for("the token", lambda: "now" in place.job()["metadata"]["annotations"]["runonce.dev/round"])
    with place.working():
        place.until("one", "Succeeded")
    assert posted(place, since) == 1


@pytest.fixture
def south(place, monkeypatch):
    """Two namespaces with a controller each play two clusters, `place` and this: neither sees the other's Jobs."""
    monkeypatch.setattr(waits, "POLL_S", 0.5)
    place.cluster_changes = {"cluster": "north"}
    with place.plane.namespace() as other:
        made = type(place)(place.plane, other, place.folder, place.kubelet, cluster_changes={"cluster": "south"})
        try:
            yield made
        finally:
            made.stop()


def test_of_two_clusters_that_share_a_store_one_makes_it_also_while_its_controller_is_away(place, south):
    place.start()
    place.apply("shared")
    place.job()
    wait_for("its word", lambda: place.status("shared").get("job"))
    south.start()
    south.apply("shared")
    wait_for("a wait", lambda: south.reason("shared") == "OtherCluster")
    place.stop()
    place.apply("shared", ttlSecondsAfterFinished=3600)  # something to do for the next one
    assert (south.jobs(), south.phase("shared")) == ([], "Pending")
    place.start()
    with place.working():
        place.until("shared", "Succeeded")
    status = south.until("shared", "Succeeded")
    assert (condition(status, "CacheHit")["status"], south.jobs()) == ("True", [])


def test_a_resumed_job_needs_the_lease_again(place, south):
    place.start()
    place.apply("shared")
    place.job()
    place.apply("shared", suspend=True)
    place.until("shared", "Suspended")
    south.start()
    south.apply("shared")
    south.job()
    place.apply("shared", suspend=False)
    wait_for("a wait", lambda: place.reason("shared") == "OtherCluster")
    assert place.job()["spec"]["suspend"] is True
    with south.working():
        south.until("shared", "Succeeded")
    status = place.until("shared", "Succeeded")
    assert condition(status, "CacheHit")["status"] == "True"
    wait_for("no Job", lambda: not place.jobs())
