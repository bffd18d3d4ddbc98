"""`runonce pin` and `unpin`: results that are kept whatever their age."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from runonce.cli.chosen import choose, complete_results, mode_option, newest
from runonce.cli.options import json_option, open_given, store_option
from runonce.cli.text import table
from runonce.errors import InputError
from runonce.store import pins


@click.command()
@click.argument("label", required=False)
@click.argument("results", nargs=-1, metavar="[RESULT]…", shell_complete=complete_results)
@mode_option
@store_option
@json_option
def pin(label: str | None, results: Sequence[str], modes: Sequence[str], store: str | None, output: str) -> None:
    """Keep results whatever their age, under a label; without arguments, list the labels.

    RESULT is a name (its newest result of each mode) or the first digits of a key. A label that is there already then
    keeps these instead.
    """
    backend = open_given(store)
    if label is not None:
        if not results:
            raise InputError.of("RESULT", f"nothing is named that {label} is to keep.", "See `runonce ls`.")
        chosen = [made for text in results for made in newest(choose(backend, [text], modes))]
        pins.pin(backend, label, {made.cache_key for made in chosen})
    found = pins.read_pins(backend)
    if output == "json":
        click.echo(json.dumps([{"label": one, "cacheKeys": keys} for one, keys in found.items()], indent=2))
    elif found:
        rows = [(one, " ".join(key[:12] for key in keys)) for one, keys in found.items()]
        click.echo(table(("LABEL", "KEYS"), rows))
    else:
        click.echo(f"no pins in {backend.url}", err=True)


@click.command()
@click.argument("label")
@store_option
def unpin(label: str, store: str | None) -> None:
    """Take a label away: what it kept has an age again."""
    backend = open_given(store)
    if not pins.unpin(backend, label):
        raise InputError.of("LABEL", f"no pin in {backend.url} has the label {label}.", "See `runonce pin`.")
