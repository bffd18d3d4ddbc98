"""The committer's part: is there a result, is an attempt complete, and the record that makes it a result."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from runonce.errors import Damaged, PreconditionFailed
from runonce.experiment.manifest import Commit, Shard, merge
from runonce.store.backend import Backend, commit_name, experiment_name, manifest_name, shard_prefix
from runonce.store.remove import keep_for_a_grace
from runonce.store.restore import read_shard

_SHARD = re.compile(r"(?P<total>\d+)/(?P<attempt>[^/]+)/i(?P<index>\d+)")


class DamagedCommit(Damaged):
    """No result, but something is there: a new commit may replace what has this ETag."""

    def __init__(self, message: str, etag: str) -> None:
        super().__init__(message, etag=etag)


class UnsignedCommit(DamagedCommit):
    """A record whose signature is missing, unknown or wrong, where this is asked for. commit: what it says."""

    def __init__(self, message: str, etag: str, commit: Commit) -> None:
        super().__init__(message, etag)
        self.commit = commit


def probe(backend: Backend, cache_key: str) -> tuple[Commit, str] | None:
    """The commit record and its ETag, by one GET; None is a miss. Raises DamagedCommit, UnsignedCommit."""
    name = commit_name(cache_key)
    etag = ""
    try:
        found = backend.get(name)
        if found is None:
            return None
        data, etag = found
        commit = Commit.decode(data, name=name)
        if commit.cache_key != cache_key:
            raise Damaged(f"{name} is the commit record of another key, {commit.cache_key}.")
    except Damaged as error:
        raise DamagedCommit(str(error), error.etag or etag) from error
    if what := backend.keyring.fault(data):
        raise UnsignedCommit(f"{name} in {backend.url} {what}: it is no result.", etag, commit)
    return commit, etag


def complete_attempt(
    backend: Backend, cache_key: str, round_: str, attempt: str | None = None
) -> Sequence[Shard] | None:
    """All shards of one attempt of the round (of `attempt` where given), in index order; None if none is whole.

    A damaged one counts as missing, so that its process is run again.
    """
    found: dict[tuple[int, str], dict[int, str]] = defaultdict(dict)
    prefix = shard_prefix(cache_key, round_)
    for entry in backend.list(prefix):
        match = _SHARD.fullmatch(entry.name.removeprefix(prefix))
        if match is not None and attempt in (None, match["attempt"]):
            found[int(match["total"]), match["attempt"]][int(match["index"])] = entry.name
    for (total, _), names in found.items():
        if sorted(names) == list(range(total)):
            shards = [shard for index in range(total) if (shard := read_shard(backend, names[index])) is not None]
            if len(shards) == total:
                return shards
    return None


def newest_round(backend: Backend, cache_key: str, *, prefix: str, than: str | None = None) -> str | None:
    """The round, other than the committed one (`than`), in which something was written last.

    prefix: rounds of the same inputs begin with it.
    """
    start = shard_prefix(cache_key)
    newest: dict[str, float] = {}
    for entry in backend.list(start + prefix):
        name = entry.name.removeprefix(start).partition("/")[0]
        newest[name] = max(newest.get(name, 0.0), entry.modified)
    newest.pop(than or "", None)
    return max(newest, key=lambda name: (newest[name], name), default=None)


def commit(
    backend: Backend,
    shards: Sequence[Shard],
    *,
    name: str,
    parts: Mapping[str, Any],
    params: Mapping[str, Any],
    inputs: Mapping[str, str],
    tokens: Sequence[str],
    replaces: str,
    missing: Sequence[str],
    nonce: str,
    created: int,
) -> Commit:
    """Merged manifest, marker of the name, commit record, in this order; returns the record that stands then.

    replaces: ETag of the record to replace, empty where there was none. When another's record is there by now it
    is adopted, unless it is lost again, damaged or unsigned; then this one is written.
    """
    merged = merge(shards, name=name, parts=parts, params=params)
    data = merged.encode()
    manifest = hashlib.sha256(data).hexdigest()
    record = Commit(
        cache_key=merged.cache_key,
        mode=merged.mode,
        name=name,
        manifest=manifest,
        files=len(merged.files),
        size=sum(file.size for file in merged.files),
        total=merged.total,
        round=merged.round,
        attempt=merged.attempt,
        nonce=nonce,
        created=created,
        inputs=inputs,
        tokens=tuple(tokens),
        metrics={metric: sum_ / count for metric, (sum_, count) in merged.metrics.items() if count},
        missing=tuple(missing),
    )
    backend.put(manifest_name(manifest), data)
    backend.put(experiment_name(name, merged.cache_key), b"")
    target, signed = commit_name(merged.cache_key), backend.keyring.sign(record.encode())
    try:
        if replaces:
            _keep_replaced(backend, merged.cache_key, replaces)
            backend.put(target, signed, if_match=replaces)
        else:
            backend.put(target, signed, create=True)
        return record
    except PreconditionFailed:
        pass
    try:
        found = probe(backend, merged.cache_key)
    except DamagedCommit as error:  # it came meanwhile, and is none
        backend.put(target, signed, if_match=error.etag)
        return record
    if found is None:
        backend.put(target, signed, create=True)
        return record
    return found[0]  # our own, when the first answer was lost, or another's


def _keep_replaced(backend: Backend, cache_key: str, etag: str) -> None:
    """Those who read the result that is to be replaced have one grace to finish."""
    try:
        found = probe(backend, cache_key)
    except DamagedCommit:
        return
    if found is not None and found[1] == etag:
        keep_for_a_grace(backend, found[0])
