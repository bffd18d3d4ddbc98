"""The calls that a place for results has to answer, and the names of the records in it.

A name is made of lower-case words and hex digits with `/` between them; nothing else knows where it lies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runonce.store.signing import Keyring
from runonce.store.spans import Span

GRACE_S = 48 * 3600.0  # longer than any publish or restore: what is younger is never collected
RENEW_S = GRACE_S / 2  # who relies on stored bytes older than this puts them again

THREADS, MAX_THREADS = 8, 32

FORMAT = 1
MARKER = "runonce-store.json"  # says which format the store has

CHECK = "s/check-"  # what a check of the store writes, and removes again

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_FORMS = re.compile(
    r"[bcms]/[0-9a-f]{2}/[0-9a-f]{64}|w/[0-9a-f]{64}/[^/]+/\d+/(k/.+|[^/]+/i\d+)|[dfl]/[0-9a-f]{64}(/.+)?|[npt]/.+"
)


@dataclass(frozen=True, slots=True)
class Stat:
    """An object without its bytes. modified: seconds since 1970 by the store's own clock.

    version: of these very bytes as they were put; the same bytes put again have another one. (Of a record in S3 it is
    the ETag: what would matter carries a nonce.)
    """

    name: str
    size: int
    modified: float
    version: str


class Backend(Protocol):
    """Every answer but a clean "there is no such object" is an error (`StoreError`), never a miss."""

    url: str
    blob_size: int | None  # what is larger is cut and what is small is packed; None where files stay whole
    keyring: Keyring  # of those who commit
    threads: int  # requests at a time; each holds some MiB
    renew_all: bool  # bytes that are there are put again whatever their age, since some of them were found damaged

    def get(self, name: str) -> tuple[bytes, str] | None:
        """A small object whole, with its ETag; None only if the store is there and the object is not."""

    def put(self, name: str, data: bytes, *, create: bool = False, if_match: str | None = None) -> str:
        """Write a small object atomically; returns its ETag.

        create: only if nothing is there; if_match: only over the object with this ETag.
        Raises PreconditionFailed when the condition does not hold, and then nothing was written.
        """

    def put_file(self, name: str, path: Path, *, sha256: str) -> None:
        """Store a file's bytes under a name made of their digest; nothing to do when they are there.

        Bytes older than RENEW_S get a new version, so that no collector that saw the old one can delete them.
        Raises Damaged when the file's bytes do not have the digest (it was changed meanwhile).
        """

    def put_spans(self, name: str, spans: Sequence[Span], *, sha256: str) -> None:
        """The same for pieces of files, one after the other."""

    def read(self, name: str, *, sha256: str) -> Iterator[bytes]:
        """The object in pieces of at most 1 MiB. Raises Damaged after the last one when they are not the right ones."""

    def get_file(self, name: str, path: Path, *, sha256: str) -> None:
        """Write the object to `path`, verified and renamed into place. Raises Damaged when it is lost or wrong."""

    def stat(self, name: str) -> Stat | None: ...

    def refuses_wrong_bytes(self, name: str) -> bool:
        """Whether an object that does not have its checksum is refused."""

    def keeps_versions(self) -> bool:
        """Whether the same bytes put again are told from the old ones when these are deleted."""

    def list(self, prefix: str) -> Iterator[Stat]:
        """All objects whose names begin with `prefix`, in the order of their names."""

    def superseded(self, prefix: str) -> Iterator[Stat]:
        """Versions of objects that have a newer one by now, so that nobody reads them; none where they are not kept."""

    def delete(self, name: str, *, if_match: str | None = None, version: str | None = None) -> None:
        """Remove it; nothing happens when it is gone.

        if_match: raises PreconditionFailed if it is another one by now. version: only while this version lies there;
        nothing happens otherwise.
        """


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def check_name(name: str) -> None:
    """Raises ValueError for a name that could lead out of the store, or be another name to some service."""
    if not is_name(name):
        raise ValueError(f"{name!r} is no name of an object.")


def listed(backend: Backend, prefix: str) -> Iterator[Stat]:
    """The objects that are the store's own by their names; what else lies between them is left alone."""
    return (entry for entry in backend.list(prefix) if _FORMS.fullmatch(entry.name))


def commit_name(cache_key: str) -> str:
    return f"c/{cache_key[:2]}/{cache_key}"


def shard_name(cache_key: str, round_: str, total: int, attempt: str, index: int) -> str:
    return f"{shard_prefix(cache_key, round_)}{total}/{attempt}/i{index}"


def shard_prefix(cache_key: str, round_: str | None = None) -> str:
    return f"w/{cache_key}/" + (f"{round_}/" if round_ else "")


def manifest_name(digest: str) -> str:
    return f"m/{digest[:2]}/{digest}"


def blob_name(digest: str) -> str:
    return f"b/{digest[:2]}/{digest}"


def source_name(digest: str) -> str:
    """The archive of the code whose `source:` version has this digest."""
    return f"s/{digest[:2]}/{digest}"


def failure_name(cache_key: str, attempt: str) -> str:
    return f"f/{cache_key}/{attempt}"


def lease_name(cache_key: str) -> str:
    return f"l/{cache_key}"


def experiment_name(name: str, cache_key: str) -> str:
    """Empty marker: which keys an experiment of this name ever had."""
    return f"n/{name}/{cache_key}"


def removed_name(cache_key: str, manifest: str) -> str:
    """Says that this result was taken away, and keeps what it is made of for one grace."""
    return f"d/{cache_key}/{manifest}"


def pin_name(label: str) -> str:
    """Keeps a result whatever its age."""
    return f"p/{label}"
