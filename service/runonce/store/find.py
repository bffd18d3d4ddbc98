"""Results by the digits of their key, or by the name of the experiment that made them."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from runonce.errors import InputError
from runonce.experiment.manifest import Commit
from runonce.store.backend import Backend, commit_name
from runonce.store.commit import UnsignedCommit, probe
from runonce.store.earlier import stem_of

_PREFIX = re.compile(r"[0-9a-f]{4,64}")


def is_prefix(text: str) -> bool:
    return _PREFIX.fullmatch(text) is not None


def find_commit(backend: Backend, prefix: str) -> Commit:
    """The one result whose key begins with `prefix` (4 to 64 hex digits). Raises InputError for none or several."""
    keys = [entry.name.rpartition("/")[2] for entry in backend.list(commit_name(prefix))]
    if len(keys) > 1:
        shown = ", ".join(keys[:3]) + (", …" if len(keys) > 3 else "")
        raise InputError.of("", f"{prefix} begins {len(keys)} keys: {shown}.", "Give more digits.")
    found = probe(backend, keys[0]) if keys else None
    if found is None:
        raise InputError.of("", f"no result in {backend.url} has a key that begins with {prefix}.", "See `runonce ls`.")
    return found[0]


def find_named(backend: Backend, name: str) -> list[Commit]:
    """The results that experiments of this name made, newest first; none is no error.

    name: as it stands; else `digits` for all of `digits-3f9a12bc` and its like; `*` and `?` as in a shell.
    """
    markers = [entry.name.split("/") for entry in backend.list(f"n/{re.split(r'[*?]', name)[0]}")]
    named = [(marker[1], marker[2]) for marker in markers if len(marker) == 3]
    keys = [key for known, key in named if known == name]
    keys = keys or [key for known, key in named if stem_of(known) == name or fnmatchcase(known, name)]
    found = [commit for key in dict.fromkeys(keys) if (commit := _signed(backend, key)) is not None]
    return sorted(found, key=lambda commit: commit.created, reverse=True)


def _signed(backend: Backend, key: str) -> Commit | None:
    try:
        found = probe(backend, key)
    except UnsignedCommit:
        return None
    return found[0] if found is not None else None
