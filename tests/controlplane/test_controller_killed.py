"""SIGKILL before every write of every path, on the API server and in the store; another controller goes on.

Whatever was done last: the result is made once, no attempt is counted that was none, and no commit is replaced.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from control_plane import CONTROLLER
from doomed_driver import Doomed
from place import Place, publish

EVERYTHING = "RUNONCE_PROVE" in os.environ


@pytest.fixture
def doomed(place, tmp_path) -> Iterator[Doomed]:
    made = Doomed(place, tmp_path)
    yield made
    made.close()


@dataclass
class Story:
    """begin: what a user asks for. drive: called again and again; true when the user has what was wanted.

    ends: what becomes of a pod. attempts: Jobs that are to be made, neither more nor less. commits: results.
    """

    begin: Callable[[Place, str, float], object]
    attempts: int = 1
    commits: int = 1
    ends: Callable[[Place, str, dict[str, Any]], int | None] = lambda place, name, pod: 0
    drive: Callable[[Place, str, float], bool] = lambda place, name, lr: place.phase(name) == "Succeeded"


def fails_once(place: Place, name: str, pod: dict[str, Any]) -> int:
    jobs = {job["metadata"]["uid"]: job for job in place.jobs()}
    job = jobs.get(pod["metadata"]["labels"]["batch.kubernetes.io/controller-uid"])
    first = job is not None and '"attempt":1' in job["metadata"]["annotations"]["runonce.dev/round"]
    return 3 if first else 0


def again(place: Place, name: str, lr: float) -> bool:
    status = place.status(name)
    if place.phase(name) != "Succeeded":
        return False
    if status.get("rerun") != "once more":
        place.apply(name, params={"lr": lr}, annotations={"runonce.dev/rerun": "once more"})
        return False
    return True


def edited(place: Place, name: str, lr: float) -> bool:
    """As soon as the first Job is there its key is edited away."""
    spec = place.get(name)["spec"]
    own = [job for job in place.jobs() if job["metadata"]["labels"].get("runonce.dev/experiment") == name]
    if spec["params"]["lr"] == lr and own:
        place.apply(name, params={"lr": lr + 0.5})
        return False
    return spec["params"]["lr"] != lr and place.phase(name) == "Succeeded" and len(own) == 1


def shared(place: Place, name: str, lr: float) -> bool:
    """A second owner joins the Job; then the first one goes."""
    other, owners = f"{name}-other", [o["name"] for job in place.jobs() for o in job["metadata"]["ownerReferences"]]
    if name in owners and place.api.get(f"{place.experiments}/{other}") is None:
        place.apply(other, params={"lr": lr})
    if {name, other} <= set(owners) and place.get(name)["metadata"].get("labels") is None:
        place.api.must(
            "PATCH",
            f"{place.experiments}/{name}",
            {"metadata": {"labels": {"shared": "yes"}}},
            content="application/merge-patch+json",
        )
    return all(place.api.get(f"{place.experiments}/{n}") and place.phase(n) == "Succeeded" for n in (name, other))


def stands_still(place: Place, name: str) -> bool:
    jobs = [job for job in place.jobs() if job["metadata"]["labels"].get("runonce.dev/experiment") == name]
    return all(not job["status"].get("active") and not job["status"].get("terminating") for job in jobs)


def paused(place: Place, name: str, lr: float) -> bool:
    """Suspended as soon as it runs, and resumed when its pods are gone."""
    spec, status = place.get(name)["spec"], place.status(name)
    if "suspend" not in spec and status.get("phase") == "Running":
        place.apply(name, params={"lr": lr}, suspend=True)
    elif spec.get("suspend") and place.phase(name) == "Suspended" and stands_still(place, name):
        place.apply(name, params={"lr": lr}, suspend=False)
    return spec.get("suspend") is False and place.phase(name) == "Succeeded"


STORIES = {
    "cold, with a time to live": Story(
        begin=lambda place, name, lr: place.apply(name, params={"lr": lr}, ttlSecondsAfterFinished=3600)
    ),
    "an attempt that fails": Story(
        begin=lambda place, name, lr: place.apply(name, params={"lr": lr}, retries=1), attempts=2, ends=fails_once
    ),
    "made once more": Story(
        begin=lambda place, name, lr: place.apply(name, params={"lr": lr}), attempts=2, drive=again
    ),
    "edited while it runs": Story(
        begin=lambda place, name, lr: place.apply(name, params={"lr": lr}),
        attempts=2,
        ends=lambda place, name, pod: None if place.get(name)["spec"]["params"]["lr"] % 1 == 0 else 0,
        drive=edited,
    ),
    "shared by two": Story(
        begin=lambda place, name, lr: place.apply(name, params={"lr": lr}),
        ends=lambda place, name, pod: 0 if place.get(name)["metadata"].get("labels") else None,
        drive=shared,
    ),
    "suspended and resumed": Story(
        begin=lambda place, name, lr: place.apply(name, params={"lr": lr}),
        ends=lambda place, name, pod: 0 if place.get(name)["spec"].get("suspend") is False else None,
        drive=paused,
    ),
    "train, then test": Story(
        begin=lambda place, name, lr: place.apply(
            name, params={"lr": lr}, machineParams={"train": {"nprocesses": 1}, "test": {"nprocesses": 1}}
        ),
        attempts=2,
        commits=2,
    ),
}
# How many moments each story has. A change of it is a change of what the controller writes: look at it.
MOMENTS = {
    "cold, with a time to live": 10,
    "an attempt that fails": 16,
    "made once more": 21,
    "edited while it runs": 13,
    "shared by two": 15,
    "suspended and resumed": 15,
    "train, then test": 16,
}


def play(place: Place, story: Story, name: str, lr: float, doomed: Doomed, die_at: int) -> bool:
    """The story with a controller that dies there; then with one that lives. Whether it died."""
    position = place.plane.audit_position()
    before = set(place.commits())
    story.begin(place, name, lr)

    def ends(pod: dict[str, Any]) -> int | None:
        if place.status(name).get("phase") != "Running":
            return None  # so that every controller writes it, and the moments are the same each time
        code = story.ends(place, name, pod)
        if code == 0:
            publish(place.backend, pod)
        return code

    died = False
    with place.kubelet.playing(place.namespace, ends):
        doomed.start(die_at)
        deadline = time.monotonic() + 120
        while not story.drive(place, name, lr):
            if not died and doomed.died():
                died = True
                doomed_writes = doomed.writes()
                doomed.start(-1)
            assert time.monotonic() < deadline, (place.status(name), die_at, doomed.writes())
            time.sleep(0.05)
        doomed.end()
    made = [
        call
        for call in place.plane.calls(CONTROLLER, since=position)
        if call["verb"] == "create"
        and call["objectRef"]["resource"] == "jobs"
        and call["responseStatus"]["code"] == 201
    ]
    assert len(made) == story.attempts, (die_at, doomed_writes if died else doomed.writes())
    assert len(set(place.commits()) - before) == story.commits
    train = place.status(name)["modes"]["train"]
    assert train["cacheHit"] is False
    return died


@pytest.mark.parametrize("title", STORIES)
def test_a_controller_that_is_killed_anywhere_is_gone_on_from(place, doomed, title):
    if not EVERYTHING and title != "cold, with a time to live":
        pytest.skip("the longer stories are part of `make prove`")
    story = STORIES[title]
    lr = 1.0
    died = 0
    for die_at in range(100):
        name = f"story-{die_at}"
        if not play(place, story, name, lr + 10 * die_at, doomed, die_at):
            break
        died += 1
        place.delete(name)
    writes = moments(doomed.writes())
    print(f"{title}: {len(writes)} moments")
    assert len(writes) == MOMENTS[title], writes
    assert died >= len(writes)


def moments(writes: list[str]) -> list[str]:
    """Those up to the last status; what is written twice in a row is one.

    A POST is made again while the name is a lock, and a status in as many steps as the watch brings the news.
    """
    last = max(number for number, write in enumerate(writes) if write.endswith("/status"))
    return [write for number, write in enumerate(writes[: last + 1]) if not number or write != writes[number - 1]]
