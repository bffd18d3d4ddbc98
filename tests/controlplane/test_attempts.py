"""Attempts on a real Job controller: groups that fail as one, indexes that are tried alone, what is charged and what commits."""

from __future__ import annotations

from collections import Counter
from typing import Any

from control_plane import wait_for
from kubelet import index_of
from place import publish

from runonce.experiment.contract import STOPS


def attempt_of(place, name: str) -> int:
    return place.status(name)["modes"]["train"]["attempt"]


def rounds(pods) -> set[str]:
    return {
        entry["value"]
        for pod in pods
        for entry in pod["spec"]["containers"][0]["env"]
        if entry["name"] == "RUNONCE_ROUND"
    }


def independent(**more):
    return {"machineParams": {"train": {"nprocesses": 2, "coupled": False}}, **more}


def test_a_lost_rank_ends_its_group_and_the_next_attempt_is_of_the_same_round(place):
    """Checkpoints belong to the round, so it goes on from the newest."""
    place.start()
    place.apply("group", retries=1)
    first = place.pods(2)
    for pod in first:
        place.kubelet.start(pod)
    uid = place.job()["metadata"]["uid"]
    place.kubelet.end(first[1], 3)
    wait_for("the other's end", lambda: "deletionTimestamp" in place.kubelet.pods(place.namespace)[0]["metadata"])
    assert place.job()["metadata"]["uid"] == uid  # no next attempt beside a pod that still lives
    with place.working(lambda pod: 0 if pod["metadata"]["uid"] not in {p["metadata"]["uid"] for p in first} else None):
        place.until("group", "Succeeded")
        second = [pod for pod in place.kubelet.pods(place.namespace) if pod["status"].get("phase") == "Succeeded"]
    assert (attempt_of(place, "group"), rounds(second)) == (2, rounds(first))
    assert len(rounds(first)) == 1


def test_an_eviction_is_not_charged_to_a_group(place):
    place.start()
    place.apply("evicted", retries=0)
    pods = place.pods(2)
    for pod in pods:
        place.kubelet.start(pod)
    place.kubelet.disrupt(pods[0])
    place.kubelet.end(pods[0], 143)
    with place.working(lambda pod: 0 if attempt_of(place, "evicted") == 2 else None):
        place.until("evicted", "Succeeded")
    assert attempt_of(place, "evicted") == 2


def test_a_stop_after_a_saved_checkpoint_is_not_charged_to_a_group(place):
    place.start()
    place.apply("stopped", retries=0)
    with place.working(lambda pod: 0 if attempt_of(place, "stopped") == 3 else 75):
        place.until("stopped", "Succeeded")


def test_an_index_that_fails_is_tried_again_alone(place):
    place.start()
    place.apply("alone", **independent(retries=1))
    tries: Counter[int] = Counter()
    seen = set()

    def once(pod):
        if pod["metadata"]["uid"] not in seen:
            seen.add(pod["metadata"]["uid"])
            tries[index_of(pod)] += 1
        return 3 if index_of(pod) == 1 and tries[1] == 1 else 0

    with place.working(once):
        place.until("alone", "Succeeded")
    assert (tries, attempt_of(place, "alone")) == ({0: 1, 1: 2}, 1)


def test_an_index_that_is_evicted_or_stopped_is_tried_again_without_charge(place):
    place.start()
    place.apply("again", **independent(retries=0))
    pods = place.pods(2)
    for pod in pods:
        place.kubelet.start(pod)
    place.kubelet.disrupt(pods[0])
    place.kubelet.end(pods[0], 143)
    place.kubelet.end(pods[1], 75)
    first = {pod["metadata"]["uid"] for pod in pods}
    with place.working(lambda pod: 0 if pod["metadata"]["uid"] not in first else None):
        place.until("again", "Succeeded")
    assert attempt_of(place, "again") == 1
    again = [pod for pod in place.kubelet.pods(place.namespace) if pod["metadata"]["uid"] not in first]
    assert [_variable(pod, STOPS) for pod in again] == ["1", "1"]  # which a worker that stops unasked goes by


def _variable(pod: dict[str, Any], name: str) -> str:
    """As the kubelet gives it, by the downward API."""
    path = next(
        entry["valueFrom"]["fieldRef"]["fieldPath"]
        for entry in pod["spec"]["containers"][0]["env"]
        if entry["name"] == name
    )
    return str(pod["metadata"]["annotations"].get(path.split("'")[1], ""))


def test_nothing_is_committed_before_the_last_shard_is_there(place):
    place.start()
    place.apply("half", retries=1)
    pods = place.pods(2)
    for pod in pods:
        place.kubelet.start(pod)
    publish(place.backend, pods[0])
    for pod in pods:
        place.kubelet.end(pod, 0)  # the second says that it is done, and has left nothing
    wait_for("the next attempt", lambda: attempt_of(place, "half") == 2)
    assert place.commits() == []
    with place.working():
        place.until("half", "Succeeded")
    assert len(place.commits()) == 1


def test_a_group_that_fails_after_its_last_shard_has_a_result_and_no_next_attempt(place):
    """What is paid for and published is not made again."""
    place.start()
    place.apply("late", retries=1)
    pods = place.pods(2)
    for pod in pods:
        place.kubelet.start(pod)
        publish(place.backend, pod)
    place.kubelet.end(pods[1], 139)
    with place.kubelet.playing(place.namespace, lambda pod: None):
        place.until("late", "Succeeded")
    assert attempt_of(place, "late") == 1


def test_after_a_failure_an_edit_goes_on_in_the_same_round_and_a_rerun_in_a_new_one(place):
    """With more memory, or another image of the same code: what was saved and published is not made again."""
    place.start()
    seen: dict[str, set[str]] = {}

    def ends(pod):
        image = pod["spec"]["containers"][0]["image"]
        seen.setdefault(image, set()).update(rounds([pod]))
        return 0 if image == "three" else 3

    with place.working(ends):
        place.apply("mended", retries=0, image="one")
        place.until("mended", "Failed")
        place.apply("mended", retries=0, image="two")
        place.until("mended", "Failed")
        place.apply("mended", retries=0, image="three", annotations={"runonce.dev/rerun": "anew"})
        place.until("mended", "Succeeded")
    assert seen["one"] == seen["two"]
    assert seen["three"].isdisjoint(seen["one"])
