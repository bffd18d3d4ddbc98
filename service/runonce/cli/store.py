"""`runonce store`: what a store can do."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from runonce.cli.options import json_option, open_given
from runonce.store.check import check_store


@click.group()
def store() -> None:
    """Look at a store itself."""


@store.command()
@click.argument("url", metavar="[URL]", required=False)
@json_option
def check(url: str | None, output: str) -> int:
    """Ask a store what it honours. Exit code: 0 fit, 1 unfit.

    URL is a folder or s3://bucket/prefix; RUNONCE_STORE, or the store of your own, if not given.
    """
    backend = open_given(url)
    checks = check_store(backend)
    fit = all(one.honoured for one in checks if one.needed)
    if output == "json":
        click.echo(json.dumps({"url": backend.url, "fit": fit, "checks": [asdict(one) for one in checks]}, indent=2))
        return 0 if fit else 1
    width = max(len(one.name) for one in checks)
    click.echo(backend.url)
    for one in checks:
        note = "" if one.honoured else "needed" if one.needed else one.otherwise
        click.echo(f"  {one.name:{width}}  {one.found:3}  {note}".rstrip())
    click.echo("fit for results that are shared" if fit else "unfit: results that two write at a time could be lost")
    return 0 if fit else 1
