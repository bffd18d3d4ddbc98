"""How many API calls an Experiment costs, each path alone, counted in the server's own audit log."""

from __future__ import annotations

from collections import Counter

import pytest
from control_plane import wait_for
from place import publish

JOB, JOIN, STATUS, EVENT = "create jobs", "patch jobs", "patch experiments/status", "create events"


class Calls:
    """What the controller asked of the server since `begin`; watches and the election are no part of any path."""

    def __init__(self, place) -> None:
        self._place, self._position = place, 0
        self.begin()

    def begin(self) -> None:
        self._position = self._place.position()

    def made(self, name: str = "") -> Counter[str]:
        """Of one object, or of all; without events."""
        found = self._found()
        return Counter(what for what, of in found if what != EVENT and name in ("", of))

    def events(self) -> int:
        return sum(what == EVENT for what, _ in self._found())

    def _found(self) -> list[tuple[str, str]]:
        out = []
        for call in self._place.calls(self._position):
            ref = call["objectRef"]
            if call["verb"] != "watch" and ref["resource"] != "leases":
                kind = "/".join(filter(None, (ref["resource"], ref.get("subresource"))))
                out.append((f"{call['verb']} {kind}", ref.get("name", "")))
        return out


@pytest.fixture
def calls(place):
    """After a first run, which makes the namespace's Service and leaves the result of `lr: 1`."""
    place.start()
    place.apply("warm", params={"lr": 1})
    with place.working():
        place.until("warm", "Succeeded")
    return Calls(place)


ALONE = {"train": {"nprocesses": 1}}  # of two the Job controller may see one done before the other, and that is news


def end_all(place) -> None:
    """The pod publishes and ends before anybody sees it run."""

    def waiting():
        pods = [pod for pod in place.kubelet.pods(place.namespace) if pod["status"].get("phase") == "Pending"]
        return pods if len(pods) == 1 else None

    for pod in wait_for("pods", waiting):
        publish(place.backend, pod)
        place.kubelet.end(pod)


def test_a_hit_is_one_write_and_one_read_of_the_store(place, calls):
    (controller, _), *_ = place.controllers
    before = Counter(controller._calls)
    place.apply("hit", params={"lr": 1})
    place.until("hit", "Succeeded")
    assert (calls.made(), calls.events()) == ({STATUS: 1}, 0)
    assert controller._calls - before == {"get": 1}


@pytest.mark.parametrize("seconds", [None, 3600])
def test_a_cold_run_is_three_writes_and_one_more_with_a_time_to_live(place, calls, seconds):
    place.apply("cold", params={"lr": 2}, machineParams=ALONE, ttlSecondsAfterFinished=seconds)
    wait_for("its Job in the status", lambda: place.status("cold").get("job"))
    end_all(place)
    place.until("cold", "Succeeded")
    assert calls.made() == {JOB: 1, STATUS: 2} | ({JOIN: 1} if seconds else {})


def test_with_the_running_status_and_events_it_is_six_at_most(place, calls):
    place.apply("cold", params={"lr": 3})
    with place.working(lambda pod: 0 if place.status("cold").get("phase") == "Running" else None):
        place.until("cold", "Succeeded")
    wait_for("the event", calls.events)
    assert calls.made() == {JOB: 1, STATUS: 3}
    assert calls.events() == 1


def test_who_joins_makes_three_writes_and_the_creator_no_more_than_alone(place, calls):
    place.apply("first", params={"lr": 4}, machineParams=ALONE)
    wait_for("its Job in the status", lambda: place.status("first").get("job"))
    calls.begin()
    place.apply("second", params={"lr": 4}, machineParams=ALONE)
    wait_for("its Job in the status", lambda: place.status("second").get("job"))
    end_all(place)
    for name in ("first", "second"):
        place.until(name, "Succeeded")
    assert calls.made() == {JOIN: 1, STATUS: 3}
    assert (calls.made("second"), calls.made("first")) == ({STATUS: 2}, {STATUS: 1})


def test_deletion_costs_nothing(place, calls):
    calls.begin()
    place.delete("warm")
    wait_for("no Job", lambda: not place.jobs())
    place.apply("hit", params={"lr": 1})
    place.until("hit", "Succeeded")
    assert calls.made() == {STATUS: 1}


def test_a_restart_with_everything_done_writes_nothing(place, calls):
    place.apply("hit", params={"lr": 1})
    place.until("hit", "Succeeded")
    place.stop()
    calls.begin()
    controller = place.start()
    wait_for("both passes", lambda: controller._world.counted["passes"] >= 2)
    place.apply("mark", params={"lr": 1})
    place.until("mark", "Succeeded")
    writes = {what: count for what, count in calls.made().items() if not what.startswith("list")}
    assert writes == {STATUS: 1}
