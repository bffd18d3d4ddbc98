"""A folder store with results of one file each, whose age a test decides."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from runonce.experiment.canonical import canonical
from runonce.experiment.manifest import Shard
from runonce.store.backend import (
    blob_name,
    shard_prefix,
)
from runonce.store.collect import Limits
from runonce.store.commit import commit, complete_attempt, probe
from runonce.store.folder import FolderBackend
from runonce.store.publish import publish_shard
from runonce.store.restore import read_manifest, restore

EVERYTHING = Limits(grace=-1.0, unfinished=-1.0, failures=-1.0)


def key_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Store:
    """A folder store with results of one file each, and a hand on its clock."""

    def __init__(self, folder: Path) -> None:
        self.backend, self.folder = FolderBackend(folder / "store"), folder

    def shard(self, label: str, round_: str = "r-1") -> Shard:
        output = self.folder / "out" / label
        output.mkdir(parents=True, exist_ok=True)
        (output / "weights").write_text(f"weights of {label}")
        shard = Shard(
            cache_key=key_of(label),
            mode="train",
            round=round_,
            total=1,
            attempt="a",
            index=0,
            files=(),
            facts={"l": label},
        )
        return publish_shard(self.backend, output, shard)

    def result(
        self, label: str, *, name: str = "mine", round_: str = "r-1", replaces: str = "", inputs=None, parts=None
    ):
        self.shard(label, round_)
        shards = complete_attempt(self.backend, key_of(label), round_)
        return commit(
            self.backend, shards, name=name, parts=parts or {"mode": "train"}, params={}, inputs=inputs or {}, tokens=(),
            replaces=replaces, missing=(), nonce=f"{label} {round_}", created=1,
        )  # fmt: skip

    def checkpoint(self, label: str, round_: str = "r-1", step: int = 1) -> str:
        """Its name; it holds a blob of its own."""
        digest = self.blob(f"checkpoint {label} {step}")
        name = f"{shard_prefix(key_of(label), round_)}1/k/{step:012d}/a/i0"
        self.backend.put(
            name, canonical({"format": 1, "kind": "checkpoint", "step": step, "index": 0, "sha256": digest})
        )
        return name

    def blob(self, text: str) -> str:
        path = self.folder / "blob"
        path.write_text(text)
        digest = key_of(text)
        self.backend.put_file(blob_name(digest), path, sha256=digest)
        return digest

    def age(self, seconds: float, prefix: str = "") -> None:
        for top in ("b", "m", "c", "w", "f", "d", "l", "n", "p", "s"):
            for entry in list(self.backend.list(f"{top}/")):
                if entry.name.startswith(prefix):
                    path = self.backend.root / entry.name
                    os.utime(path, (path.stat().st_mtime - seconds,) * 2)

    def has(self, name: str) -> bool:
        return self.backend.stat(name) is not None

    def restores(self, label: str) -> bool:
        found = probe(self.backend, key_of(label))
        if found is None:
            return False
        into = self.folder / "in" / str(time.monotonic_ns())
        restore(self.backend, read_manifest(self.backend, found[0].manifest), into)
        return (into / "weights").read_text() == f"weights of {label}"
