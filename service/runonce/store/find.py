"""A result by the digits of its key: all of them, or as many as no other result begins with."""

from __future__ import annotations

import re

from runonce.errors import InputError
from runonce.experiment.manifest import Commit
from runonce.store.backend import Backend, commit_name
from runonce.store.commit import probe

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
