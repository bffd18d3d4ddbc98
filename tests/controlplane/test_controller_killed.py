"""SIGKILL before every write of every path, on the API server and in the store; another controller goes on.

Whatever was done last, the end is that of the same story undisturbed: as many Jobs, as many results, the same words in the
status. `make prove` kills at every write, here each story but the first at two of them.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from doomed_driver import Doomed
from place import Place, publish
from recorder import Recorder

from runonce.experiment.manifest import Commit
from runonce.kube.job_state import decode_round

EVERYTHING = "RUNONCE_PROVE" in os.environ
ONE = {"train": {"nprocesses": 1}}
BOTH = {"train": {"nprocesses": 1}, "test": {"nprocesses": 1}}
MERGE = "application/merge-patch+json"


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


def begin(**changes: Any) -> Callable[[Place, str, float], object]:
    return lambda place, name, lr: place.apply(name, params={"lr": lr}, **changes)


def spec_of(place: Place, name: str) -> dict[str, Any]:
    found: dict[str, Any] = place.get(name)["spec"]
    return found


def round_of(place: Place, pod: dict[str, Any]) -> str:
    """The record of the pod's Job; empty where that is gone."""
    uid = pod["metadata"]["labels"]["batch.kubernetes.io/controller-uid"]
    rounds = (j["metadata"]["annotations"]["runonce.dev/round"] for j in place.jobs() if j["metadata"]["uid"] == uid)
    return next(rounds, "")


def jobs_of(place: Place, name: str) -> list[dict[str, Any]]:
    return [job for job in place.jobs() if job["metadata"]["labels"].get("runonce.dev/experiment") == name]


def fails_once(place: Place, name: str, pod: dict[str, Any]) -> int:
    return 3 if '"attempt":1' in round_of(place, pod) else 0


def again(place: Place, name: str, lr: float) -> bool:
    status = place.status(name)
    if place.phase(name) != "Succeeded":
        return False
    if status.get("rerun") != "once more":
        place.apply(name, params={"lr": lr}, annotations={"runonce.dev/rerun": "once more"})
        return False
    return True


def overwritten(place: Place, name: str, lr: float) -> bool:
    if place.phase(name) != "Succeeded":
        return False
    if not spec_of(place, name).get("overwrite"):
        place.apply(name, params={"lr": lr}, overwrite=True)
        return False
    return True


def edited(place: Place, name: str, lr: float) -> bool:
    """As soon as the status names the first Job its key is edited away."""
    spec, own = spec_of(place, name), jobs_of(place, name)
    if spec["params"]["lr"] == lr and place.status(name).get("job"):
        place.apply(name, params={"lr": lr + 0.5})
        return False
    return spec["params"]["lr"] != lr and place.phase(name) == "Succeeded" and len(own) == 1


def corrected(place: Place, name: str, lr: float) -> bool:
    """While it runs it is edited into something that this cluster does not have; then into something else."""
    profile, status = spec_of(place, name).get("profile"), place.status(name)
    if profile is None and status.get("phase") == "Running":
        place.apply(name, params={"lr": lr}, profile="huge")
    elif profile == "huge" and place.phase(name) == "Failed" and not jobs_of(place, name):
        place.apply(name, params={"lr": lr}, profile="big")
    return profile == "big" and place.phase(name) == "Succeeded"


def shared(place: Place, name: str, lr: float) -> bool:
    """A second owner joins the Job; then its pods may end."""
    other, owners = f"{name}-other", [o["name"] for job in place.jobs() for o in job["metadata"]["ownerReferences"]]
    if name in owners and place.api.get(f"{place.experiments}/{other}") is None:
        place.apply(other, params={"lr": lr})
    if {name, other} <= set(owners) and place.get(name)["metadata"].get("labels") is None:
        mark(place, name)
    return all(place.api.get(f"{place.experiments}/{n}") and place.phase(n) == "Succeeded" for n in (name, other))


def mark(place: Place, name: str) -> None:
    place.api.must("PATCH", f"{place.experiments}/{name}", {"metadata": {"labels": {"m": "yes"}}}, content=MERGE)


