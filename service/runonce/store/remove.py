"""A result taken out of the store: its commit goes at once, what it is made of one grace later."""

from __future__ import annotations

import uuid

from runonce.errors import PreconditionFailed
from runonce.experiment.manifest import Commit
from runonce.experiment.seal import write_record
from runonce.store.backend import (
    Backend,
    commit_name,
    experiment_name,
    failure_name,
    removed_name,
    shard_prefix,
)
from runonce.store.folder import FolderBackend
from runonce.store.results import unlink_results


def remove(backend: Backend, commit: Commit, etag: str) -> bool:
    """Take the result away, with its checkpoints and failure records; False when another one stands there by now.

    The commit goes last of what could bring it back: until then the result is whole, and a crash loses nothing.
    """
    key = commit.cache_key
    keep_for_a_grace(backend, commit)
    _hide(backend, commit)
    for entry in list(backend.list(shard_prefix(key))):
        backend.delete(entry.name, version=entry.version)
    if not _delete_commit(backend, key, etag):
        return False
    backend.delete(experiment_name(commit.name, key))
    for entry in list(backend.list(failure_name(key, ""))):
        backend.delete(entry.name, version=entry.version)
    return True


def retract(backend: Backend, commit: Commit, etag: str, *, with_shards: bool) -> bool:
    """Make a damaged result a miss; its checkpoints stay, to go on from.

    with_shards: where they are of no use either, since they list the same damaged files. Else they are committed again.
    """
    key = commit.cache_key
    keep_for_a_grace(backend, commit)
    _hide(backend, commit)
    for entry in list(backend.list(shard_prefix(key))) if with_shards else ():
        if not is_checkpoint(entry.name):
            backend.delete(entry.name, version=entry.version)
    if not _delete_commit(backend, key, etag):
        return False
    backend.delete(experiment_name(commit.name, key))
    return True


def keep_for_a_grace(backend: Backend, commit: Commit) -> None:
    """Whoever reads the result at this moment has one grace to finish."""
    record = write_record("removed", cacheKey=commit.cache_key, manifest=commit.manifest, nonce=uuid.uuid4().hex)
    backend.put(removed_name(commit.cache_key, commit.manifest), record)


def is_checkpoint(name: str) -> bool:
    """Whether a record below `w/` is one of a checkpoint: `w/<key>/<round>/<total>/k/…`."""
    return name.split("/")[4:5] == ["k"]


def _hide(backend: Backend, commit: Commit) -> None:
    """The folders that people open go first: a result that is there makes them again, one that is gone could not."""
    if isinstance(backend, FolderBackend):
        unlink_results(backend, commit)


def _delete_commit(backend: Backend, cache_key: str, etag: str) -> bool:
    try:
        backend.delete(commit_name(cache_key), if_match=etag)
    except PreconditionFailed:
        return False
    return True
