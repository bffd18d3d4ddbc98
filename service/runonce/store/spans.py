"""Pieces of files of this machine, read one after the other as if they were one file, a little at a time."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Span:
    """`size` bytes at `offset` of a file. path: best a text, where there are many; a Path is ten times as large."""

    path: Path | str
    offset: int
    size: int


class SpanReader:
    """The bytes of spans, and of `tail` behind them, as one file.

    It can be read again from its start, as a request that is tried again needs it.
    """

    def __init__(self, spans: Sequence[Span], tail: bytes = b"") -> None:
        self._spans, self._tail = spans, tail
        self.size = sum(span.size for span in spans) + len(tail)
        self._file: IO[bytes] | None = None
        self._next = self._left = self._position = 0

    def read(self, size: int = -1) -> bytes:
        """At most CHUNK bytes, whatever is asked for: HTTP clients ask for 16 KiB, and that costs time."""
        while self._left == 0:
            if self._next == len(self._spans):
                last = self._tail if self._position < self.size else b""
                self._position += len(last)
                return last
            self._enter(self._spans[self._next])
        assert self._file is not None
        data = self._file.read(min(CHUNK, self._left))
        if not data:
            raise OSError(f"{self._file.name} has become shorter.")
        self._left -= len(data)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """To the start, or to the end for those who ask for the size."""
        if (offset, whence) == (0, os.SEEK_END):
            self._next, self._left, self._position = len(self._spans), 0, self.size
        elif (offset, whence) == (0, os.SEEK_SET):
            self._next = self._left = self._position = 0
        else:
            raise OSError("only its start and its end can be sought.")
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> SpanReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _enter(self, span: Span) -> None:
        if self._file is None or self._file.name != str(span.path):
            self.close()
            self._file = open(span.path, "rb", buffering=0)  # noqa: SIM115 - closed by close()
        self._file.seek(span.offset)
        self._next, self._left = self._next + 1, span.size


def digest_of(spans: Sequence[Span]) -> str:
    """SHA-256 of the bytes as they are now."""
    return digests_of(spans, b"")[0]


def digests_of(spans: Sequence[Span], tail: bytes) -> tuple[str, str]:
    """The same, without and with the tail."""
    digest = hashlib.sha256()
    with SpanReader(spans) as reader:
        while chunk := reader.read():
            digest.update(chunk)
    content = digest.hexdigest()
    digest.update(tail)
    return content, digest.hexdigest()


def write_whole(chunks: Iterable[bytes], path: Path) -> None:
    """Write a file that is there only when all chunks have come."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
