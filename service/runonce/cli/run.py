"""`runonce run`. What a hit needs is here and imports little; a miss goes on in `api.sweep`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os.path import isfile

import click

from runonce.api import known
from runonce.api.outcome import Context, Ended, cached
from runonce.api.place import read_target, search_from
from runonce.author.version import ENGINE
from runonce.cli.options import grid_option, json_option, store_option, target_options
from runonce.errors import InputError
from runonce.experiment.contract import STOPPED
from runonce.experiment.key import MODES
from runonce.settings import Settings
from runonce.store.url import open_yours


@click.command()
@target_options
@grid_option
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Experiments that run at one time.")
@click.option("--mode", "modes", multiple=True, type=click.Choice(MODES), help="Only this mode, and what it needs.")
@click.option("--overwrite", is_flag=True, help="Make the result anew.")
@click.option("--quick", type=click.IntRange(1), metavar="N", help="A trial of N steps a stage; nothing is kept.")
@store_option
@json_option
def run(
    target: str,
    params: Sequence[str],
    grid: Sequence[str],
    jobs: int,
    modes: Sequence[str],
    store: str | None,
    overwrite: bool,
    quick: int | None,
    output: str,
) -> int:
    """Run experiments here, or take their results from the store.

    TARGET is a file, - for standard input, or module:Class. Exit code: 0 done or cached, 1 failed, 2 wrong input,
    75 stopped and resumable.
    """
    settings = Settings.from_env()
    backend = open_yours(settings, store)
    context = Context(
        settings=settings, backend=backend, overwrite=overwrite, modes=modes, at_once=jobs, quick=quick or 0
    )
    results = None if params or grid or overwrite or quick or target == "-" else _known_hits(target, context)
    if results is None:
        results = _run(target, params, grid, context)
    if output == "json":
        shown = [ended.to_json() for ended in results]
        click.echo(json.dumps(shown if len(shown) > 1 or grid else shown[0], indent=2))
    else:
        for ended in results:
            _print(ended)
    if len(results) > 1:
        _sum_up(results)
    codes = [ended.exit_code for ended in results]
    return STOPPED if STOPPED in codes else max(codes, default=0)


def _run(target: str, params: Sequence[str], grid: Sequence[str], context: Context) -> list[Ended]:
    from runonce.api.progress import Screen
    from runonce.api.sweep import run_all
    from runonce.api.target import locate

    found = locate(target, params, grid)
    if context.quick:
        from runonce.api.quick import run_quick

        return run_quick(found, context, Screen())
    results = run_all(found, context, Screen())
    if not params and not grid and isfile(target):
        known.keep(context.settings.known, read_target(target)[0], found)
    return results


def _known_hits(target: str, context: Context) -> list[Ended] | None:
    """The results of a file that was read before, if all of them are in the store; None for the long way."""
    if not isfile(target):
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
        results.append(Ended(name=one.name, outcomes=outcomes))
    return results


def _print(ended: Ended) -> None:
    for mode, outcome in ended.outcomes.items():
        word = "hit" if outcome.cache_hit else outcome.phase.value.lower()
        note = f"  ({outcome.message})" if outcome.message else ""
        click.echo(f"{ended.label}  {mode:5}  {word:9}  {outcome.cache_key[:12]}{note}")
        if outcome.commit is not None:
            for metric, value in sorted(outcome.commit.metrics.items()):
                click.echo(f"    {metric} = {value:.6g}")
            if outcome.commit.missing:
                click.echo(f"    left to the code's defaults: {', '.join(outcome.commit.missing)}")
        if outcome.artifacts:
            click.echo(f"    artifacts: {outcome.artifacts}")


def _sum_up(results: Sequence[Ended]) -> None:
    """On standard error, so that standard output stays the results."""
    hits = sum(ended.is_hit for ended in results)
    left = [ended for ended in results if ended.exit_code]
    failed = [ended for ended in left if ended.exit_code != STOPPED]
    made, stopped = len(results) - hits - len(left), len(left) - len(failed)
    more = f", {stopped} stopped or not begun" if stopped else ""
    click.echo(f"{len(results)} experiments: {hits} cached, {made} made, {len(failed)} failed{more}", err=True)
    for ended in failed:
        for mode, outcome in ended.outcomes.items():
            if outcome.exit_code:
                click.echo(f"  failed: {ended.label}  {mode}: {outcome.message}", err=True)
    if left:
        click.echo("the same command runs these alone: results that are in the store are taken from it", err=True)