def robbed(place: Place, name: str, lr: float) -> bool:
    """As soon as it runs its Job is deleted, as `kubectl delete job` does it."""
    if place.get(name)["metadata"].get("labels") is None and place.status(name).get("phase") == "Running":
        mark(place, name)
        (job,) = jobs_of(place, name)
        place.api.must("DELETE", f"{place.jobs_path}/{job['metadata']['name']}", {"propagationPolicy": "Background"})
    return place.phase(name) == "Succeeded"


def evicted_once(place: Place, name: str, pod: dict[str, Any]) -> int:
    if '"attempt":1' not in round_of(place, pod):
        return 0
    place.kubelet.disrupt(pod)
    return 143


def finds_damage_once(place: Place, name: str, pod: dict[str, Any]) -> int:
    healed = any("damaged-" in job["metadata"]["annotations"]["runonce.dev/round"] for job in jobs_of(place, name))
    return 77 if "-test-" in pod["metadata"]["name"] and not healed else 0


def stands_still(place: Place, name: str) -> bool:
    jobs = jobs_of(place, name)
    return all(not job["status"].get("active") and not job["status"].get("terminating") for job in jobs)


def paused(place: Place, name: str, lr: float) -> bool:
    """Suspended as soon as it runs, and resumed when its pods are gone."""
    spec, status = spec_of(place, name), place.status(name)
    if "suspend" not in spec and status.get("phase") == "Running":
        place.apply(name, params={"lr": lr}, suspend=True)
    elif spec.get("suspend") and place.phase(name) == "Suspended" and stands_still(place, name):
        place.apply(name, params={"lr": lr}, suspend=False)
    return spec.get("suspend") is False and place.phase(name) == "Succeeded"


def queued(place: Place, name: str, lr: float) -> bool:
    """As `paused`, with a queue, which admits every Job that waits."""
    spec, status, given = spec_of(place, name), place.status(name), {"params": {"lr": lr}, "queueName": "research"}
    if "suspend" not in spec and status.get("phase") == "Running":
        place.apply(name, suspend=True, **given)
    elif spec.get("suspend") and place.phase(name) == "Suspended" and not jobs_of(place, name):
        place.apply(name, suspend=False, **given)
    elif not spec.get("suspend"):
        for job in jobs_of(place, name):
            if job["spec"].get("suspend"):
                path = f"{place.jobs_path}/{job['metadata']['name']}"
                place.api.must("PATCH", path, {"spec": {"suspend": False}}, content=MERGE)
    return spec.get("suspend") is False and place.phase(name) == "Succeeded"


def when_resumed(place: Place, name: str, pod: dict[str, Any]) -> int | None:
    return 0 if spec_of(place, name).get("suspend") is False else None


def has_failed(place: Place, name: str, lr: float) -> bool:
    return place.phase(name) == "Failed"


STORIES = {
    "cold, with a time to live": Story(begin(ttlSecondsAfterFinished=3600)),
    "an attempt that fails": Story(begin(retries=1), attempts=2, ends=fails_once),
    "a failure for good": Story(begin(retries=0), commits=0, ends=lambda place, name, pod: 3, drive=has_failed),
    "an eviction": Story(begin(retries=0, machineParams=ONE), attempts=2, ends=evicted_once),
    "its Job deleted by hand": Story(
        begin(),
        attempts=2,
        ends=lambda place, name, pod: 0 if '"attempt":2' in round_of(place, pod) else None,
        drive=robbed,
    ),
    "made once more": Story(begin(), attempts=2, drive=again),
    "overwritten": Story(begin(), attempts=2, drive=overwritten),
    "edited while it runs": Story(
        begin(),
        attempts=2,
        ends=lambda place, name, pod: None if spec_of(place, name)["params"]["lr"] % 1 == 0 else 0,
        drive=edited,
    ),
    "an edit that is refused, and corrected": Story(
        begin(),
        attempts=2,
        ends=lambda place, name, pod: 0 if spec_of(place, name).get("profile") == "big" else None,
        drive=corrected,
    ),
    "shared by two": Story(
        begin(),
        ends=lambda place, name, pod: 0 if place.get(name)["metadata"].get("labels") else None,
        drive=shared,
    ),
    "suspended and resumed": Story(begin(), ends=when_resumed, drive=paused),
    "queued, suspended and resumed": Story(begin(queueName="research"), attempts=2, ends=when_resumed, drive=queued),
    "train, then test": Story(begin(machineParams=BOTH), attempts=2, commits=2),
    "an input that is damaged": Story(
        begin(retries=0, machineParams=BOTH), attempts=4, commits=2, ends=finds_damage_once
    ),
}
# How many moments each story has. A change of it is a change of what the controller writes: look at it.
MOMENTS = {
    "cold, with a time to live": (8,),
    "an attempt that fails": (14,),
    "a failure for good": (6,),
    "an eviction": (14,),
    "its Job deleted by hand": (9,),
    "made once more": (17,),
    "overwritten": (17, 19),  # two more where the old Job still has the name, which is news after an edit
    "edited while it runs": (10,),
    "an edit that is refused, and corrected": (12,),
    "shared by two": (13,),
    "suspended and resumed": (11,),
    "queued, suspended and resumed": (11,),
    "train, then test": (12,),
    "an input that is damaged": (27,),
}
FIRST = next(iter(STORIES))


