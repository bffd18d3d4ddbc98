"""Files into a store as packs and cuts, hashed and sent by several threads that hold no more than a chunk each."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from runonce.errors import Damaged
from runonce.experiment.manifest import File, Part
from runonce.store.backend import Backend, blob_name
from runonce.store.moved import Tell, nobody
from runonce.store.regions import Region, cut, pack
from runonce.store.spans import Span, digest_of


def store_cut(
    backend: Backend, output: Path, paths: Sequence[str], blob_size: int, *, moved: Tell = nobody
) -> tuple[File, ...]:
    """Store the files in blobs of at most `blob_size`; returns them in order, with where their bytes lie.

    Raises Damaged for a file that somebody still writes.
    """
    sources = [output / path for path in paths]
    before = [_state(source) for source in sources]
    regions: list[Region] = []
    for number, source in enumerate(sources):
        with source.open("rb") as file:
            regions += cut(file, before[number][0], number=number, blob_size=blob_size)
    blobs = pack(regions, blob_size=blob_size)
    with ThreadPoolExecutor(backend.threads) as pool:
        sender = _Sender(backend, sources, moved)
        sent = [pool.submit(sender.send, blob) for blob in blobs]
        # A file that is one blob has that blob's digest; of all others the whole is read once more.
        alone = {blob[0].file for blob in blobs if len(blob) == 1 and blob[0].size == before[blob[0].file][0]}
        whole = {
            number: pool.submit(digest_of, [Span(source, 0, before[number][0])])
            for number, source in enumerate(sources)
            if number not in alone
        }
        digests = _results(sent)
        totals = {number: future.result() for number, future in whole.items()}
    for source, state in zip(sources, before, strict=True):
        if _state(source) != state:
            raise Damaged(f"{source} was changed while it was stored. Close it before the end of the run.")
    return _files(paths, [state[0] for state in before], blobs, digests, totals)


class _Sender:
    """Hashes a blob and sends it, unless another thread has the same bytes in hand already."""

    def __init__(self, backend: Backend, sources: Sequence[Path], moved: Tell) -> None:
        self._backend, self._sources, self._moved = backend, sources, moved
        self._lock, self._begun = threading.Lock(), set[str]()

    def send(self, blob: Sequence[Region]) -> str:
        spans = [Span(self._sources[region.file], region.offset, region.size) for region in blob]
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


def _state(path: Path) -> tuple[int, int, int]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ino
