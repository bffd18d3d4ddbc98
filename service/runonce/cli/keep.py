"""Commands about results that are there: list them, take their files out of the store, take them away."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from runonce.api.look_up import Finder, Found
from runonce.api.results import Result, healed_by_verify
from runonce.cli.chosen import choose, complete_results, mode_option, newest
from runonce.cli.options import json_option, open_given, store_option
from runonce.cli.text import size_text, table, value_text
from runonce.cli.waiting import Waiting
from runonce.errors import InputError
from runonce.experiment.manifest import Commit
from runonce.settings import Settings
from runonce.store.backend import Backend, listed
from runonce.store.commit import DamagedCommit, probe
from runonce.store.earlier import stem_of
from runonce.store.find import is_prefix
from runonce.store.pins import read_pins
from runonce.store.restore import restore


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]…", shell_complete=complete_results)
@mode_option
@store_option
@json_option
def ls(names: Sequence[str], modes: Sequence[str], store: str | None, output: str) -> None:
    """What runs on this machine, and the results in the store, newest first; of these names or keys alone, if given."""
    backend = open_given(store)
    running = [one for one in Finder(backend, Settings.from_env()).running() if not modes or one.mode in modes]
    if names:
        running = [one for one in running if any(_means(text, one) for text in names)]
        found = _chosen(backend, names, modes, running)
    else:
        found = [commit for commit in _all(backend) if not modes or commit.mode in modes]
    found.sort(key=lambda commit: (-commit.created, commit.name, commit.mode))
    if output == "json":
        rows = [_running_json(one) for one in running] + [commit_json(commit) for commit in found]
        click.echo(json.dumps(rows, indent=2))
    elif found or running:
        lines = [_running_row(one) for one in running] + [_row(commit) for commit in found]
        click.echo(table(("NAME", "MODE", "KEY", "MADE", "FILES", "SIZE", "METRICS"), lines))
    else:
        click.echo(f"no results in {backend.url}", err=True)


def _means(text: str, one: Found) -> bool:
    return text in (one.name, stem_of(one.name)) or (is_prefix(text) and one.cache_key.startswith(text))


def _chosen(backend: Backend, names: Sequence[str], modes: Sequence[str], running: Sequence[Found]) -> list[Commit]:
    """The results that the names mean; one of which something runs may have none yet."""
    found: dict[str, Commit] = {}
    for text in names:
        try:
            found |= {commit.cache_key: commit for commit in choose(backend, [text], modes)}
        except InputError:
            if not any(_means(text, one) for one in running):
                raise
    return list(found.values())


def _running_row(one: Found) -> tuple[str, ...]:
    done = f"{len(one.job.succeeded)} of {one.job.completions} processes done" if one.job is not None else ""
    return one.name, one.mode, one.cache_key[:12], "running", "", "", done


def _running_json(one: Found) -> dict[str, Any]:
    return {
        "name": one.name,
        "mode": one.mode,
        "cacheKey": one.cache_key,
        "phase": "Running",
        "created": None,
        "files": 0,
        "size": 0,
        "nprocesses": one.job.completions if one.job is not None else 0,
        "manifest": None,
        "metrics": {},
    }


def _all(backend: Backend) -> list[Commit]:
    found = []
    with Waiting() as tell:
        for number, entry in enumerate(listed(backend, "c/")):
            tell("reading results", number)
            try:
                commit = probe(backend, entry.name.rpartition("/")[2])
            except DamagedCommit as error:
                click.echo(f"warning: {error} See `runonce verify`.", err=True)
                continue
            if commit is not None:
                found.append(commit[0])
    return found


def _row(commit: Commit) -> tuple[str, ...]:
    metrics = "  ".join(f"{name}={value_text(value)}" for name, value in sorted(commit.metrics.items())[:3])
    made = datetime.fromtimestamp(commit.created).strftime("%Y-%m-%d %H:%M")
    key = commit.cache_key[:12]
    return commit.name, commit.mode, key, made, str(commit.files), size_text(commit.size), metrics


def commit_json(commit: Commit) -> dict[str, Any]:
    return {
        "name": commit.name,
        "mode": commit.mode,
        "cacheKey": commit.cache_key,
        "phase": "Succeeded",
        "created": commit.created,
        "files": commit.files,
        "size": commit.size,
        "nprocesses": commit.total,
        "manifest": commit.manifest,
        "metrics": dict(commit.metrics),
    }


# --- pull ---------------------------------------------------------------------------------------------------


@click.command()
@click.argument("result", metavar="RESULT", shell_complete=complete_results)
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@mode_option
@store_option
@json_option
def pull(result: str, folder: Path | None, modes: Sequence[str], store: str | None, output: str) -> None:
    """Write a result's files into FOLDER, every byte verified; your own copies, free to change.

    RESULT is a name (its newest result of each mode) or the first digits of a key. Without FOLDER each mode gets one
    of its own here, <name>-<mode>-<digits of the key>.
    """
    backend = open_given(store)
    write_files([(backend, made) for made in newest(choose(backend, [result], modes))], result, folder, output)


def write_files(found: Sequence[tuple[Backend, Commit]], result: str, folder: Path | None, output: str) -> None:
    """What `pull` writes and tells, for results of one name. Raises InputError, StoreError."""
    if folder is not None and len(found) > 1:
        names = ", ".join(made.mode for _, made in found)
        raise InputError.of("FOLDER", f"is one, and {result} has the modes {names}.", "Name one with --mode.")
    pulled = []
    for backend, made in found:
        target = folder or Path(f"{made.name}-{made.mode}-{made.cache_key[:12]}")
        check_empty(target)
        with Waiting() as tell:
            fetch(backend, made, target, tell)
        pulled.append({"name": made.name, "mode": made.mode, "cacheKey": made.cache_key, "folder": str(target)})
        if output == "text":
            click.echo(f"{target}  {made.files} files, {size_text(made.size)}")
    if output == "json":
        click.echo(json.dumps(pulled, indent=2))


def check_empty(target: Path) -> None:
    """Raises InputError."""
    if target.exists() and any(target.iterdir()):
        raise InputError.of("FOLDER", f"{target} has files in it, which would be mixed up.", "Name a new folder.")


def fetch(backend: Backend, commit: Commit, target: Path, tell: Waiting) -> None:
    """Raises Damaged, and InputError where they cannot be written."""
    try:
        with healed_by_verify(commit):
            restore(backend, Result(backend, commit).manifest, target, moved=tell.moving("reading files", commit.size))
    except OSError as error:
        raise InputError.of("FOLDER", f"{target} cannot be written: {error.strerror}.", "Name another.") from error


# --- rm -----------------------------------------------------------------------------------------------------


@click.command()
@click.argument("results", nargs=-1, required=True, metavar="RESULT…", shell_complete=complete_results)
@mode_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_option
def rm(results: Sequence[str], modes: Sequence[str], yes: bool, store: str | None) -> None:
    """Take results out of the store: the next run makes them anew. `gc` frees the space two days later.

    RESULT is a name (all results of it) or the first digits of a key.
    """
    from runonce.store.remove import remove

    backend = open_given(store)
    commits = choose(backend, results, modes)
    pinned = {key: label for label, keys in read_pins(backend).items() for key in keys}
    for commit in commits:
        if label := pinned.get(commit.cache_key):
            what = f"{commit.cache_key[:12]} ({commit.name}, {commit.mode}) is pinned by {label}."
            raise InputError.of("RESULT", what, f"`runonce unpin {label}` lets it go.")
    for commit in commits:
        click.echo("  ".join(_row(commit)[:3]), err=True)
    size = size_text(sum(commit.size for commit in commits))
    if not yes and not _is_sure(f"Remove {len(commits)} results, {size}?"):
        raise click.Abort
    with Waiting() as tell:
        for number, commit in enumerate(commits):
            tell("removing", number)
            found = probe(backend, commit.cache_key)
            if found is None or found[0].nonce != commit.nonce or not remove(backend, *found):
                click.echo(f"{commit.cache_key[:12]} is another result by now, and stays.", err=True)


def _is_sure(question: str) -> bool:
    """Raises InputError where nobody is there to answer."""
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo(err=True)
        raise InputError.of("--yes", "is not given, and nobody is there to ask.", "Give it to remove them.") from None
