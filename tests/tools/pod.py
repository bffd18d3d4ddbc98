"""One pod of a Job as a process: the contract's variables, the spec's file, a folder for scratch, and no more."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from runonce.author.document import read_documents
from runonce.experiment.canonical import canonical
from runonce.experiment.contract import ATTEMPT, INDEX, POD_COMMAND, SPEC_FILE, Contract
from runonce.experiment.manifest import Shard
from runonce.store.backend import shard_name
from runonce.store.url import open_store

KEY = "ab" * 32
SHELL = """
apiVersion: runonce.dev/v1alpha1
kind: Experiment
metadata: {name: program}
spec:
  command: [sh, -c, 'SCRIPT']
  codeVersion: label:one
  machineParams:
    train: {nprocesses: 1, coupled: false}
"""


class Pod:
    """One pod of a Job, as a process: `store` is what its Job names, `folder` its working directory."""

    def __init__(self, place: Any, tmp_path: Path, store: str = "") -> None:
        self.place, self.store, self.spec = place, store or str(tmp_path / "store"), tmp_path / "spec.json"
        self.attempt, self.round, self.total = "uid", "r", 1
        self.scratch = tmp_path / "scratch"
        self.scratch.mkdir()

    def start(self, experiment: str, **more: str) -> subprocess.Popen[str]:
        (document,) = read_documents(experiment.encode(), name="experiment.yaml")
        self.spec.write_bytes(canonical(document.value["spec"]))
        given = {"cache_key": KEY, "round": self.round, "total": self.total, "store": self.store}
        contract = Contract(mode="train", name="program", **given)
        return subprocess.Popen(
            [Path(self.place.command()[0]).parent / POD_COMMAND[0], *POD_COMMAND[1:]],
            cwd=self.place.folder,
            env=self.place.env()
            | {SPEC_FILE: str(self.spec), ATTEMPT: self.attempt, INDEX: "0", "TMPDIR": str(self.scratch)}
            | contract.to_env()
            | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, experiment: str, **more: str) -> tuple[int, str]:
        process = self.start(experiment, **more)
        out, _ = process.communicate(timeout=300)
        return process.returncode, out

    def shard(self) -> Shard:
        found = open_store(self.store).get(shard_name(KEY, self.round, 1, self.attempt, 0))
        assert found is not None
        return Shard.decode(found[0], name="shard")


def shell(script: str) -> str:
    """A command experiment of one process."""
    return SHELL.replace("SCRIPT", script.replace("'", "''"))
