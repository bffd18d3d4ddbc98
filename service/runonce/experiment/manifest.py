"""The records that say what a result is made of: shard manifest, merged manifest, commit record.

Each is canonical JSON with `format: 1`; both directions stand here. Where they lie is the store's affair.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runonce.errors import Damaged, NewerFormat
from runonce.experiment.canonical import canonical
from runonce.experiment.seal import FORMAT, read_record, write_record

OTHER_SHARDS = "shard-{index}"  # the folder that files of index > 0 get in the merged result

_RESERVED = re.compile(r"shard-\d+(/|$)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """`size` bytes at `offset` of the blob with this digest."""

    blob: str
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """One artifact. path: relative, POSIX. parts: empty where the blob of the same digest is the whole file."""

    path: str
    size: int
    sha256: str
    parts: tuple[Part, ...] = ()

    def to_json(self) -> dict[str, Any]:
        parts = [{"blob": p.blob, "offset": p.offset, "size": p.size} for p in self.parts]
        return {"path": self.path, "size": self.size, "sha256": self.sha256} | ({"parts": parts} if parts else {})

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> File:
        parts = tuple(Part(blob=p["blob"], offset=p["offset"], size=p["size"]) for p in value.get("parts", ()))
        return cls(path=value["path"], size=value["size"], sha256=value["sha256"], parts=parts)

    @property
    def blobs(self) -> tuple[str, ...]:
        return tuple(part.blob for part in self.parts) or (self.sha256,)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """What one process of a mode leaves. `metrics`: name to (sum, count), so that shards merge exactly.

    `facts` are recorded and never hashed: versions, platform, device, resolvedParams, times.
    """

    cache_key: str
    mode: str
    round: str
    total: int
    attempt: str
    index: int
    files: tuple[File, ...]
    metrics: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        return write_record(
            "shard",
            cacheKey=self.cache_key,
            mode=self.mode,
            round=self.round,
            total=self.total,
            attempt=self.attempt,
            index=self.index,
            files=[file.to_json() for file in self.files],
            metrics={name: [sum_, count] for name, (sum_, count) in self.metrics.items()},
            facts=dict(self.facts),
        )

    @classmethod
    def decode(cls, data: bytes, *, name: str) -> Shard:
        value = _decode("shard", data, name)
        with _Damage(name):
            return cls(
                cache_key=value["cacheKey"],
                mode=value["mode"],
                round=value["round"],
                total=value["total"],
                attempt=value["attempt"],
                index=value["index"],
                files=tuple(File.from_json(file) for file in value["files"]),
                metrics={key: (float(pair[0]), int(pair[1])) for key, pair in value["metrics"].items()},
                facts=value["facts"],
            )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A mode's whole result: the files of all shards under one tree, metrics merged, and what the key is made of.

    parts: those of the key. params: the hash form behind `parts["params"]`.
    """

    cache_key: str
    mode: str
    name: str
    parts: Mapping[str, Any]
    params: Mapping[str, Any]
    round: str
    total: int
    attempt: str
    files: tuple[File, ...]
    metrics: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    facts: tuple[Mapping[str, Any], ...] = ()

    def encode(self) -> bytes:
        return _encode(
            "manifest",
            cacheKey=self.cache_key,
            mode=self.mode,
            name=self.name,
            parts=dict(self.parts),
            params=dict(self.params),
            round=self.round,
            total=self.total,
            attempt=self.attempt,
            files=[file.to_json() for file in self.files],
            metrics={name: [sum_, count] for name, (sum_, count) in self.metrics.items()},
            facts=[dict(facts) for facts in self.facts],
        )

    @classmethod
    def decode(cls, data: bytes, *, name: str) -> Manifest:
        value = _decode("manifest", data, name)
        with _Damage(name):
            return cls(
                cache_key=value["cacheKey"],
                mode=value["mode"],
                name=value["name"],
                parts=value["parts"],
                params=value["params"],
                round=value["round"],
                total=value["total"],
                attempt=value["attempt"],
                files=tuple(File.from_json(file) for file in value["files"]),
                metrics={key: (float(pair[0]), int(pair[1])) for key, pair in value["metrics"].items()},
                facts=tuple(value["facts"]),
            )


