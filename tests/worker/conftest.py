"""The program of a Job's processes, started by hand: real processes in a real group, with a real store.

They are forked from a server that has imported torch, which spares two seconds each.
"""

from __future__ import annotations

import contextlib
import gc
import json
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lethal import Doom, doom

from runonce.experiment.canonical import canonical
from runonce.experiment.contract import ATTEMPT, INDEX, OUTPUT, SPEC_FILE, Contract, Input
from runonce.experiment.manifest import Shard, merge
from runonce.experiment.params import render
from runonce.store.backend import shard_name
from runonce.store.commit import commit as write_commit
from runonce.store.commit import probe
from runonce.store.url import open_store

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["torch._dynamo", "numpy", "runonce.store.s3", "runonce.worker.run", "runonce.worker.engine"]
)


def _work(env: dict[str, str], log: str, doomed: Doom | None = None) -> None:
    """The body of a process: what `python -m runonce.worker` does. As in a pod, a program that it starts dies with it."""
    os.setpgid(0, 0)
    gc.disable()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    os.environ.update(env)
    tempfile.tempdir = None  # the server's, which TMPDIR of this process may replace
    torch.set_num_threads(1)
    from runonce.worker.run import main

    if doomed is not None:
        doom(doomed)
    os._exit(main())


class Job:
    """One attempt at one mode of `trainings:<name>`; `again` is the next one of the same round."""

    def __init__(
        self, folder: Path, name, params, *, processes=1, mode="train", attempt=1, quick=0, coupled=None, gpus=(),
        store="", dooms=None, made=None, command=(), **env
    ):  # fmt: skip
        self.base, self.name, self.params, self.processes, self.mode = folder, name, params, processes, mode
        self.attempt, self.quick, self.env, self.coupled = attempt, quick, env, coupled
        self.gpus, self.command = list(gpus), list(command)
        self.folder = folder / f"{mode}-{processes}-{attempt}"
        self.key = {"train": "aa", "valid": "bb", "test": "cc"}[mode] * 32
        self.store = store or str(folder / "store")
        self.dooms: dict[int, Doom] = dooms or {}  # by rank
        self.backend = open_store(self.store)
        self.started: list = []
        self.made = [] if made is None else made  # all that a test has to end
        self.made.append(self)

    def again(self, **changes) -> Job:
        options = {
            "processes": self.processes,
            "mode": self.mode,
            "coupled": self.coupled,
            "quick": self.quick,
            "store": self.store,
            "made": self.made,
            "command": self.command,
        }
        return Job(self.base, self.name, self.params, attempt=self.attempt + 1, **{**options, **self.env, **changes})

    def start(self) -> Job:
        self.folder.mkdir(parents=True)
        block = {"nprocesses": self.processes} | ({} if self.coupled is None else {"coupled": self.coupled})
        block |= {"gpuIds": self.gpus} if self.gpus else {}
        what = {"command": self.command} if self.command else {"config": f"trainings:{self.name}"}
        spec = {
            **what, "params": render(self.params), "codeVersion": "label:test", "keyMachine": True,
            "machineParams": {"train": {"nprocesses": 1}, self.mode: block},
        }  # fmt: skip
        (self.folder / "spec.json").write_bytes(canonical(spec))
        contract = Contract(
            mode=self.mode, cache_key=self.key, round="r", total=self.processes, store=self.store,
            name="line", inputs=self._inputs(), quick=self.quick,
        )  # fmt: skip
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.told = {
            **contract.to_env(), SPEC_FILE: str(self.folder / "spec.json"), ATTEMPT: f"attempt{self.attempt}",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **self.env,
        }  # fmt: skip
        self.started = [self.start_rank(rank) for rank in range(self.processes)]
        return self

    def start_rank(self, rank: int, *, doomed: bool = True):
        """A process with an empty output folder, the first one of this rank or the next. doomed: as was asked for."""
        shutil.rmtree(self.output(rank), ignore_errors=True)
        self.output(rank).mkdir()
        env = {**self.told, INDEX: str(rank), OUTPUT: str(self.output(rank))}
        doom = self.dooms.get(rank) if doomed else None
        process = FORKS.Process(target=_work, args=(env, str(self.folder / f"{rank}.log"), doom))
        process.start()
        return process

    def wait(self, seconds: float = 300) -> list[int]:
        for process in self.started:
            process.join(seconds)
            if process.exitcode is None:
                self.kill()
                raise AssertionError(f"rank {self.started.index(process)} hangs:\n{self.log(0)}")
        return [process.exitcode for process in self.started]

    def kill(self) -> None:
        for process in self.started:
            if process.exitcode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.kill()
            process.join()

    def run(self) -> Job:
        """Every process ends with 0."""
        codes = self.start().wait()
        assert codes == [0] * self.processes, "\n".join(self.log(rank) for rank in range(self.processes))
        return self

    def output(self, rank: int) -> Path:
        return self.folder / f"output-{rank}"

    def saved(self) -> list[str]:
        """Names of the records of checkpoints in the store."""
        return [stat.name for stat in self.backend.list(f"w/{self.key}/r/") if "/k/" in stat.name]

    def log(self, rank: int) -> str:
        path = self.folder / f"{rank}.log"
        return path.read_text() if path.exists() else ""

    def entries(self, name: str, rank: int = 0) -> list[tuple[int, float]]:
        """(step, value) of every line of metrics.jsonl with this name."""
        lines = map(json.loads, (self.output(rank) / "metrics.jsonl").read_text().splitlines())
        return [(line["step"], float(line["value"])) for line in lines if line["name"] == name]

    def weights(self) -> dict[str, torch.Tensor]:
        return torch.load(self.output(0) / "weights.pt", weights_only=True)

    def shards(self) -> list[Shard]:
        names = [shard_name(self.key, "r", self.processes, f"attempt{self.attempt}", i) for i in range(self.processes)]
        return [Shard.decode(self.backend.get(name)[0], name=name) for name in names]

    def metrics(self) -> dict[str, tuple[float, int]]:
        return dict(merge(self.shards(), name="line", parts={}, params={}).metrics)

    def commit(self) -> Job:
        self.manifest = write_commit(
            self.backend, self.shards(), name="line", parts={}, params={}, inputs={}, tokens=(), replaces="",
            missing=(), nonce="n", created=0,
        ).manifest  # fmt: skip
        return self

    def _inputs(self):
        found = probe(self.backend, "aa" * 32) if self.mode != "train" else None
        return {"train": Input(cache_key="aa" * 32, manifest=found[0].manifest)} if found else {}


@pytest.fixture
def job(tmp_path):
    """Makes Jobs that share a store; none of their processes is left behind."""
    from trainings import Params

    made: list[Job] = []

    def make(
        name="Line", *, processes=1, mode="train", quick=0, coupled=None, gpus=(), env=None, folder=None, store="",
        attempt=1, dooms=None, command=(), **params
    ) -> Job:  # fmt: skip
        base = tmp_path / (folder or "one")
        options = {
            "processes": processes,
            "mode": mode,
            "quick": quick,
            "coupled": coupled,
            "gpus": gpus,
            "store": store,
        }
        options |= {"attempt": attempt, "dooms": dooms, "made": made, "command": command, **(env or {})}
        return Job(base, name, replace(Params(), **params), **options)

    yield make
    for entry in made:
        entry.kill()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
