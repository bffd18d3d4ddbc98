"""From a result in the store to files in a folder, every byte verified."""

from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runonce.errors import Damaged
from runonce.experiment.manifest import File, Manifest, path_fault
from runonce.store.backend import Backend, blob_name, manifest_name

THREADS = 8

_SHARD_FOLDER = re.compile(r"shard-\d+/")


def read_manifest(backend: Backend, digest: str) -> Manifest:
    """The merged manifest with this digest. Raises Damaged when it is lost or not what it was."""
    name = manifest_name(digest)
    found = backend.get(name)
    if found is None:
        raise Damaged(f"{name} is lost from {backend.url}.")
    if hashlib.sha256(found[0]).hexdigest() != digest:
        raise Damaged(f"{name} in {backend.url} does not have the digest that is its name.")
    return Manifest.decode(found[0], name=name)


def restore(backend: Backend, manifest: Manifest, folder: Path) -> None:
    """Write all files of the result below `folder`. Raises Damaged at the first one that is lost or wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in manifest.files:
        check_path(file.path)
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)

    def get(file: File) -> None:
        backend.get_file(blob_name(file.sha256), folder / file.path, sha256=file.sha256)

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(get, manifest.files):
            pass


def check_path(path: str) -> None:
    """A manifest is data: nothing in it may lead out of the folder."""
    what = path_fault(_SHARD_FOLDER.sub("", path, count=1))
    if what:
        raise Damaged(f"a manifest lists the file {path!r}: {what}.")
