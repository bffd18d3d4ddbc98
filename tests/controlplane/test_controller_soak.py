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

from runonce.experiment.manifest import Commit

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


@pytest.mark.parametrize("seed", [1, 2, 3] if PROVE else [1])
def test_whatever_happens_each_key_is_made_once(place, tmp_path, seed):
    chance = random.Random(seed)
    doomed = Doomed(place, Path(tmp_path), workers=4)
    watcher = Watcher(place, random.Random(seed + 1000))
    stop = threading.Event()

    def lives_and_dies() -> None:
        dice = random.Random(seed + 2000)
        while not stop.is_set():
            doomed.start(dice.randint(5, 60))
            while not doomed.died():
                if stop.wait(0.05):
                    doomed.end()
                    return

    killer = threading.Thread(target=lives_and_dies)
    living: dict[str, int] = {}
    ended: Counter[int] = Counter()  # by key: how often an Experiment that had it was deleted or edited away
    with place.kubelet.playing(place.namespace, watcher.ends):
        killer.start()
        try:
            for number in range(EXPERIMENTS):
                name, key = f"e{number}", chance.randrange(KEYS)
                place.apply(name, params={"lr": key + 0.5}, machineParams={"train": {"nprocesses": 1}})
                living[name] = key
                act = chance.random()
                other = chance.choice(sorted(living))
                if act < 0.15:
                    place.delete(other)
                    ended[living.pop(other)] += 1
                elif act < 0.3:
                    ended[living[other]] += 1
                    living[other] = chance.randrange(KEYS)
                    moved = {"lr": living[other] + 0.5}
                    place.apply(other, params=moved, machineParams={"train": {"nprocesses": 1}})
                watcher.look()
                time.sleep(chance.random() * 0.05)
        finally:
            stop.set()
            killer.join()
        doomed.start(-1)
        deadline = 60 + EXPERIMENTS
        wait_for(
            "all to succeed",
            lambda: watcher.look() or all(place.phase(name) == "Succeeded" for name in living),
            within_s=deadline,
        )
        doomed.end()
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
    wanted = {place.key(name) for name in living}
    assert (watcher.twice, watcher.replaced) == ([], [])
    assert wanted <= {name.rpartition("/")[2] for name in watcher.committed}
    assert len(made) <= KEYS
    # Each Job beyond the first of a key needs an owner that went before the result was there.
    assert sum(made.values()) - len(made) <= sum(ended.values())
    assert set(made.values()) <= set(range(1, 1 + max(ended.values(), default=0) + 1))
