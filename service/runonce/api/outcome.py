"""How the modes of an experiment ended, and the way of those that are in the store already. Imports little."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runonce.errors import Damaged, InputError
from runonce.experiment.contract import STOPPED
from runonce.experiment.phase import Phase, phase_of
from runonce.settings import Settings
from runonce.store.backend import Backend
from runonce.store.commit import probe
from runonce.store.folder import FolderBackend
from runonce.store.results import link_results

if TYPE_CHECKING:
    from runonce.experiment.manifest import Commit

STOPPED_MESSAGE = "stopped; run again to go on"


@dataclass(kw_only=True)
class Outcome:
    """How one mode of one experiment ended.

    artifacts: folder or URL of the result. exit_code: what it makes of the command's. log_tail: of the process that
    failed first.
    """

    cache_key: str
    phase: Phase
    cache_hit: bool = False
    artifacts: str = ""
    message: str = ""
    commit: Commit | None = None
    exit_code: int = 0
    log_tail: str = ""

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "cacheKey": self.cache_key,
            "cacheHit": self.cache_hit,
            "phase": self.phase.value,
            "artifacts": self.artifacts,
        }
        if self.commit is not None:
            out["metrics"] = dict(self.commit.metrics)
        return out | ({"message": self.message} if self.message else {})


Outcomes = dict[str, Outcome]  # by mode


@dataclass(kw_only=True)
class Ended:
    """One experiment with the outcomes of its modes. point: what a grid put in, by dotted name; empty without one."""

    name: str
    outcomes: Outcomes
    point: Mapping[str, Any] = field(default_factory=dict)

    @property
    def phase(self) -> Phase:
        return phase_of(outcome.phase for outcome in self.outcomes.values())

    @property
    def label(self) -> str:
        if not self.point:
            return self.name
        from runonce.api.changes import point_text

        return f"{self.name}  {point_text(self.point)}"

    @property
    def exit_code(self) -> int:
        """0, 1 failed, 2 wrong input, 75 stopped and resumable."""
        codes = {outcome.exit_code for outcome in self.outcomes.values()}
        return STOPPED if STOPPED in codes else max(codes, default=0)

    @property
    def is_hit(self) -> bool:
        return all(outcome.cache_hit for outcome in self.outcomes.values())

    def to_json(self) -> dict[str, Any]:
        point = {"point": dict(self.point)} if self.point else {}
        modes = {mode: outcome.to_json() for mode, outcome in self.outcomes.items()}
        return {"name": self.name, **point, "phase": self.phase.value, "modes": modes}


@dataclass(kw_only=True)
class Context:
    """What all experiments of one call share.

    overwrite: make the result anew, whatever is there. at_once: experiments that run at one time.
    quick: 0, or the steps of a trial.
    """

    settings: Settings
    backend: Backend
    overwrite: bool = False
    modes: Sequence[str] = ()
    at_once: int = 1
    quick: int = 0
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def asked(self, name: str, inputs: Mapping[str, Sequence[str]]) -> list[str]:
        """The modes to run, with what they read, in order. inputs: of every mode that there is. Raises InputError."""
        wanted = set(self.modes) or set(inputs)
        unknown = wanted - set(inputs)
        if unknown:
            raise InputError.of("", f"{name} has no mode {', '.join(sorted(unknown))}.", f"It has {', '.join(inputs)}.")
        needed = {read for mode in wanted for read in inputs[mode]}
        return [mode for mode in inputs if mode in wanted | needed]


def cached(
    name: str, keys: Mapping[str, tuple[str, Sequence[str]]], totals: Mapping[str, int], context: Context
) -> Outcomes:
    """The modes whose results are in the store, up to the first that is not.

    keys: of each mode its cache key and the modes that it reads. totals: processes that each mode would have.
    """
    outcomes: Outcomes = {}
    for mode, (key, reads) in keys.items():
        try:
            found = probe(context.backend, key)
        except Damaged:
            break
        inputs = {name: made.commit.manifest for name, made in outcomes.items() if name in reads and made.commit}
        if found is None or dict(found[0].inputs) != inputs:
            break
        try:
            outcomes[mode] = hit(name, totals[mode], found[0], context, cached=True)
        except Damaged:
            break  # whoever makes it anew says so
    return outcomes


def hit(name: str, total: int, commit: Commit, context: Context, *, cached: bool) -> Outcome:
    artifacts = f"{context.backend.url}#{commit.manifest}"
    if isinstance(context.backend, FolderBackend):
        artifacts = str(link_results(context.backend, name, commit))
    return Outcome(
        cache_key=commit.cache_key,
        phase=Phase.SUCCEEDED,
        cache_hit=cached,
        artifacts=artifacts,
        message=f"made with nprocesses={commit.total}" if cached and total != commit.total else "",
        commit=commit,
    )
