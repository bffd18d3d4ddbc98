"""`runonce show`: one experiment's results, or what runs here, with curves; live, as a page, for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from runonce.api.look_up import Finder, newest
from runonce.api.shown import Shown, shown
from runonce.cli.options import json_option, open_given, store_option, target_options
from runonce.cli.text import part_text, size_text, value_text
from runonce.errors import InputError
from runonce.settings import Settings

MAX_FILES = 20


@click.command()
@target_options
@click.option("--mode", "modes", multiple=True, help="Only this mode.")
@click.option("--follow", is_flag=True, help="While it runs on this machine: metrics as they come.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write one page with everything.")
@click.option("--tensorboard", type=click.Path(file_okay=False, path_type=Path), help="Write event files below DIR.")
@store_option
@json_option
def show(
    target: str,
    params: Sequence[str],
    modes: Sequence[str],
    follow: bool,
    html: Path | None,
    tensorboard: Path | None,
    store: str | None,
    output: str,
) -> int:
    """What a result was made from, what it measured, its files; of a run on this machine, what it measures.

    TARGET is a file, module:Class, the name of an experiment, or the first digits of a key.
    """
    finder = Finder(open_given(store), Settings.from_env())
    found = [one for one in newest(finder.find(target, params)) if not modes or one.mode in modes]
    if not found:
        raise InputError.of("", f"{target} has no mode {' or '.join(modes)}.", "Leave --mode out to see which it has.")
    if follow:
        from runonce.cli.follow import follow_to_end

        found = [follow_to_end(one, finder) for one in found]
    there = [shown(one, finder.jobs) for one in found if one.result or one.is_running or one.failure]
    if not there:
        names = ", ".join(dict.fromkeys(one.name for one in found))
        raise InputError.of("", f"{names} has no result, and does not run on this machine.", "Start `runonce run`.")
    if html is not None:
        from runonce.cli.page import page

        _write(html, page(there))
    if tensorboard is not None:
        from runonce.cli.tensorboard import export

        runs = [(f"{one.name}-{one.mode}-{one.cache_key[:12]}", one.entries) for one in there]
        export(runs, tensorboard)
    if output == "json":
        click.echo(json.dumps([one.to_json() for one in there], indent=2))
    elif html is None and tensorboard is None:
        for one in there:
            _print(one)
        _plots(there)
    return 0


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError.of("--html", f"{path} cannot be written: {error.strerror}.", "Name another file.") from error
    click.echo(f"wrote {path}", err=True)


def _print(one: Shown) -> None:
    n = one.processes
    made = f"  {one.created[:19].replace('T', ' ')} UTC" if one.created else ""
    count = f"  {n} process{'' if n == 1 else 'es'}" if n else ""
    click.echo(f"{one.name}  {one.mode}  {one.phase.lower()}{count}{made}")
    click.echo(f"  key  {one.cache_key}")
    if one.artifacts:
        click.echo(f"  artifacts  {one.artifacts}")
    for line in one.failure.lines() if one.failure is not None else ():
        click.echo(f"  {line}")
    _rows("metrics", [(name, value_text(value)) for name, value in one.final.items()])
    _rows("parameters", [(name, value_text(value)) for name, value in one.params.items()])
    if one.missing:
        click.echo(f"    left to the code's defaults: {', '.join(one.missing)}")
    _rows("key parts", [(name, part_text(name, part)) for name, part in one.parts.items() if name != "format"])
    files = [(path, size_text(size)) for path, size, _ in one.files[:MAX_FILES]]
    if len(one.files) > MAX_FILES:
        files.append(("…", f"{len(one.files) - MAX_FILES} more; -o json lists all"))
    _rows("files", files)
    _rows("made on", [(name, value_text(value)) for name, value in one.surroundings.items()])
    if one.versions:
        listed = ", ".join(f"{name} {version}" for name, version in one.versions.items())
        click.echo(f"  versions  {listed}")


def _rows(title: str, rows: Sequence[tuple[str, str]]) -> None:
    if rows:
        click.echo(f"  {title}")
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            click.echo(f"    {name:{width}}  {value}")


def _plots(there: Sequence[Shown]) -> None:
    from runonce.cli.plot import can_plot, plot

    for one in there:
        # One value is no curve; it stands in the list above.
        curves = [curve for curve in one.curves if len(curve.points) > 1]
        if curves and not can_plot():
            click.echo('curves need plotext: pip install "runonce[plot]"', err=True)
            return
        if curves:
            click.echo(f"\n{one.name}  {one.mode}\n{plot(curves)}")
