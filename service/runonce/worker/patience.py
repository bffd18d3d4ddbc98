"""A store that is away for minutes costs waiting, not work: what a process has computed is worth more than its time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from runonce.errors import PreconditionFailed, StoreError
from runonce.store.backend import Backend, Stat
from runonce.store.spans import Span

T = TypeVar("T")

PATIENCE_S = 300.0  # shorter than coupled processes wait for one another (PEER_TIMEOUT)
PAUSE_S = 2.0  # a call has its own short retries, so this is seldom the longer part
AWAY = ("StoreUnreachable", "StoreTimeout", "StoreBusy", "StoreFailed")


class Patient:
    """`Backend` over another one, whose calls are made again while the store does not answer, for `patience_s` each."""

    def __init__(self, inner: Backend, *, patience_s: float = PATIENCE_S) -> None:
        self._inner, self._patience_s = inner, patience_s
        self.url, self.blob_size, self.keyring = inner.url, inner.blob_size, inner.keyring
        self.threads, self.renew_all = inner.threads, inner.renew_all

    def get(self, name: str) -> tuple[bytes, str] | None:
        return self._call(lambda: self._inner.get(name))

    def put(self, name: str, data: bytes, *, create: bool = False, if_match: str | None = None) -> str:
        tries = 0

        def once() -> str:
            nonlocal tries
            tries += 1
            try:
                return self._inner.put(name, data, create=create, if_match=if_match)
            except PreconditionFailed:
                found = self._inner.get(name) if tries > 1 else None
                if found is None or found[0] != data:
                    raise
                return found[1]  # an earlier try was carried out, and its answer was lost

        return self._call(once)

    def put_file(self, name: str, path: Path, *, sha256: str) -> None:
        self._call(lambda: self._inner.put_file(name, path, sha256=sha256))

    def put_spans(self, name: str, spans: Sequence[Span], *, sha256: str) -> None:
        self._call(lambda: self._inner.put_spans(name, spans, sha256=sha256))

    def read(self, name: str, *, sha256: str) -> Iterator[bytes]:
        """What has been handed out cannot be taken back: only the first piece is waited for."""
        pieces, first = self._call(lambda: _begun(self._inner.read(name, sha256=sha256)))
        yield from first
        yield from pieces

    def get_file(self, name: str, path: Path, *, sha256: str) -> None:
        self._call(lambda: self._inner.get_file(name, path, sha256=sha256))

    def stat(self, name: str) -> Stat | None:
        return self._call(lambda: self._inner.stat(name))

    def refuses_wrong_bytes(self, name: str) -> bool:
        return self._call(lambda: self._inner.refuses_wrong_bytes(name))

    def keeps_versions(self) -> bool:
        return self._call(self._inner.keeps_versions)

    def list(self, prefix: str) -> Iterator[Stat]:
        yield from self._call(lambda: list(self._inner.list(prefix)))

    def superseded(self, prefix: str) -> Iterator[Stat]:
        yield from self._call(lambda: list(self._inner.superseded(prefix)))

    def delete(self, name: str, *, if_match: str | None = None, version: str | None = None) -> None:
        self._call(lambda: self._inner.delete(name, if_match=if_match, version=version))

    def _call(self, call: Callable[[], T]) -> T:
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                return call()
            except StoreError as error:
                left = deadline - time.monotonic()
                if error.reason not in AWAY or left <= 0:
                    raise
                print(f"warning: {error} It is tried again for {left:.0f} s.", file=sys.stderr, flush=True)
                time.sleep(min(PAUSE_S, left))


def _begun(pieces: Iterator[bytes]) -> tuple[Iterator[bytes], list[bytes]]:
    """The rest of an iterator, and its first piece where there is one."""
    first = next(pieces, None)
    return pieces, [] if first is None else [first]