@dataclass(frozen=True, kw_only=True)
class Commit:
    """The small record whose presence makes a result a hit. `nonce` tells the writer that the record is its own.

    inputs: mode to the digest of the merged manifest that was read. tokens: the newest 32 overwrite and rerun
    requests that this result or an earlier one honoured. created: seconds since 1970, for people only.
    """

    cache_key: str
    mode: str
    name: str
    manifest: str
    files: int
    size: int
    total: int
    round: str
    attempt: str
    nonce: str
    created: int
    inputs: Mapping[str, str] = field(default_factory=dict)
    tokens: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()  # fields that a partial file left to the code's defaults

    def encode(self) -> bytes:
        return _encode(
            "commit",
            cacheKey=self.cache_key,
            mode=self.mode,
            name=self.name,
            manifest=self.manifest,
            files=self.files,
            size=self.size,
            total=self.total,
            round=self.round,
            attempt=self.attempt,
            nonce=self.nonce,
            created=self.created,
            inputs=dict(self.inputs),
            tokens=list(self.tokens),
            metrics=dict(self.metrics),
            missing=list(self.missing),
        )

    @classmethod
    def decode(cls, data: bytes, *, name: str) -> Commit:
        value = _decode("commit", data, name)
        with _Damage(name):
            return cls(
                cache_key=value["cacheKey"],
                mode=value["mode"],
                name=value["name"],
                manifest=value["manifest"],
                files=value["files"],
                size=value["size"],
                total=value["total"],
                round=value["round"],
                attempt=value["attempt"],
                nonce=value["nonce"],
                created=value["created"],
                inputs=value["inputs"],
                tokens=tuple(value["tokens"]),
                metrics=value["metrics"],
                missing=tuple(value["missing"]),
            )


def merge(shards: Sequence[Shard], *, name: str, parts: Mapping[str, Any], params: Mapping[str, Any]) -> Manifest:
    """One manifest from a complete set of shards of one attempt.

    Files of index 0 keep their paths; those of index i lie under `shard-<i>/`, so that no two can meet.
    Metrics are added up in index order. Raises ValueError when the set is not 0..total-1 of one attempt.
    """
    ordered = sorted(shards, key=lambda shard: shard.index)
    first = ordered[0] if ordered else None
    identity = {(s.cache_key, s.mode, s.round, s.total, s.attempt) for s in ordered}
    if first is None or len(identity) != 1 or [s.index for s in ordered] != list(range(first.total)):
        raise ValueError(f"these shards are no complete set of one attempt: {[s.index for s in ordered]}")
    files: list[File] = []
    metrics: dict[str, tuple[float, int]] = {}
    for shard in ordered:
        folder = OTHER_SHARDS.format(index=shard.index) + "/" if shard.index else ""
        files += [File(path=folder + f.path, size=f.size, sha256=f.sha256, parts=f.parts) for f in shard.files]
        for metric, (sum_, count) in shard.metrics.items():
            before = metrics.get(metric, (0.0, 0))
            metrics[metric] = (before[0] + sum_, before[1] + count)
    return Manifest(
        cache_key=first.cache_key,
        mode=first.mode,
        name=name,
        parts=parts,
        params=params,
        round=first.round,
        total=first.total,
        attempt=first.attempt,
        files=tuple(sorted(files, key=lambda file: file.path)),
        metrics=metrics,
        facts=tuple(shard.facts for shard in ordered),
    )


def path_fault(path: str) -> str | None:
    """Why an artifact cannot have this relative POSIX path; None if it can."""
    segments = path.split("/")
    if path.startswith("/") or any(segment in ("", ".", "..") for segment in segments):
        return "it is not a plain relative path"
    if "\\" in path or any(ord(character) < 32 for character in path):
        return "it holds a backslash or a control character"
    if _RESERVED.match(path):
        return "folders named shard-<number> are kept for the files of the other processes"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not valid UTF-8"
    return None


def _encode(kind: str, **values: Any) -> bytes:
    return canonical({"format": FORMAT, "kind": kind, **values})


def _decode(kind: str, data: bytes, name: str) -> dict[str, Any]:
    with _Damage(name):
        value = read_record(data)
        if not isinstance(value, dict) or value.get("kind") != kind:
            raise ValueError(f"it is no {kind} record")
        format_ = value["format"]
    if format_ != FORMAT:
        raise NewerFormat(
            f"{name} is a {kind} record of format {format_}; this release reads formats up to {FORMAT}. "
            "Use the release of Runonce that wrote it, or a later one."
        )
    return value


class _Damage:
    """Turns whatever a malformed record makes of reading it into `Damaged`, with its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, KeyError | TypeError | ValueError | IndexError | AttributeError | RecursionError):
            raise Damaged(f"{self.name} is damaged: {error!r}.") from error
