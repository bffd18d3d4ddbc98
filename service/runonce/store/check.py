"""What a store honours, found out by asking it: some services answer 200 to a condition that they ignore."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runonce.errors import PreconditionFailed
from runonce.store.backend import CHECK

if TYPE_CHECKING:
    from runonce.store.backend import Backend


@dataclass(frozen=True, kw_only=True)
class Check:
    """needed: without it results could be lost. found: what the store did. otherwise: what is done without it."""

    name: str
    honoured: bool
    needed: bool
    found: str
    otherwise: str = ""


def check_store(backend: Backend) -> list[Check]:
    """About a dozen requests below `s/`; nothing of them is left. Raises StoreError when the store cannot be used."""
    name = f"{CHECK}{uuid.uuid4().hex}"
    try:
        return _checks(backend, name)
    finally:
        backend.delete(name)
        backend.delete(f"{name}-bytes")


def _checks(backend: Backend, name: str) -> list[Check]:
    etag = backend.put(name, b"one", create=True)
    read = backend.get(name)
    listed = [entry.name for entry in backend.list(name)]
    creates = _refused(lambda: backend.put(name, b"two", create=True))
    replaces = _refused(lambda: backend.put(name, b"two", if_match='"0123456789abcdef0123456789abcdef"'))
    now = backend.get(name)
    deletes = _refused(lambda: backend.delete(name, if_match='"0123456789abcdef0123456789abcdef"'))
    checked = backend.refuses_wrong_bytes(f"{name}-bytes")
    return [
        Check(
            name="an object that was written is read and listed at once",
            honoured=read == (b"one", etag) and listed == [name],
            needed=True,
            found="yes" if read == (b"one", etag) and listed == [name] else "not read, or not listed",
        ),
        _check("create only where nothing is (If-None-Match)", creates, needed=True),
        _check("replace only what was seen (If-Match)", replaces and now == read, needed=True),
        _check(
            "delete only what was seen (If-Match)",
            deletes,
            otherwise="a lease may be taken from another, which costs work; gc needs versions",
        ),
        _check(
            "refuse bytes that do not have their checksum",
            checked,
            otherwise="damage on the way is found when a result is read, and it is made anew",
        ),
        _check(
            "tell the same bytes put again from the old ones (versions)",
            backend.keeps_versions(),
            otherwise="what is named by its content gets a random end, and gc deletes by If-Match",
        ),
    ]


def _check(name: str, honoured: bool, *, needed: bool = False, otherwise: str = "") -> Check:
    return Check(name=name, honoured=honoured, needed=needed, found="yes" if honoured else "no", otherwise=otherwise)


def _refused(call: Callable[[], object]) -> bool:
    with contextlib.suppress(PreconditionFailed):
        call()
        return False
    return True
