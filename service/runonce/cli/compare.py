"""`runonce compare`: one row a result, with what differs and what came out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from runonce.api.comparison import Row, compare_rows, differing, sorted_by
from runonce.api.look_up import Finder
from runonce.cli.options import grid_option, open_given, store_option
from runonce.cli.text import table, value_text
from runonce.errors import InputError
from runonce.experiment.key import MODES
from runonce.settings import Settings


@click.command()
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
@click.option("-p", "--param", "params", multiple=True, metavar="NAME=VALUE", help="Change a parameter of a target.")
@grid_option
@click.option("--mode", type=click.Choice(MODES), help="Results of this mode; the last that there is, if not given.")
@click.option("--sort", metavar="COLUMN", help="By a metric, a parameter, or name; -COLUMN the other way round.")
@click.option("--tensorboard", type=click.Path(file_okay=False, path_type=Path), help="Write event files below DIR.")
@store_option
@click.option("-o", "--output", type=click.Choice(["text", "json", "csv"]), default="text", show_default=True)
def compare(
    names: Sequence[str],
    params: Sequence[str],
    grid: Sequence[str],
    mode: str | None,
    sort: str | None,
    tensorboard: Path | None,
    store: str | None,
    output: str,
) -> int:
    """One row a result: the parameters and parts of the key that differ, and the final metrics.

    NAME is the name of an experiment (digits stands for all of digits-3f9a12bc and its like), a pattern of names,
    the first digits of a key, a file, or module:Class.
    """
    finder = Finder(open_given(store), Settings.from_env())
    found = {}
    for name in names:
        for one in finder.find(name, params, grid):
            if one.result is not None:
                found[one.cache_key] = one.result
    modes = [known for known in MODES if any(result.mode == known for result in found.values())]
    wanted = mode or (modes[-1] if modes else "")
    results = [result for result in found.values() if result.mode == wanted]
    if not results:
        what = f"have no result of {mode}" if mode and modes else "have no result"
        raise InputError.of(
            "", f"{', '.join(names)} {what}.", f"There are some of {', '.join(modes)}." if modes else ""
        )
    if mode is None and len(modes) > 1:
        click.echo(f"results of {wanted}; --mode shows those of {' or '.join(modes[:-1])}", err=True)
    rows = sorted_by(compare_rows(results), sort)
    if tensorboard is not None:
        from runonce.cli.tensorboard import export

        export([(f"{row.name}-{row.mode}-{row.cache_key[:12]}", row.result.metrics()) for row in rows], tensorboard)
    _print(rows, output)
    return 0


def _print(rows: Sequence[Row], output: str) -> None:
    if output == "json":
        click.echo(json.dumps([row.to_json() for row in rows], indent=2))
        return
    changing = differing([row.inputs for row in rows])
    metrics = list(dict.fromkeys(name for row in rows for name in row.metrics))
    header = ["name", "key", *changing, *metrics]
    if output == "csv":
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            cells = [_cell(row.inputs, name) for name in changing] + [_cell(row.metrics, name) for name in metrics]
            writer.writerow([row.name, row.cache_key, *cells])
        click.echo(buffer.getvalue(), nl=False)
        return
    lines = []
    for row in rows:
        cells = [value_text(row.inputs[name], 40) if name in row.inputs else "" for name in changing]
        cells += [value_text(row.metrics[name]) if name in row.metrics else "" for name in metrics]
        lines.append([row.name, row.cache_key[:12], *cells])
    click.echo(table(header, lines))


def _cell(values: Mapping[str, Any], name: str) -> str:
    """A number in all its digits, text as it is, everything else as JSON; nothing where there is none."""
    if name not in values:
        return ""
    value = values[name]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
