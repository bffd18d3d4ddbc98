"""Runs as calls: what `runonce run` does, from a program or a notebook."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runonce.api.changes import axes_of, changes_of, point_text
from runonce.api.outcome import Context, Ended, Outcome
from runonce.api.progress import Screen
from runonce.api.results import Result
from runonce.api.sweep import run_all
from runonce.api.target import Target, locate_given
from runonce.errors import InputError, RunFailed, RunStopped
from runonce.experiment.contract import STOPPED
from runonce.settings import Settings
from runonce.store.url import open_yours


class Ran(Mapping[str, Result]):
    """One experiment that was run, or taken from the store: mode to Result, in the order of the modes.

    A mode that ended without a result is not among them; to ask for it raises RunFailed with the reason.
    """

    def __init__(self, ended: Ended, context: Context) -> None:
        self._ended, self._context = ended, context

    @property
    def name(self) -> str:
        return self._ended.name

    @property
    def point(self) -> Mapping[str, Any]:
        """What the grid put in, by dotted name, as a file holds it; empty without a grid."""
        return dict(self._ended.point)

    @property
    def phase(self) -> str:
        """Succeeded, Failed, Blocked, Suspended or Pending."""
        return self._ended.phase.value

    @property
    def is_hit(self) -> bool:
        """Whether all of it was in the store."""
        return self._ended.is_hit

    def __getitem__(self, mode: str) -> Result:
        outcome = self._ended.outcomes[mode]
        if outcome.commit is None:
            raise RunFailed(f"{self.name} has no result of {mode}: {_why(outcome)}")
        return Result(self._context.backend, outcome.commit, settings=self._context.settings)

    def __iter__(self) -> Iterator[str]:
        return (mode for mode, outcome in self._ended.outcomes.items() if outcome.commit is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, mode: object) -> bool:
        return any(known == mode for known in self)

    def __repr__(self) -> str:
        point = f" {point_text(self.point)}" if self.point else ""
        return f"<Ran {self.name}{point} {self.phase}: {', '.join(map(repr, self.values())) or 'no result'}>"


def run(
    target: Target,
    params: Mapping[str, Any] | None = None,
    *,
    modes: Sequence[str] = (),
    store: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Ran:
    """Run one experiment on this machine, or take its results from the store; returns when all modes have one.

    target: an ExperimentConfig class or an instance with parameters of its own, `"module:Class"`, or the path of a
    file with one document. params: dotted names to values that replace the target's. modes: only these, and what they
    read. store: folder or URL; RUNONCE_STORE, or one of your own, if not given. overwrite: make the result anew.
    progress: tell on standard error what happens.

    Raises InputError for what cannot be, RunFailed when a mode ended without a result, RunStopped after an interrupt.
    """
    ran = _run(target, params, {}, modes, store, overwrite, progress, 1, single=True)[0]
    for mode, outcome in ran._ended.outcomes.items():
        if outcome.exit_code:
            raise RunFailed(f"{ran.name} {mode}: {_why(outcome)}")
    return ran


def sweep(
    target: Target,
    grid: Mapping[str, Iterable[Any]] | None = None,
    params: Mapping[str, Any] | None = None,
    *,
    jobs: int = 1,
    modes: Sequence[str] = (),
    store: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> list[Ran]:
    """Run every experiment of the target at every point of the grid; points that are in the store are taken from it.

    grid: dotted names to the values of each; the points are their product, the last name running fastest. jobs:
    experiments that run at one time. The rest as for `run`; a file may hold several documents.

    A point that fails ends no other and raises nothing here: its phase is Failed, and its result raises when asked for.
    Raises InputError for what cannot be, RunStopped after an interrupt.
    """
    if jobs < 1:
        raise InputError.of("jobs", f"is {jobs}.", "Give 1 or more.")
    return _run(target, params, grid or {}, modes, store, overwrite, progress, jobs)


def _run(
    target: Target,
    params: Mapping[str, Any] | None,
    grid: Mapping[str, Iterable[Any]],
    modes: Sequence[str],
    store: str | Path | None,
    overwrite: bool,
    progress: bool,
    jobs: int,
    *,
    single: bool = False,
) -> list[Ran]:
    if isinstance(modes, str):
        modes = (modes,)
    settings = Settings.from_env()
    backend = open_yours(settings, str(store) if store is not None else None)
    context = Context(settings=settings, backend=backend, overwrite=overwrite, modes=modes, at_once=jobs)
    path = list(sys.path)
    try:
        found = locate_given(target, changes_of(params or {}), axes_of(grid))
        if single and len(found) != 1:
            raise InputError.of("", f"{target} holds {len(found)} experiments.", "Use runonce.sweep, which runs all.")
        ended = run_all(found, context, Screen(quiet=not progress))
    finally:
        sys.path[:] = path  # a caller's own; what a target needs was put first
    if any(one.exit_code == STOPPED and one.phase.value != "Suspended" for one in ended):
        done = sum(one.exit_code == 0 for one in ended)
        raise RunStopped(f"stopped after a checkpoint, {done} of {len(ended)} done; run again to go on.")
    return [Ran(one, context) for one in ended]


def _why(outcome: Outcome) -> str:
    tail = outcome.log_tail.strip()
    return ": ".join(part for part in (outcome.phase.value, outcome.message) if part) + (f"\n{tail}" if tail else "")
