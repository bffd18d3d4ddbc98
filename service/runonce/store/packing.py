"""Files into a store as packs and cuts, hashed and sent by several threads that hold no more than a chunk each."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from runonce.errors import Damaged
from runonce.experiment.manifest import File, Part
from runonce.store.backend import Backend, blob_name
from runonce.store.moved import Tell, nobody
from runonce.store.regions import SMALL, Region, cut, pack
from runonce.store.spans import Span, digest_of

GROUP = 64  # files at most that one thread hashes in a row


def store_cut(
    backend: Backend,
    output: Path,
    paths: Sequence[str],
    blob_size: int,
    *,
    moved: Tell = nobody,
    turns: AbstractContextManager[None] | None = None,
) -> tuple[File, ...]:
    """Store the files in blobs of at most `blob_size`; returns them in order, with where their bytes lie.

    turns: what each thread is in while it works on a blob. Raises Damaged for a file that somebody still writes.
    """
    sources = [f"{output}/{path}" for path in paths]
    before = [_state(source) for source in sources]
    regions: list[Region] = []
    for number, source in enumerate(sources):
        with open(source, "rb") as file:
            regions += cut(file, before[number][0], number=number, blob_size=blob_size)
    blobs = pack(regions, blob_size=blob_size)
    with ThreadPoolExecutor(backend.threads) as pool:
        turns = turns or nullcontext()
        sender = _Sender(backend, sources, moved, turns)
        sent = [pool.submit(sender.send, blob) for blob in blobs]
        # A file that is one blob has that blob's digest; of all others the whole is read once more.
        alone = {blob[0].file for blob in blobs if len(blob) == 1 and blob[0].size == before[blob[0].file][0]}
        others = [number for number in range(len(sources)) if number not in alone]
        groups = list(_groups(others, [state[0] for state in before]))
        whole = [
            pool.submit(_digests, [Span(sources[number], 0, before[number][0]) for number in group], turns)
            for group in groups
        ]
        digests = _results(sent)
        totals: dict[int, str] = {}
        for group, future in zip(groups, whole, strict=True):
            totals.update(zip(group, future.result(), strict=True))
    for source, state in zip(sources, before, strict=True):
        if _state(source) != state:
            raise Damaged(f"{source} was changed while it was stored. Close it before the end of the run.")
    return _files(paths, [state[0] for state in before], blobs, digests, totals)


def _groups(numbers: Sequence[int], sizes: Sequence[int]) -> Iterator[list[int]]:
    """Small files together: a future for each would be larger than all that is kept of the file."""
    group: list[int] = []
    size = 0
    for number in numbers:
        if group and (len(group) == GROUP or size + sizes[number] > SMALL):
            yield group
            group, size = [], 0
        group.append(number)
        size += sizes[number]
    if group:
        yield group


def _digests(spans: Sequence[Span], turns: AbstractContextManager[None]) -> list[str]:
    """Of each of these."""
    with turns:
        return [digest_of([span]) for span in spans]


class _Sender:
    """Hashes a blob and sends it, unless another thread has the same bytes in hand already."""

    def __init__(
        self, backend: Backend, sources: Sequence[str], moved: Tell, turns: AbstractContextManager[None]
    ) -> None:
        self._backend, self._sources, self._moved, self._turns = backend, sources, moved, turns
        self._lock, self._begun = threading.Lock(), set[str]()

    def send(self, blob: Sequence[Region]) -> str:
        spans = [Span(self._sources[region.file], region.offset, region.size) for region in blob]
        with self._turns:
            digest = digest_of(spans)
            with self._lock:
                begun = digest in self._begun
                self._begun.add(digest)
            if not begun:
                self._backend.put_spans(blob_name(digest), spans, sha256=digest)
        self._moved(sum(span.size for span in spans))
        return digest


def _results(futures: Sequence[Future[str]]) -> list[str]:
    """All of them; the first that failed ends those that have not begun."""
    try:
        return [future.result() for future in futures]
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def _files(
    paths: Sequence[str],
    sizes: Sequence[int],
    blobs: Sequence[Sequence[Region]],
    digests: Sequence[str],
    totals: dict[int, str],
) -> tuple[File, ...]:
    parts: dict[int, list[tuple[int, Part]]] = defaultdict(list)
    for blob, digest in zip(blobs, digests, strict=True):
        position = 0
        for region in blob:
            parts[region.file].append((region.offset, Part(blob=digest, offset=position, size=region.size)))
            position += region.size
    files = []
    for number, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        ordered = tuple(part for _, part in sorted(parts[number], key=lambda entry: entry[0]))
        sha256 = totals.get(number, ordered[0].blob)
        if len(ordered) == 1 and ordered[0].blob == sha256:
            ordered = ()
        files.append(File(path=path, size=size, sha256=sha256, parts=ordered))
    return tuple(files)


def _state(path: str) -> tuple[int, int, int]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ino
