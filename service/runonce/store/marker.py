"""The record that makes a folder a store and says which format it has."""

from __future__ import annotations

import json
import os
import re
import uuid
from pathlib import Path

from runonce.errors import NewerFormat, NotAStore
from runonce.store.backend import FORMAT, MARKER

_OWN = frozenset((*"bcdflmnpstw", "held", "lock", "locks", "results", "tmp", MARKER))
_BARE = frozenset(("tmp", MARKER))  # what is there first in a new store
_FORMAT_OF = re.compile(rb'"format"\s*:\s*(\d+)')


class Marker:
    """Of one folder. One that a power cut spoiled is made anew by the next write: every record has a format besides."""

    def __init__(self, root: Path) -> None:
        self._root, self._path = root, root / MARKER

    def check(self) -> bool:
        """Whether it is there and whole. A folder that is something else must be neither read nor written into.

        Raises NewerFormat, and NotAStore for such a folder.
        """
        data = self._read()
        if data is None and not self._root.exists():
            return False
        if self._is_whole(data):
            return True
        mine = self._holds_a_store() or all(entry.name in _BARE for entry in self._root.iterdir())
        if self._is_whole(self._read()):
            return True  # the store was made between the two looks
        if not mine:
            raise NotAStore(
                f"{self._root} is a folder with other things in it, and no store. Name an empty or new one."
            )
        return False

    def fault(self) -> str | None:
        """What is wrong with it in a folder that holds a store."""
        if self.check() or not self._root.is_dir() or not self._holds_a_store():
            return None
        return f"{self._path} is {'lost' if self._read() is None else 'damaged'}."

    def write(self, scratch: Path) -> None:
        """scratch: a folder for what is not finished."""
        temporary = scratch / uuid.uuid4().hex
        with temporary.open("wb") as file:
            file.write(json.dumps({"format": FORMAT, "kind": "store"}).encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._path)

    def _holds_a_store(self) -> bool:
        if any(entry.name not in _OWN for entry in self._root.iterdir()):
            return False
        return any((self._root / name).is_dir() and any((self._root / name).iterdir()) for name in ("b", "c", "m", "w"))

    def _read(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None

    def _is_whole(self, data: bytes | None) -> bool:
        """Raises NewerFormat, also where only the beginning is left."""
        match = _FORMAT_OF.search(data or b"")
        if match is not None and int(match[1]) != FORMAT:
            what = f"{self._root} is a store of format {int(match[1])}; this release knows up to {FORMAT}."
            raise NewerFormat(what)
        try:
            return bool(json.loads(data or b"")["format"])
        except (ValueError, KeyError, TypeError):
            return False