class Results:
    """The nonces of each record of a result, in the order in which they stood there."""

    def __init__(self, place: Place) -> None:
        self._place, self._before, self._lock = place, set(place.commits()), threading.Lock()
        self.nonces: dict[str, list[str]] = {}
        self._modes: dict[str, str] = {}

    def look(self) -> None:
        with self._lock:
            for name in set(self._place.commits()) - self._before:
                found = self._place.backend.get(name)
                commit = Commit.decode(found[0], name=name) if found is not None else None
                known = self.nonces.setdefault(name, [])
                if commit is not None and commit.nonce not in known[-1:]:
                    known.append(commit.nonce)
                    self._modes[name] = commit.mode

    def written(self) -> dict[str, int]:
        """How often, by mode."""
        return {self._modes[name]: len(nonces) for name, nonces in self.nonces.items()}


@dataclass
class End:
    """What a story left, without what depends on its times. told: reasons of events, which nobody makes up for."""

    jobs: int
    results: dict[str, int]
    said: dict[str, Any]
    left: list[Any]
    told: set[str] = field(compare=False)


def end_of(place: Place, name: str, made: set[str], results: Results) -> End:
    """made: uids of the Jobs."""
    there = {one["metadata"]["uid"]: one for one in place.api.must("GET", place.experiments)["items"]}
    names = {
        uid: one["metadata"]["name"].replace(name, "it")
        for uid, one in there.items()
        if one["metadata"]["name"] in (name, f"{name}-other")
    }
    jobs = [job for job in place.jobs() if job["metadata"]["uid"] in made]
    left = [_job(job, names) for job in jobs if "deletionTimestamp" not in job["metadata"]]
    said = {names[uid]: _status(there[uid]["status"], names) for uid in names}
    events = place.api.must("GET", f"/apis/events.k8s.io/v1/namespaces/{place.namespace}/events")["items"]
    told = {event["reason"] for event in events if (event.get("regarding") or {}).get("uid") in names}
    return End(len(made), results.written(), said, sorted(left, key=str), told)


