"""`runonce store`: what a store can do, and who vouches for what is in it."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from runonce.cli.options import json_option, open_given
from runonce.cli.waiting import Waiting
from runonce.errors import InputError
from runonce.store.check import check_store
from runonce.store.resign import sign_all


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


@store.command()
@click.argument("url", metavar="[URL]", required=False)
@click.option("--unsigned", is_flag=True, help="You vouch for records without a signature, or of an unknown key.")
def sign(url: str | None, unsigned: bool) -> int:
    """Sign every commit record by the first key of RUNONCE_SIGNING_KEY_FILE. Exit code: 1 where one was left.

    After a key was replaced, records of the old one are signed by the new one; then the old one can go.
    """
    backend = open_given(url)
    if not backend.keyring.keys:
        raise InputError.of("signing", "there is no key to sign by.", "Name a file in RUNONCE_SIGNING_KEY_FILE.")
    signed = left = 0
    with Waiting() as tell:
        for _, why in sign_all(backend, unsigned=unsigned, tell=tell):
            signed, left = signed + (why is None), left + (why is not None)
            if why is not None:
                click.echo(f"left: {why}", err=True)
    click.echo(f"{signed} signed" + (f", {left} left" if left else ""))
    return int(left > 0)
