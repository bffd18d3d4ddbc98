"""Which backend answers for the URL of a store."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from runonce.errors import InputError
from runonce.settings import Settings
from runonce.store.backend import MAX_THREADS, Backend
from runonce.store.folder import FolderBackend
from runonce.store.signing import NO_KEYS, Keyring, read_keyring

if TYPE_CHECKING:
    from runonce.store.location import S3Location


def open_store(url: str, keyring: Keyring = NO_KEYS, *, transfers: str = "") -> Backend:
    """A folder's path, or s3://bucket/prefix. Raises InputError for a URL that nothing here answers for.

    transfers: how many requests are under way at a time, as a user writes it.
    """
    backend = _opened(url)
    backend.keyring = keyring
    if transfers:
        if not transfers.isdecimal() or not 1 <= int(transfers) <= MAX_THREADS:
            raise InputError.of("RUNONCE_TRANSFERS", f"is {transfers!r}.", f"Give a number from 1 to {MAX_THREADS}.")
        backend.threads = int(transfers)
    return backend


def open_yours(settings: Settings, url: str | None = None) -> Backend:
    """The store with this URL, else the one of the settings. Raises InputError."""
    keyring = read_keyring(settings.signing_key_file, required=settings.require_signed)
    return open_store(url or settings.store, keyring, transfers=settings.transfers)


def _opened(url: str) -> Backend:
    scheme, separator, rest = url.partition("://")
    if not separator:
        return _folder(Path(url).expanduser())
    if scheme == "file" and rest.startswith("/"):
        return _folder(Path(rest))
    if scheme == "s3":
        return _open_s3(url)
    raise InputError.of(
        "store", f"is {url!r}; results are kept in folders and in S3.", "Give a folder's path, or s3://bucket/prefix."
    )


def _folder(path: Path) -> FolderBackend:
    there = next((part for part in (path, *path.parents) if part.exists()), path)
    if there.exists() and not there.is_dir():
        what = f"{there} is a file; a store is a folder."
        raise InputError.of("store", what, "Name a folder, also one that is new.")
    return FolderBackend(path)


def parse_s3(url: str) -> S3Location:
    """Raises InputError for a URL that is none, and where boto3 is missing."""
    from runonce.store.location import parse_location

    location = parse_location(url)
    try:
        importlib.import_module("runonce.store.s3_client")  # boto3 takes a third of a second to import
    except ModuleNotFoundError as error:
        if error.name not in ("boto3", "botocore"):
            raise
        raise InputError.of("store", f"{url} needs boto3.", "Install it: pip install 'runonce[s3]'.") from error
    return location


def _open_s3(url: str) -> Backend:
    location = parse_s3(url)
    from runonce.store.s3 import S3Backend

    return S3Backend(location)
