"""Commit records signed anew: after a key was replaced, or when a store with results begins to ask for signatures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from runonce.errors import Damaged, PreconditionFailed
from runonce.experiment.manifest import Commit
from runonce.store.backend import Backend

Tell = Callable[[str, int], None]  # what is being done, and how much of it is done


def sign_all(
    backend: Backend, *, unsigned: bool, tell: Tell = lambda what, number: None
) -> Iterator[tuple[str, str | None]]:
    """Sign every record by the first key; yields each cache key with why it was left, or None where it was signed.

    What that key has signed already is passed over in silence. unsigned: also records without a signature, or of a key
    that is not known; only where every one of them is known to be right.
    """
    for number, entry in enumerate(backend.list("c/")):
        tell("reading results", number)
        try:
            found = backend.get(entry.name)
            if found is None:
                continue  # removed meanwhile
            what = _signed(backend, entry.name, *found, unsigned=unsigned)
        except (Damaged, PreconditionFailed) as error:
            what = str(error)
        if what != "":
            yield entry.name.rpartition("/")[2], what


def _signed(backend: Backend, name: str, data: bytes, etag: str, *, unsigned: bool) -> str | None:
    """Why it was not signed; None where it was, empty where there was nothing to do."""
    commit = Commit.decode(data, name=name)
    if not name.endswith(commit.cache_key):
        return f"{name} is the commit record of another key, {commit.cache_key}."
    state = backend.keyring.state(data)
    if state == "newest":
        return ""
    if state == "wrong" or (state != "known" and not unsigned):
        return f"{name} is {'unsigned' if state == 'unsigned' else f'signed by a key that is {state}'}."
    backend.put(name, backend.keyring.sign(data), if_match=etag)
    return None
