"""Many Experiments of few keys, made, deleted and edited in random order, with a controller that is killed again and again.

`make prove` runs 1,000 of 100 keys with three seeds; here runs a slice. `RUNONCE_SOAK=500,50` is another one.
"""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from control_plane import wait_for
from doomed_driver import Doomed
from place import Place, key_of, publish
from recorder import Event, Recorder

from runonce.experiment.manifest import Commit

PROVE = "RUNONCE_PROVE" in os.environ
ONE = {"train": {"nprocesses": 1}}
EXPERIMENTS, KEYS = map(int, os.environ.get("RUNONCE_SOAK", "1000,100" if PROVE else "40,20").split(","))


class Watcher:
    """What the pods of a namespace do: they publish and end; and that no two of one key and index live at once."""

    def __init__(self, place: Place, chance: random.Random) -> None:
        self._place, self._chance = place, chance
        self._lives: dict[tuple[str, str], str] = {}
        self.twice: list[tuple[str, str]] = []
        self.committed: dict[str, str] = {}  # name of a record to its nonce
        self.attempts: dict[str, str] = {}  # and to the uid of the Job that made it
        self.published: dict[str, str] = {}  # uid of a Job whose one pod did to its key
        self.replaced: list[str] = []

    def ends(self, pod: dict[str, Any]) -> int | None:
        key = pod["metadata"]["annotations"]["runonce.dev/cache-key"]
        index = pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]
        uid = self._lives.setdefault((key, index), pod["metadata"]["uid"])
        if uid != pod["metadata"]["uid"] and self._alive(uid):
            self.twice.append((key, index))
        self._lives[key, index] = pod["metadata"]["uid"]
        if self._chance.random() < 0.9:
            return None  # it takes a little longer
        publish(self._place.backend, pod)
        self.published[pod["metadata"]["labels"]["batch.kubernetes.io/controller-uid"]] = key
        return 0

    def _alive(self, uid: str) -> bool:
        return any(
            pod["metadata"]["uid"] == uid and pod["status"].get("phase") not in ("Succeeded", "Failed")
            for pod in self._place.kubelet.pods(self._place.namespace)
        )

    def look(self) -> None:
        for entry in self._place.backend.list("c/"):
            data, _ = self._place.backend.get(entry.name)
            commit = Commit.decode(data, name=entry.name)
            self.attempts[entry.name] = commit.attempt
            if self.committed.setdefault(entry.name, commit.nonce) != commit.nonce:
                self.replaced.append(entry.name)


class History:
    """What happened to Experiments and Jobs, in the order of the server's versions, which are of both.

    let_go: when an Experiment, by uid, last gave up a key. went: of each Job that began to go the key, and when the last
    of its owners had let go of it; None where one had not.
    """

    def __init__(self, experiments: list[Event], jobs: list[Event]) -> None:
        self.keys: dict[str, str] = {}  # uid of a Job to its key
        self.made: dict[str, int] = {}  # and to when it was made
        self.at_once: list[tuple[str, str]] = []
        self.holds: dict[str, str] = {}  # uid of an Experiment to the key that it wants
        self.went: dict[str, tuple[str, int | None]] = {}
        self._let_go: dict[tuple[str, str], int] = {}
        self._owners: dict[str, set[str]] = {}
        self._alive: dict[str, str] = {}
        for kind, found in sorted([*experiments, *jobs], key=lambda event: _version(event[1])):
            (self._experiment if found["kind"] == "Experiment" else self._job)(kind, found)

    @property
    def there(self) -> set[str]:
        return set(self._alive.values())

    def _experiment(self, kind: str, found: dict[str, Any]) -> None:
        uid = found["metadata"]["uid"]
        before, now = self.holds.pop(uid, None), None if kind == "DELETED" else _key(found)
        if before not in (None, now):
            self._let_go[uid, before] = _version(found)
        if now is not None:
            self.holds[uid] = now

    def _job(self, kind: str, job: dict[str, Any]) -> None:
        uid, key = job["metadata"]["uid"], job["metadata"]["annotations"]["runonce.dev/cache-key"]
        if kind == "ADDED":
            self.keys[uid], self.made[uid] = key, _version(job)
            if key in self._alive:
                self.at_once.append((self._alive[key], uid))
            self._alive[key] = uid
        owners = {owner["uid"] for owner in job["metadata"].get("ownerReferences", ())} or self._owners[uid]
        for owner in owners - self._owners.get(uid, set()):
            if self.holds.get(owner) == key:  # what it let go of before is not this Job
                self._let_go.pop((owner, key), None)
        self._owners[uid] = owners
        if "deletionTimestamp" in job["metadata"] or kind == "DELETED":
            times = [self._let_go.get((owner, key)) for owner in owners]
            self.went.setdefault(uid, (key, None if None in times else max(times)))
        if kind == "DELETED":
            del self._alive[key]


