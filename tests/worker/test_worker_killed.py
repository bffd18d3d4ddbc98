"""SIGKILL before every call that a worker makes to the world outside; then on, as the Job controller does it.

`make test` takes some of the moments, drawn from a seed; with RUNONCE_PROVE each of them. RUNONCE_KILL_TABLE is a file that
keeps the moments of which it was seen how they end, so that the next run goes on with the rest; RUNONCE_KILL_SECONDS is the
time after which a run leaves the rest to the next one.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
import torch
from lethal import LIVES, Doom

from runonce.store.backend import shard_name
from runonce.store.commit import complete_attempt, probe
from runonce.store.location import parse_location
from runonce.store.publish import store_file
from runonce.store.restore import read_manifest, restore
from runonce.store.url import open_store
from runonce.worker.checkpoint import Checkpoints

SEED = 20261124
SLICE = 1  # moments of each piece of work in `make test`
GRACE_S = 1.0
PROVE = bool(os.environ.get("RUNONCE_PROVE"))
TABLE = os.environ.get("RUNONCE_KILL_TABLE")
UNTIL = time.monotonic() + float(os.environ.get("RUNONCE_KILL_SECONDS", "inf"))
TRAINING = {"items": 24, "epochs": 1, "dropout": 0.3, "valid_every": 2}

# It fails once, as it would for want of time, and then goes on from the folder that its worker has saved.
PROGRAM = """
if [ ! -e $RUNONCE_CHECKPOINT/half ]; then
  echo "half of $JOB_COMPLETION_INDEX" > $RUNONCE_CHECKPOINT/half
  echo begins
  exit 3
