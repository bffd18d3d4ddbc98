"""Which backend answers for the URL of a store."""

from __future__ import annotations

from pathlib import Path

from runonce.errors import InputError
from runonce.settings import Settings
from runonce.store.backend import Backend
from runonce.store.folder import FolderBackend
from runonce.store.signing import NO_KEYS, Keyring, read_keyring


def open_store(url: str, keyring: Keyring = NO_KEYS) -> Backend:
    """A folder's path, or s3://bucket/prefix. Raises InputError for a URL that nothing here answers for."""
    backend = _opened(url)
    backend.keyring = keyring
    return backend


def open_yours(settings: Settings, url: str | None = None) -> Backend:
    """The store with this URL, else the one of the settings, with their keys. Raises InputError."""
    keyring = read_keyring(settings.signing_key_file, required=settings.require_signed)
    return open_store(url or settings.store, keyring)


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
    if path.exists() and not path.is_dir():
        raise InputError.of("store", f"{path} is a file; a store is a folder.", "Name a folder, also one that is new.")
    return FolderBackend(path)


def _open_s3(url: str) -> Backend:
    from runonce.store.location import parse_location

    location = parse_location(url)
    try:
        from runonce.store.s3 import S3Backend  # boto3 takes a third of a second to import
    except ModuleNotFoundError as error:
        if error.name not in ("boto3", "botocore"):
            raise
        raise InputError.of("store", f"{url} needs boto3.", "Install it: pip install 'runonce[s3]'.") from error
    return S3Backend(location)