def _job(job: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    meta, spec = job["metadata"], job["spec"]
    return {
        "owners": [names.get(owner["uid"], "?") for owner in meta["ownerReferences"]],
        "round": _round(meta["annotations"]["runonce.dev/round"], names),
        "ttl": spec.get("ttlSecondsAfterFinished"),
        "suspend": spec.get("suspend", False),
    }


def _status(status: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {
        "phase": status["phase"],
        "cached": status.get("cached"),
        "history": [(entry["mode"], entry["phase"]) for entry in status.get("history", ())],
        "conditions": {entry["type"]: (entry["status"], entry["reason"]) for entry in status["conditions"]},
        "modes": {mode: _mode(found, names) for mode, found in status["modes"].items()},
    }


def _mode(mode: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    same = ("phase", "reason", "attempt", "cacheHit", "total", "succeeded", "active")
    failure = mode.get("failure", {})  # which of two pods that fail ends first is a matter of time
    return {
        **{name: mode.get(name) for name in same},
        "failure": {name: failure.get(name) for name in ("exitCode", "reason", "logTail", "attempt")},
        "round": _round(mode["round"], names) if mode.get("round") else None,
    }


def _round(text: str, names: dict[str, str]) -> dict[str, Any]:
    found = decode_round(text)
    return {
        "attempt": found.attempt,
        "charges": {names.get(uid, "?"): charged for uid, charged in found.charges.items()},
        "disruptions": found.disruptions,
        "deletions": found.deletions,
        "verdict": found.verdict,
        "replaces": bool(found.replaces),
        "tokens": [token.partition("-")[0] if token.startswith("damaged-") else "asked" for token in found.tokens],
    }


def play(place: Place, story: Story, number: int, doomed: Doomed, die_at: int) -> tuple[bool, End]:
    """The story with a controller that dies there; then with one that lives. Whether it died, and the end."""
    name, lr = f"story-{number}", 1.0 + 10 * number
    results, recorder = Results(place), Recorder(place.plane, place.jobs_path)
    story.begin(place, name, lr)

    def ends(pod: dict[str, Any]) -> int | None:
        if place.status(name).get("phase") != "Running":
            return None  # so that every controller writes it, and the moments are the same each time
        results.look()
        code = story.ends(place, name, pod)
        if code == 0:
            publish(place.backend, pod)
        return code

    died, done_at, begun = False, 0.0, time.monotonic()
    with place.kubelet.playing(place.namespace, ends):
        doomed.start(die_at)
        # After the last status there may be an event, and that is a moment too.
        while not done_at or (die_at >= 0 and not died and time.monotonic() < done_at + 0.5):
            results.look()
            if story.drive(place, name, lr):
                done_at = done_at or time.monotonic()
            if not died and doomed.died():
                died, done_at = True, 0.0
                last_words = doomed.writes()
                doomed.start(-1)
            assert time.monotonic() < begun + 120, (place.status(name), die_at, doomed.writes())
            time.sleep(0.05)  # between two looks
        doomed.end()
    results.look()
    made = {job["metadata"]["uid"] for kind, job in recorder.close() if kind == "ADDED"}
    end = end_of(place, name, made, results)
    for other in (name, f"{name}-other"):
        if place.api.get(f"{place.experiments}/{other}") is not None:
            place.delete(other)
    if died:
        print(f"{die_at}: after {last_words[-1:]}, {time.monotonic() - begun:.1f} s")
    return died, end


@pytest.mark.parametrize("title", STORIES)
def test_a_controller_that_is_killed_anywhere_is_gone_on_from(place, doomed, title):
    story = STORIES[title]
    _, whole = play(place, story, 0, doomed, -1)
    writes = moments(doomed.writes())
    print(f"{title}: {len(writes)} moments, {whole}")
    assert (whole.jobs, len(whole.results)) == (story.attempts, story.commits)
    assert all(mode["cacheHit"] is not True for said in whole.said.values() for mode in said["modes"].values())
    assert len(writes) in MOMENTS[title], writes
    all_of_them = EVERYTHING or title == FIRST
    died = 0
    for die_at in count() if all_of_them else sorted(random.Random(title).sample(range(len(writes)), 2)):
        dies, end = play(place, story, die_at + 1, doomed, die_at)
        if not dies:
            break
        died += 1
        assert end == whole, die_at
        assert end.told <= whole.told
    print(f"{title}: {died} deaths")
    assert died >= (len(writes) if all_of_them else 2)


def moments(writes: list[str]) -> list[str]:
    """Those up to the last status; what is written twice in a row is one, and leases, taken anew at each try, are none.

    A POST is made again while the name is a lock, and a status in as many steps as the watch brings the news.
    """
    last = max(number for number, write in enumerate(writes) if write.endswith("/status"))
    kept = [write for write in writes[: last + 1] if not write.endswith(" l/")]
    return [write for number, write in enumerate(kept) if not number or write != kept[number - 1]]
