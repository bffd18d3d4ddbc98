"""`runonce submit`: experiments handed to a cluster, and followed until they end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import click

from runonce.api.changes import point_text
from runonce.api.target import locate
from runonce.cli.cluster import exit_code, status_json, tell, word
from runonce.cli.context import Place, cluster_options, needing_client
from runonce.cli.options import grid_option, json_option, target_options
from runonce.experiment.status import Status
from runonce.settings import Settings


@click.command()
@target_options
@grid_option
@cluster_options
@click.option("--with-source", is_flag=True, help="Send the code along, for images that do not have it; needs --store.")
@click.option(
    "--store", help="With --with-source: URL of the store that the cluster's pods use; RUNONCE_STORE, if not given."
)
@click.option("--wait", is_flag=True, help="Follow them until all have ended.")
@click.option("--timeout", type=float, metavar="SECONDS", help="With --wait: no longer than that.")
@json_option
def submit(
    target: str,
    params: Sequence[str],
    grid: Sequence[str],
    place: Place,
    with_source: bool,
    store: str | None,
    wait: bool,
    timeout: float | None,
    output: str,
) -> int:
    """Hand experiments to a cluster, by server-side apply.

    All fields and the version of the code that is here are written. Exit code with --wait: 0 succeeded or cached, 1
    failed, 75 not ended in time.
    """
    with needing_client():
        from runonce.api.cluster import follow
        from runonce.api.hand_over import code_store, hand_over, namespace_of

    settings = Settings.from_env()
    found = locate(target, params, grid)
    code_to = code_store(store or settings.store) if with_source else None
    api, default = replace(place, namespace=None).connect()
    where = namespace_of(found, place.namespace, default)
    submitted = hand_over(found, api, where, settings, code_to=code_to)
    if output == "text":
        for one, located in zip(submitted, found, strict=True):
            said = (f"{where}/{one.metadata.name}", point_text(located.point), "submitted")
            click.echo("  ".join(filter(None, said)), err=wait)
    if not wait:
        if output == "json":
            click.echo(json.dumps([one.metadata.name for one in submitted], indent=2))
        return 0
    last = follow(api, where, submitted, tell, timeout_s=timeout)
    ended = {one.metadata.name: last.get(one.metadata.name, Status()) for one in submitted}
    if output == "json":
        click.echo(json.dumps([status_json(name, status, where) for name, status in ended.items()], indent=2))
    else:
        for name, status in ended.items():
            click.echo(f"{name}  {word(status):9}  {status.key}  {status.message}".rstrip())
    return exit_code(ended.values())
