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
from place import Place, publish
from recorder import Event, Recorder

from runonce.experiment.manifest import Commit

PROVE = "RUNONCE_PROVE" in os.environ
EXPERIMENTS, KEYS = map(int, os.environ.get("RUNONCE_SOAK", "1000,100" if PROVE else "40,8").split(","))


class Watcher:
    """What the pods of a namespace do: they publish and end; and that no two of one key and index live at once."""

    def __init__(self, place: Place, chance: random.Random) -> None:
        self._place, self._chance = place, chance
        self._lives: dict[tuple[str, str], str] = {}
        self.twice: list[tuple[str, str]] = []
        self.committed: dict[str, str] = {}  # name of a record to its nonce
        self.attempts: dict[str, str] = {}  # and to the uid of the Job that made it
        self.replaced: list[str] = []

    def ends(self, pod: dict[str, Any]) -> int | None:
        key = pod["metadata"]["annotations"]["runonce.dev/cache-key"]
        index = pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]
        uid = self._lives.setdefault((key, index), pod["metadata"]["uid"])
        if uid != pod["metadata"]["uid"] and self._alive(uid):
            self.twice.append((key, index))
        self._lives[key, index] = pod["metadata"]["uid"]
        if self._chance.random() < 0.3:
            return None  # it takes a little longer
        publish(self._place.backend, pod)
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


class Owners:
    """Which Experiment has which key, and which let go of which."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.of: dict[str, str] = {}
        self.gone: set[tuple[str, str]] = set()  # name and key

    def has(self, name: str) -> None:
        """It was made, or edited."""
        before, now = self.of.get(name), self._place.key(name)
        if before not in (None, now):
            self.gone.add((name, before))
        self.of[name] = now

    def goes(self, name: str) -> None:
        self.gone.add((name, self.of.pop(name)))


class Made:
    """The Jobs of a namespace, out of all that happened to them."""

    def __init__(self, events: list[Event]) -> None:
        self.keys: dict[str, str] = {}  # uid of a Job to its key
        self.owners: dict[str, list[str]] = {}  # uid to the names of those that it had last
        self.at_once: list[tuple[str, str]] = []
        alive: dict[str, str] = {}
        for kind, job in events:
            uid, key = job["metadata"]["uid"], job["metadata"]["annotations"]["runonce.dev/cache-key"]
            if kind == "ADDED":
                self.keys[uid] = key
                if key in alive:
                    self.at_once.append((alive[key], uid))
                alive[key] = uid
            elif kind == "DELETED":
                del alive[key]
            if owners := job["metadata"].get("ownerReferences"):
                self.owners[uid] = [owner["name"] for owner in owners]
        self.there = set(alive.values())


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
    owners, recorder = Owners(place), Recorder(place.plane, place.jobs_path)
    with place.kubelet.playing(place.namespace, watcher.ends, every_s=0.2):
        killer.start()
        try:
            for number in range(EXPERIMENTS):
                name, key = f"e{number}", chance.randrange(KEYS)
                place.apply(name, params={"lr": key + 0.5}, machineParams={"train": {"nprocesses": 1}})
                owners.has(name)
                act = chance.random()
                other = chance.choice(sorted(owners.of))
                if act < 0.15:
                    owners.goes(other)
                    place.delete(other)
                elif act < 0.3:
                    moved = chance.randrange(KEYS)
                    place.apply(other, params={"lr": moved + 0.5}, machineParams={"train": {"nprocesses": 1}})
                    owners.has(other)
                watcher.look()
                time.sleep(chance.random() * 0.05)
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
    made = Made(recorder.close())
    results = {attempt: name.rpartition("/")[2] for name, attempt in watcher.attempts.items()}
    lost = made.keys.keys() - results.keys()
    print(
        f"seed {seed}: {EXPERIMENTS} Experiments of {len(set(made.keys.values()))} keys, {kills} controllers killed, "
        f"{len(made.keys)} Jobs, {len(results)} results, {len(lost)} times the last owner of a Job without one went, "
        f"{len(made.at_once)} Jobs and {len(watcher.twice)} pods at once, {len(watcher.replaced)} commits replaced; "
        f"{time.monotonic() - begun:.0f} s"
    )
    assert (made.at_once, watcher.twice, watcher.replaced) == ([], [], [])
    assert kills >= EXPERIMENTS // 10
    assert set(owners.of.values()) <= set(results.values())
    assert len(results) == len(watcher.committed) <= KEYS
    # Every result is of a Job that was seen, and each Job without one was let go by all that it ever had.
    assert {uid: made.keys.get(uid) for uid in results} == results
    assert not lost & made.there
    assert {(name, made.keys[uid]) for uid in lost for name in made.owners[uid]} <= owners.gone
