"""Which backend answers for the URL of a store."""

from __future__ import annotations

from pathlib import Path

from runonce.errors import InputError
from runonce.store.backend import Backend
from runonce.store.folder import FolderBackend


def open_store(url: str) -> Backend:
    """A folder's path. Raises InputError for a URL whose scheme nothing here answers for."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return FolderBackend(Path(url).expanduser())
    if scheme == "file" and rest.startswith("/"):
        return FolderBackend(Path(rest))
    raise InputError.of("store", f"is {url!r}; this release keeps results in folders.", "Give the path of a folder.")
