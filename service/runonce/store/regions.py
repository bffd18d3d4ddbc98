"""How files become blobs: small ones together in packs, large ones cut where their own format has borders.

An archive is cut at its entries (`.pt` and `.npz` are zip archives) and a safetensors file at its tensors, so that what
did not change is the same blob again, wherever it lies and whatever the file is called: torch writes the name of a file
into it. What is no such file is cut at equal sizes. Pure: nothing is sent here, and files are only read.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

SMALL = 1 << 20  # what is smaller travels in a pack
PACK = 16 << 20  # of a few packs; they travel side by side, and a single large one would have one connection for itself
AT_ONCE = 4
ENTRY = 64 << 10  # entries smaller than this are left with what lies between entries

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_MAX_HEADER = 64 << 20  # of a safetensors file


@dataclass(frozen=True, slots=True)
class Region:
    """`size` bytes at `offset` of the file with this number. entry: a tensor or an entry, and not what lies between."""

    file: int
    offset: int
    size: int
    entry: bool = False


def cut(file: IO[bytes], size: int, *, number: int = 0, blob_size: int) -> list[Region]:
    """The regions of one file, in order and without gaps: one of it all for a small file, none above `blob_size`."""
    if size < SMALL:
        return [Region(number, 0, size)]
    regions: list[Region] = []
    position = 0
    for start, end in _entries(file, size):
        regions += _pieces(number, position, start, entry=False, blob_size=blob_size)
        regions += _pieces(number, start, end, entry=True, blob_size=blob_size)
        position = end
    return regions + _pieces(number, position, size, entry=False, blob_size=blob_size)


def pack(regions: Sequence[Region], *, blob_size: int) -> list[tuple[Region, ...]]:
    """The regions of each blob. Order within a kind stays, so that the same files always make the same blobs.

    Whole small files, entries and what lies between entries do not mix: of these only the last changes with a name.
    """
    blobs: list[tuple[Region, ...]] = [(region,) for region in regions if region.size >= SMALL]
    small = [region for region in regions if region.size < SMALL]
    whole = {region.file for region in small if not region.offset} - {
        region.file for region in regions if region.offset
    }
    kinds = (
        [region for region in small if region.file in whole],
        [region for region in small if region.file not in whole and region.entry],
        [region for region in small if region.file not in whole and not region.entry],
    )
    for kind in kinds:
        blobs += _packs(kind, min(blob_size, _pack_size(sum(region.size for region in kind))))
    return blobs


def _pack_size(total: int) -> int:
    """In steps, so that a byte more does not make all packs others."""
    return PACK * max(1, -(-total // (AT_ONCE * PACK)))


def _packs(regions: Sequence[Region], blob_size: int) -> Iterator[tuple[Region, ...]]:
    held: list[Region] = []
    size = 0
    for region in regions:
        if held and size + region.size > blob_size:
            yield tuple(held)
            held, size = [], 0
        held.append(region)
        size += region.size
    if held:
        yield tuple(held)


def _pieces(number: int, start: int, end: int, *, entry: bool, blob_size: int) -> list[Region]:
    return [
        Region(number, offset, min(blob_size, end - offset), entry=entry) for offset in range(start, end, blob_size)
    ]


def _entries(file: IO[bytes], size: int) -> list[tuple[int, int]]:
    """Start and end of each entry that is worth a region of its own, in order; none where the file is no archive.

    What a file says of itself is not trusted: entries that overlap or lie outside make it one without borders.
    """
    file.seek(0)
    head = file.read(9)
    try:
        if head.startswith(b"PK\x03\x04"):
            found = _zip_entries(file)
        elif head[8:] == b"{":
            found = _tensors(file, int.from_bytes(head[:8], "little"), size)
        else:
            return []
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, KeyError, TypeError, RecursionError):
        return []
    found = sorted(entry for entry in found if entry[1] - entry[0] >= ENTRY)
    position = 0
    for start, end in found:
        if start < position or end > size:
            return []
        position = end
    return found


def _zip_entries(file: IO[bytes]) -> list[tuple[int, int]]:
    found = []
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            file.seek(info.header_offset)
            *_, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            start = info.header_offset + _LOCAL_HEADER.size + name + extra
            found.append((start, start + info.compress_size))
    return found


def _tensors(file: IO[bytes], length: int, size: int) -> list[tuple[int, int]]:
    if length > min(size - 8, _MAX_HEADER):
        return []
    file.seek(8)
    header = json.loads(file.read(length))
    offsets = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
    return [(8 + length + int(start), 8 + length + int(end)) for start, end in offsets]