def _version(found: dict[str, Any]) -> int:
    return int(found["metadata"]["resourceVersion"])


def _key(experiment: dict[str, Any]) -> str:
    """Everything but `lr` is the same in all of them."""
    lr = experiment["spec"]["params"]["lr"]
    if lr not in _KEYS:
        _KEYS[lr] = key_of(experiment)
    return _KEYS[lr]


_KEYS: dict[float, str] = {}


def unfinished(place: Place) -> list[str]:
    def is_done(found: dict[str, Any]) -> bool:
        status = found.get("status") or {}
        current = status.get("observedGeneration") == found["metadata"]["generation"]
        return current and status.get("phase") == "Succeeded"

    found: list[dict[str, Any]] = place.api.must("GET", place.experiments)["items"]
    return [one["metadata"]["name"] for one in found if not is_done(one)]


def jobs_of(place: Place) -> set[str]:
    return {job["metadata"]["uid"] for job in place.jobs()}


@pytest.mark.parametrize("seed", [1, 2, 3] if PROVE else [1])
def test_whatever_happens_each_key_is_made_once(place, tmp_path, seed):
    chance = random.Random(seed)
    doomed = Doomed(place, Path(tmp_path), workers=4)
    kills = 0
    begun = time.monotonic()
    watcher = Watcher(place, random.Random(seed + 1000))
    stop = threading.Event()

    def lives_and_dies() -> None:
        nonlocal kills
        dice = random.Random(seed + 2000)
        while not stop.is_set():
            doomed.start(dice.randint(3, 25))
            while not doomed.died():
                if stop.wait(0.05):
                    doomed.end()
                    return
            kills += 1

    killer = threading.Thread(target=lives_and_dies)
    recorders = [Recorder(place.plane, path) for path in (place.experiments, place.jobs_path)]
    names: list[str] = []
    with place.kubelet.playing(place.namespace, watcher.ends, every_s=0.2):
        killer.start()
        try:
            for number in range(EXPERIMENTS):
                name, key = f"e{number}", chance.randrange(KEYS)
                place.apply(name, params={"lr": key + 0.5}, machineParams=ONE)
                names.append(name)
                act = chance.random()
                other = chance.choice(names[-20:])  # whose Job may still run
                if act < 0.25:
                    names.remove(other)
                    place.delete(other)
                elif act < 0.5:
                    place.apply(other, params={"lr": chance.randrange(KEYS) + 0.5}, machineParams=ONE)
                watcher.look()
                time.sleep(chance.random() * 0.6)  # controllers keep up, and what goes has a Job
            wait_for(
                "all to succeed",
                lambda: watcher.look() or unfinished(place) == [],
                within_s=120 + 2 * EXPERIMENTS,
                every_s=0.5,
            )
            # What was let go at last is still on its way.
            wait_for("no other Job", lambda: watcher.look() or jobs_of(place) <= set(watcher.attempts.values()))
        finally:
            stop.set()
            killer.join()
    doomed.close()
    told = History(*(recorder.close() for recorder in recorders))
    results = {attempt: name.rpartition("/")[2] for name, attempt in watcher.attempts.items()}
    # A key is finished when a pod of it has published; where nobody wants it any more there is no result of it.
    finished = results | {uid: key for uid, key in watcher.published.items() if key not in results.values()}
    gone = {uid: told.went.get(uid, ("", None)) for uid in told.keys.keys() - finished.keys()}
    first: dict[tuple[str, int | None], str] = {}
    for uid in sorted(gone, key=lambda uid: told.made[uid]):
        first.setdefault(gone[uid], uid)
    # The end of a Job may be heard of before that of its owner, and then another is made for one that has gone.
    late = gone.keys() - set(first.values())
    print(
        f"seed {seed}: {EXPERIMENTS} Experiments of {len(set(told.keys.values()))} keys, {kills} controllers killed, "
        f"{len(told.keys)} Jobs, {len(set(finished.values()))} keys finished, {len(results)} results, "
        f"{len(first)} times the last owner of an unfinished key went, {len(late)} Jobs more for it, "
        f"{len(told.at_once)} Jobs and {len(watcher.twice)} pods at once, {len(watcher.replaced)} commits replaced; "
        f"{time.monotonic() - begun:.0f} s"
    )
    assert (told.at_once, watcher.twice, watcher.replaced) == ([], [], [])
    assert kills >= EXPERIMENTS // 10
    assert set(told.holds.values()) <= set(results.values())
    assert len(results) == len(watcher.committed) <= KEYS
    assert {uid: told.keys.get(uid) for uid in finished} == finished
    # Every other Job began to go after the last of its owners had let go of the key.
    assert [uid for uid, (_, when) in gone.items() if when is None] == []
    assert [uid for uid in late if told.made[uid] < gone[uid][1]] == []
    assert len(told.keys) == len(set(finished.values())) + len(first) + len(late)