fi
echo goes on
cp $RUNONCE_CHECKPOINT/half $RUNONCE_OUTPUT/whole
echo '{"step": 2, "mode": "test", "index": '$JOB_COMPLETION_INDEX', "name": "loss", "value": 0.5, "time": 0}' > $RUNONCE_OUTPUT/metrics.jsonl
"""
FAILS = 3

# By kind of store and piece of work, the calls of each process; a change here is a change of what a worker does.
POINTS = {
    ("folder", "train"): (100, 69),
    ("folder", "resume"): (83, 57),
    ("folder", "test"): (9, 9),
    ("folder", "take over"): (3, 3),
    ("folder", "command"): (10, 10),
    ("folder", "command resumed"): (12, 12),
    ("s3", "train"): (74, 58),
    ("s3", "resume"): (68, 54),
    ("s3", "test"): (11, 11),
    ("s3", "take over"): (5, 5),
    ("s3", "command"): (9, 9),
    ("s3", "command resumed"): (12, 12),
}

# A busy server lets a client send a request once more, and that is a call too.
TRIED_AGAIN = {"folder": 0, "s3": 4}


class Scene:
    """One piece of work over one kind of store: what is there before it, itself, and what comes of it."""

    def __init__(self, kind: str, work: str, job, weed, folder: Path) -> None:
        self.kind, self.work, self._job, self._weed, self._folder = kind, work, job, weed, folder
        self.mode = "train" if work in ("train", "resume") else "test"
        self.coupled = self.mode == "train"
        self._command = ("sh", "-ec", PROGRAM) if work.startswith("command") else ()
        self._fails = work == "command"
        self.attempt = 2 if work in ("resume", "take over") else 1
        self._pattern = self._new_store()
        self._prepare()

    def _prepare(self) -> None:
        if self.kind == "folder":
            # By one of the processes, else, and nobody knows which: the store itself, and a log that has no line yet.
            store, empty = open_store(self._pattern), self._folder / "empty"
            store.put("x/made", b"")
            empty.touch()
            store_file(store, empty)
        if self.work == "resume":
            # Until it has saved checkpoints, and is about to save another.
            self.start(self._pattern, attempt=1, dooms={0: self._doom(2 * POINTS[self.kind, "train"][0] // 3)})
        if self.work == "command resumed":
            job = self.made(self._pattern, attempt=1).start()
            assert job.wait() == [FAILS, FAILS], job.log(0)
        elif self.mode == "test" and not self._command:
            self.made(self._pattern, mode="train", attempt=1).run().commit()
        if self.work == "take over":
            self.made(self._pattern, attempt=1).run()

    def _new_store(self) -> str:
        name = uuid.uuid4().hex
        return str(self._folder / name) if self.kind == "folder" else self._weed.url(f"killed/{name}")

    def fresh(self) -> str:
        """A store as it is before the work."""
        url = self._new_store()
        if self.kind == "folder":
            if Path(self._pattern).exists():
                shutil.copytree(self._pattern, url)
            return url
        client, source, target = self._weed.client(), parse_location(self._pattern), parse_location(url)
        for bucket in (source.bucket, source.blobs_bucket):
            for entry in client.list_objects_v2(Bucket=bucket, Prefix=source.prefix).get("Contents", ()):
                key = target.prefix + entry["Key"].removeprefix(source.prefix)
                client.copy_object(Bucket=bucket, Key=key, CopySource={"Bucket": bucket, "Key": entry["Key"]})
        client.close()
        return url

    def _doom(self, die_at: int, store: str = "") -> Doom:
        folder = store if self.kind == "folder" else ""
        return Doom(die_at, str(self._folder / f"trace-{uuid.uuid4().hex}"), folder or self._pattern)

    def made(self, store: str, *, attempt: int, dooms: dict[int, Doom] | None = None, mode: str = ""):
        env = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        # Of a program's folder the copy by the clock stays away: else call k would not be the same one each time.
        env |= {"RUNONCE_CHECKPOINT_S": "3600" if self._command else "0", "RUNONCE_PEER_TIMEOUT_S": "60"}
        mode = mode or self.mode
        return self._job(
            processes=2, mode=mode, coupled=mode == "train", folder=uuid.uuid4().hex, store=store, attempt=attempt,
            dooms=dooms, command=self._command, env=env, **TRAINING,
        )  # fmt: skip

    def start(self, store: str, *, attempt: int, dooms: dict[int, Doom]):
        """One attempt to its end, as a Job controller sees to it: coupled ranks end together, others are tried again."""
        job = self.made(store, attempt=attempt, dooms=dooms).start()
        running = {process.sentinel: process for process in job.started}
        while running:
            ended = wait(list(running), timeout=180)
            assert ended, f"nothing ends:\n{job.log(0)}\n{job.log(1)}"
            codes = [running.pop(sentinel).exitcode for sentinel in ended]
            if self.coupled and any(codes):
                for process in running.values():
                    process.terminate()
                for process in running.values():
                    process.join(GRACE_S)
                break
        codes = [process.exitcode for process in job.started]
        job.kill()
        if not self.coupled:
            self._retry(job, codes)
        return job, [-9 if code is None else code for code in codes]

    def _retry(self, job, codes: list[int]) -> None:
        """The same index of the same Job in a new pod; what the other published stays as it is."""
        before, saved = published(job), saved_folders(job)
        for _ in range(2):
            for rank, code in enumerate(codes):
                if code:
                    job.started[rank] = job.start_rank(rank, doomed=False)
            codes = job.wait()
        assert codes == [0, 0], job.log(1)
        assert before.items() <= published(job).items()
        for rank in saved:
            assert job.log(rank).count("begins") <= (self.work == "command"), "what was saved is done again"

    def outcome(self, store: str, rank: int = 0, die_at: int = LIVES) -> Outcome:
        """Of the work in which a process is killed, and of what follows until there is a result."""
        dooms = {index: self._doom(die_at if index == rank else LIVES, store) for index in (0, 1)}
        job, codes = self.start(store, attempt=self.attempt, dooms=dooms)
        if die_at == LIVES:
            assert codes == [FAILS * self._fails] * 2, job.log(0)
        else:
            assert codes[rank] == -9, f"call {die_at} was never reached: {codes}\n{job.log(rank)}"
        assert probe(job.backend, job.key) is None  # a worker commits nothing
        while not complete_attempt(job.backend, job.key, "r", f"attempt{job.attempt}"):
            assert self.coupled, job.log(0)
            saved = newest_step(job)
            job = job.again(dooms={})
            job.run()
            went_on = re.search(r"goes on from the checkpoint of step (\d+)", job.log(0))
            assert (int(went_on[1]) if went_on else None) == saved, "steps that were saved are done again"
        parts = [Counter(doom.parts()) for _, doom in sorted(dooms.items())]
        return Outcome(parts, *result(job.commit(), self._folder / uuid.uuid4().hex))

    def end(self, whole: Outcome, rank: int, die_at: int) -> str:
        """What is bad about how it ends when this process dies before this call; empty when nothing is."""
        try:
            return "" if self.outcome(self.fresh(), rank, die_at).same(whole) else "another result"
        except AssertionError as error:
            return str(error)


@dataclass
class Outcome:
    """parts: of each process, its calls by the part of the work. entries: what was logged, and what a program wrote, by process."""

    parts: list[Counter[str]]
    weights: dict[str, torch.Tensor]
    entries: list[list[Any]]
    metrics: dict[str, tuple[float, int]]

    def same(self, other: Outcome) -> bool:
        known = other.weights
        equal = self.weights.keys() == known.keys() and all(torch.equal(self.weights[n], known[n]) for n in known)
        return equal and (self.entries, self.metrics) == (other.entries, other.metrics)


def result(job, into: Path) -> tuple[dict[str, torch.Tensor], list[Any], dict[str, tuple[float, int]]]:
    """The committed result, restored from the store."""
    manifest = read_manifest(job.backend, probe(job.backend, job.key)[0].manifest)
    restore(job.backend, manifest, into)
    weights = into / "weights.pt"
    logs = [into / "metrics.jsonl", into / "shard-1" / "metrics.jsonl"]
    entries = [[json.loads(line) | {"time": 0} for line in log.read_text().splitlines()] for log in logs]
    entries += [[path.read_text()] for path in sorted(into.rglob("whole"))]
    state = torch.load(weights, weights_only=True) if weights.exists() else {}
    return state, entries, dict(manifest.metrics)


def published(job) -> dict[int, str]:
    """The version of each process's shard manifest in this attempt."""
    names = {index: shard_name(job.key, "r", 2, f"attempt{job.attempt}", index) for index in (0, 1)}
    return {index: found[1] for index, name in names.items() if (found := job.backend.get(name)) is not None}


