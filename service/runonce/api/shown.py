"""What `show` tells of one mode, as plain values: for the terminal, for JSON and for the page alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from runonce.api.look_up import Found
from runonce.api.metrics import Curve, curves_of, read_running
from runonce.experiment.metrics import Entry
from runonce.local.processes import LocalJobs
from runonce.store.failures import FailedAttempt


@dataclass(kw_only=True)
class Shown:
    """entries: what was logged. facts: one value for each process that recorded them."""

    name: str
    mode: str
    cache_key: str
    phase: str
    created: str = ""
    artifacts: str = ""
    processes: int = 0
    params: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, Any] = field(default_factory=dict)
    missing: Sequence[str] = ()
    final: Mapping[str, float] = field(default_factory=dict)
    entries: Sequence[Entry] = ()
    files: Sequence[tuple[str, int, str]] = ()  # path, bytes, sha256
    facts: Sequence[Mapping[str, Any]] = ()
    failure: FailedAttempt | None = None  # the newest attempt, where there is no result

    @cached_property
    def curves(self) -> Sequence[Curve]:
        return curves_of(self.entries)

    @property
    def versions(self) -> Mapping[str, str]:
        return self.facts[0].get("versions", {}) if self.facts else {}

    @property
    def surroundings(self) -> dict[str, str]:
        """Everything else that the first process recorded, as text."""
        left_out = ("versions", "resolvedParams")
        return {
            name: str(value) for name, value in (self.facts[0] if self.facts else {}).items() if name not in left_out
        }

    def to_json(self) -> dict[str, Any]:
        curves: dict[str, dict[str, list[list[float]]]] = {}
        for curve in self.curves:
            curves.setdefault(curve.name, {})[str(curve.index)] = [list(point) for point in curve.points]
        return {
            "name": self.name,
            "mode": self.mode,
            "cacheKey": self.cache_key,
            "phase": self.phase,
            "created": self.created,
            "artifacts": self.artifacts,
            "processes": self.processes,
            "params": dict(self.params),
            "parts": dict(self.parts),
            "missing": list(self.missing),
            "metrics": dict(self.final),
            "curves": curves,
            "files": [{"path": path, "size": size, "sha256": sha256} for path, size, sha256 in self.files],
            "facts": [dict(facts) for facts in self.facts],
            **({"failure": self.failure.to_json()} if self.failure is not None else {}),
        }


def shown(found: Found, jobs: LocalJobs) -> Shown:
    """Raises Damaged where the store has lost what it held."""
    result, job = found.result, found.job
    if job is not None:  # what runs is newer than what is there
        entries = read_running(jobs.outputs(job.name, job.uid), mode=found.mode)
        return Shown(
            name=found.name,
            mode=found.mode,
            cache_key=found.cache_key,
            phase="Running",
            processes=job.completions,
            final={curve.name: curve.last for curve in reversed(curves_of(entries))},  # of process 0
            entries=entries,
            failure=found.failure,
        )
    if result is None and found.failure is not None:
        when = datetime.fromtimestamp(found.failure.when, UTC).isoformat()
        return Shown(
            name=found.name,
            mode=found.mode,
            cache_key=found.cache_key,
            phase="Failed",
            created=when,
            failure=found.failure,
        )
    if result is None:
        return Shown(name=found.name, mode=found.mode, cache_key=found.cache_key, phase="Pending")
    return Shown(
        name=found.name,
        mode=found.mode,
        cache_key=found.cache_key,
        phase="Succeeded",
        created=result.created.isoformat(),
        artifacts=result.place,
        processes=result.commit.total,
        params=result.params,
        parts=result.parts,
        missing=result.commit.missing,
        final=result.final,
        entries=result.metrics(),
        files=[(file.path, file.size, file.sha256) for file in result.manifest.files],
        facts=result.facts,
    )
