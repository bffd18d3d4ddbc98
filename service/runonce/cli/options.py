"""Options that commands share, and what they lead to: the bytes of a target, the path of its code, the store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from runonce.errors import InputError
from runonce.settings import Settings
from runonce.store.backend import Backend
from runonce.store.url import open_store

json_option = click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
store_option = click.option(
    "--store",
    metavar="STORE",
    help="Folder or s3://bucket/prefix of results; RUNONCE_STORE, or one of your own, if not given.",
)


def target_options(command: Any) -> Any:
    change = click.option("-p", "--param", "params", multiple=True, metavar="NAME=VALUE", help="Change a parameter.")
    return click.argument("target", metavar="TARGET")(change(command))


def open_given(store: str | None) -> Backend:
    return open_store(store or Settings.from_env().store)


def read_target(target: str) -> tuple[bytes, Path]:
    """The bytes of a file or of standard input (`-`), and the folder that they belong to. Raises InputError."""
    if target == "-":
        return sys.stdin.buffer.read(), Path.cwd()
    path = Path(target)
    try:
        return path.read_bytes(), path.absolute().parent
    except OSError as error:
        raise InputError.of(
            "", f"{target} cannot be read: {error.strerror}.", "Name a file, - for standard input, or module:Class."
        ) from error


def search_from(folder: Path) -> None:
    """Let modules be imported from the working directory and `folder`, before anything that is installed."""
    first = list(dict.fromkeys((str(Path.cwd()), str(folder))))
    sys.path[:] = [*first, *(path for path in sys.path if path not in ("", *first))]
