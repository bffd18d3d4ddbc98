"""`runonce run`. What a hit needs is here and imports little; a miss goes on in `session`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runonce.author.version import ENGINE
from runonce.cli import known
from runonce.cli.options import json_option, read_target, search_from, store_option, target_options
from runonce.errors import Damaged, InputError
from runonce.experiment.contract import STOPPED
from runonce.experiment.key import MODES
from runonce.experiment.phase import Phase, phase_of
from runonce.settings import Settings
from runonce.store.backend import Backend
from runonce.store.commit import probe
from runonce.store.folder import FolderBackend
from runonce.store.results import link_results
from runonce.store.url import open_store

if TYPE_CHECKING:
    from runonce.experiment.manifest import Commit


@dataclass(kw_only=True)
class Outcome:
    """How one mode of one experiment ended. artifacts: folder or URL of the result."""

    cache_key: str
    phase: Phase
    cache_hit: bool = False
    artifacts: str = ""
    message: str = ""
    commit: Commit | None = None
    exit_code: int = 0

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
class Context:
    """What all experiments of one command share. overwrite: make the result anew, whatever is there."""

    settings: Settings
    backend: Backend
    overwrite: bool
    modes: Sequence[str]
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def asked(self, name: str, inputs: Mapping[str, Sequence[str]]) -> list[str]:
        """The modes to run, with what they read, in order. inputs: of every mode that there is."""
        wanted = set(self.modes) or set(inputs)
        unknown = wanted - set(inputs)
        if unknown:
            raise click.UsageError(f"{name} has no mode {', '.join(sorted(unknown))}.")
        needed = {read for mode in wanted for read in inputs[mode]}
        return [mode for mode in inputs if mode in wanted | needed]


@click.command()
@target_options
@click.option("--mode", "modes", multiple=True, type=click.Choice(MODES), help="Only this mode, and what it needs.")
@click.option("--overwrite", is_flag=True, help="Make the result anew.")
@store_option
@json_option
def run(
    target: str, params: Sequence[str], modes: Sequence[str], store: str | None, overwrite: bool, output: str
) -> int:
    """Run experiments here, or take their results from the store.

    TARGET is a file, - for standard input, or module:Class. Exit code: 0 done or cached, 1 failed, 2 wrong input,
    75 stopped and resumable.
    """
    settings = Settings.from_env()
    backend = open_store(store or settings.store)
    context = Context(settings=settings, backend=backend, overwrite=overwrite, modes=modes)
    results = None if params or overwrite or target == "-" else _known_hits(target, context)
    if results is None:
        from runonce.cli.session import run_target

        results = run_target(target, params, context)
    if output == "json":
        shown = [_result(name, outcomes) for name, outcomes in results]
        click.echo(json.dumps(shown if len(shown) > 1 else shown[0], indent=2))
    codes = [outcome.exit_code for _, outcomes in results for outcome in outcomes.values()]
    if output == "text":
        for name, outcomes in results:
            _print(name, outcomes)
    return STOPPED if STOPPED in codes else max(codes, default=0)


def _known_hits(target: str, context: Context) -> list[tuple[str, Outcomes]] | None:
    """The results of a file that was read before, if all of them are in the store; None for the long way."""
    if not Path(target).is_file():
        return None
    data, folder = read_target(target)
    found = known.find(context.settings.known, data)
    if found is None:
        return None
    search_from(folder)
    results = []
    for one in found:
        keys = {}
        try:
            for mode, key, inputs in one.keys(folder, ENGINE):
                keys[mode] = key, tuple(inputs)
        except InputError:
            return None
        asked = context.asked(one.name, {mode: inputs for mode, (_, inputs) in keys.items()})
        outcomes = cached(one.name, {mode: keys[mode] for mode in asked}, one.totals, context)
        if len(outcomes) < len(asked):
            return None
        results.append((one.name, outcomes))
    return results


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


def _result(name: str, outcomes: Outcomes) -> dict[str, Any]:
    phase = phase_of(outcome.phase for outcome in outcomes.values())
    return {"name": name, "phase": phase.value, "modes": {mode: one.to_json() for mode, one in outcomes.items()}}


def _print(name: str, outcomes: Outcomes) -> None:
    for mode, outcome in outcomes.items():
        word = "hit" if outcome.cache_hit else outcome.phase.value.lower()
        note = f"  ({outcome.message})" if outcome.message else ""
        click.echo(f"{name}  {mode:5}  {word:9}  {outcome.cache_key[:12]}{note}")
        if outcome.commit is not None:
            for metric, value in sorted(outcome.commit.metrics.items()):
                click.echo(f"    {metric} = {value:.6g}")
            if outcome.commit.missing:
                click.echo(f"    left to the code's defaults: {', '.join(outcome.commit.missing)}")
        if outcome.artifacts:
            click.echo(f"    artifacts: {outcome.artifacts}")
