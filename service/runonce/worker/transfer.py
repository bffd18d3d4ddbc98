"""A process's files between its folders and the store, with a line now and then of how far they are."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from runonce.experiment.contract import HEALING, TRANSFERS, Contract
from runonce.experiment.manifest import Shard
from runonce.store.backend import Backend
from runonce.store.moved import Moved
from runonce.store.publish import publish_shard
from runonce.store.restore import read_manifest, restore
from runonce.store.url import open_store

TELL_S = 10.0


def open_backend(contract: Contract, env: Mapping[str, str]) -> Backend:
    """Raises InputError."""
    backend = open_store(contract.store, transfers=env.get(TRANSFERS, ""))
    backend.renew_all = contract.round.endswith(HEALING)
    return backend


def restore_inputs(backend: Backend, contract: Contract, folder: Path) -> dict[str, Path]:
    """Mode to the folder with its files. Raises Damaged."""
    inputs = {}
    for mode, given in contract.inputs.items():
        inputs[mode] = folder / mode
        manifest = read_manifest(backend, given.manifest)
        moved = Moved(f"reading {mode}", sum(file.size for file in manifest.files), _tell, every_s=TELL_S)
        restore(backend, manifest, inputs[mode], moved=moved)
    return inputs


def publish(backend: Backend, output: Path, shard: Shard) -> None:
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    publish_shard(backend, output, shard, moved=Moved("storing files", size, _tell, every_s=TELL_S))


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
