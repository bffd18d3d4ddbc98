"""Many Experiments of few keys, made, deleted and edited in random order, with a controller that is killed again and again.

`make prove` runs 1,000 of 100 keys with three seeds; here runs a slice.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from control_plane import CONTROLLER, wait_for
from doomed_driver import Doomed
from place import Place, publish

from runonce.experiment.job import job_name
from runonce.experiment.manifest import Commit
from runonce.store.backend import commit_name

PROVE = "RUNONCE_PROVE" in os.environ
EXPERIMENTS, KEYS = (1000, 100) if PROVE else (40, 8)


class Watcher:
    """What the pods of a namespace do: they publish and end; and that no two of one key and index live at once."""

    def __init__(self, place: Place, chance: random.Random) -> None:
        self._place, self._chance = place, chance
        self._lives: dict[tuple[str, str], str] = {}
        self.twice: list[tuple[str, str]] = []
        self.committed: dict[str, str] = {}
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
            nonce = Commit.decode(data, name=entry.name).nonce
            if self.committed.setdefault(entry.name, nonce) != nonce:
                self.replaced.append(entry.name)


class Owners:
    """Which Experiment has which key, and how often the last owner of an unfinished one went."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._keys: dict[int, str] = {}
        self.of: dict[str, int] = {}
        self.orphaned = 0

    def has(self, name: str, key: int) -> None:
        self.of[name] = key
        if key not in self._keys:
            self._keys[key] = self._place.key(name)

    def goes(self, name: str) -> None:
        """Asked before it does: whether nobody who still wants the key is an owner of its Job, and no result is there."""
        number = self.of.pop(name)
        key = self._keys[number]
        job = self._place.api.get(f"{self._place.jobs_path}/{job_name('digits:Digits', 'train', key)}")
        owners = job["metadata"].get("ownerReferences", ()) if job is not None else ()
        others = [owner for owner in owners if self.of.get(owner["name"]) == number]
        self.orphaned += not others and self._place.backend.get(commit_name(key)) is None


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
    owners = Owners(place)
    with place.kubelet.playing(place.namespace, watcher.ends):
        killer.start()
        try:
            for number in range(EXPERIMENTS):
                name, key = f"e{number}", chance.randrange(KEYS)
                place.apply(name, params={"lr": key + 0.5}, machineParams={"train": {"nprocesses": 1}})
                owners.has(name, key)
                act = chance.random()
                other = chance.choice(sorted(owners.of))
                if act < 0.15:
                    owners.goes(other)
                    place.delete(other)
                elif act < 0.3:
                    owners.goes(other)
                    moved = chance.randrange(KEYS)
                    place.apply(other, params={"lr": moved + 0.5}, machineParams={"train": {"nprocesses": 1}})
                    owners.has(other, moved)
                watcher.look()
                time.sleep(chance.random() * 0.05)
            wait_for(
                "all to succeed",
                lambda: watcher.look() or all(place.phase(name) == "Succeeded" for name in owners.of),
                within_s=120 + 2 * EXPERIMENTS,
            )
        finally:
            stop.set()
            killer.join()
    doomed.close()
    calls = place.plane.calls(CONTROLLER)
    made = Counter(
        call["objectRef"]["name"]
        for call in calls
        if call["verb"] == "create"
        and call["objectRef"]["resource"] == "jobs"
        and call["objectRef"]["namespace"] == place.namespace
        and call["responseStatus"]["code"] == 201
    )
    wanted = {place.key(name) for name in owners.of}
    print(
        f"seed {seed}: {EXPERIMENTS} Experiments of {len(made)} keys, {kills} controllers killed, {sum(made.values())} Jobs, "
        f"{owners.orphaned} times the last owner of an unfinished key went, {len(watcher.committed)} commits, "
        f"{len(watcher.twice)} pods of one index at once, {len(watcher.replaced)} commits replaced; "
        f"{time.monotonic() - begun:.0f} s"
    )
    assert (watcher.twice, watcher.replaced) == ([], [])
    assert kills >= EXPERIMENTS // 10
    assert wanted <= {name.rpartition("/")[2] for name in watcher.committed}
    assert len(made) <= KEYS
    # Each Job beyond the first of a key needs an owner that went before the result was there.
    assert sum(made.values()) - len(made) <= owners.orphaned
