"""Options that commands share, and what they lead to: the store."""

from __future__ import annotations

from typing import Any

import click

from runonce.errors import InputError
from runonce.settings import Settings
from runonce.store.backend import Backend
from runonce.store.folder import FolderBackend
from runonce.store.url import open_yours

json_option = click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
store_option = click.option(
    "--store",
    metavar="STORE",
    help="Folder or s3://bucket/prefix of results; RUNONCE_STORE, or one of your own, if not given.",
)
grid_option = click.option(
    "--grid", "grid", multiple=True, metavar="NAME=[…]", help="Every value of a parameter; several make a product."
)


def target_options(command: Any) -> Any:
    change = click.option("-p", "--param", "params", multiple=True, metavar="NAME=VALUE", help="Change a parameter.")
    return click.argument("target", metavar="TARGET")(change(command))


def open_there(store: str | None) -> Backend:
    """For commands that take care of a store: one that is named has to be there. Raises InputError."""
    backend = open_given(store)
    if store and isinstance(backend, FolderBackend) and not backend.exists():
        raise InputError.of("--store", f"there is no store in {backend.url}.", "`run` makes one where it is told to.")
    return backend


def open_given(store: str | None) -> Backend:
    return open_yours(Settings.from_env(), store)