def saved_folders(job) -> list[int]:
    """The processes of a command whose checkpoint folder is in the store."""
    return [index for index in (0, 1) if job.backend.get(f"w/{job.key}/r/2/k/folder/i{index}") is not None]


def newest_step(job) -> int | None:
    """Of the complete checkpoints in the store."""
    none = Path("/nowhere")
    saved = Checkpoints(job.backend, cache_key=job.key, round_="r", total=2, attempt="", index=0, scratch=none)
    return next((step.step for step in saved.newest()), None)


def seen() -> set[tuple[str, str, int, int]]:
    """The moments that the table has."""
    if not TABLE or not Path(TABLE).exists():
        return set()
    rows = map(json.loads, Path(TABLE).read_text().splitlines())
    return {(row["store"], row["work"], row["process"], row["call"]) for row in rows}


def keep(kind: str, work: str, rank: int, number: int, bad: str) -> None:
    if TABLE:
        with Path(TABLE).open("a", encoding="utf-8") as table:
            row = {"store": kind, "work": work, "process": rank, "call": number, "bad": bad}
            table.write(json.dumps(row) + "\n")


def moments(counts: list[int]) -> list[tuple[int, int]]:
    """(process, number of its call)."""
    every = [(rank, number) for rank, count in enumerate(counts) for number in range(count)]
    return every if PROVE else random.Random(SEED).sample(every, SLICE)


@pytest.mark.parametrize(("kind", "work"), POINTS)
def test_a_worker_killed_before_any_of_its_calls_costs_no_result_and_no_saved_step(kind, work, job, request, tmp_path):
    weed = request.getfixturevalue("weed") if kind == "s3" else None
    scene = Scene(kind, work, job, weed, tmp_path)
    whole = scene.outcome(scene.fresh())
    counts = [sum(parts.values()) for parts in whole.parts]
    shown = [", ".join(f"{part} {number}" for part, number in parts.items()) for parts in whole.parts]
    print(f"{kind}, {work}: {counts} calls: {'; '.join(shown)}")
    more = [count - pinned for count, pinned in zip(counts, POINTS[kind, work], strict=True)]
    assert all(0 <= number <= TRIED_AGAIN[kind] for number in more), counts
    bad = []
    for rank, number in moments(list(POINTS[kind, work])):
        if (kind, work, rank, number) in seen():
            continue
        if time.monotonic() > UNTIL:
            break
        end = scene.end(whole, rank, number)
        keep(kind, work, rank, number, end)
        if end:
            bad.append((rank, number, end))
    assert bad == []
