"""Packs and cuts: every byte is in exactly one place, whatever a file says of itself, and what is the same stays the same."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runonce.store import regions
from runonce.store.regions import Region, cut, pack


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    monkeypatch.setattr(regions, "SMALL", 100)
    monkeypatch.setattr(regions, "ENTRY", 20)


def archive(entries: dict[str, bytes], *, method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        for name, data in entries.items():
            made.writestr(zipfile.ZipInfo(name), data, method)
    return out.getvalue()


def tensors(entries: dict[str, bytes]) -> bytes:
    header, position = {}, 0
    for name, data in entries.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [position, position + len(data)]}
        position += len(data)
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(entries.values())


names = st.text(alphabet="abcdef/", min_size=1, max_size=30).filter(lambda name: not name.endswith("/"))
entries = st.dictionaries(names, st.binary(max_size=400), max_size=8)
contents = st.one_of(
    st.binary(max_size=1000),
    entries.map(archive),
    entries.map(tensors),
    entries.map(lambda found: archive(found, method=zipfile.ZIP_DEFLATED)),
    st.binary(max_size=300).map(lambda data: b"PK\x03\x04" + data),
    st.tuples(st.integers(0, 2**64 - 1), st.binary(max_size=300)).map(lambda t: struct.pack("<Q", t[0]) + b"{" + t[1]),
    st.tuples(entries.map(archive), st.integers(0, 500), st.binary(min_size=1, max_size=9)).map(
        lambda t: t[0][: t[1]] + t[2] + t[0][t[1] + len(t[2]) :]
    ),
)


@given(st.lists(contents, max_size=6), st.integers(100, 300))
def test_every_byte_of_every_file_is_in_one_place_of_one_blob(files, blob_size):
    found = [
        region
        for number, data in enumerate(files)
        for region in cut(io.BytesIO(data), len(data), number=number, blob_size=blob_size)
    ]
    for number, data in enumerate(files):
        position = 0
        for region in (region for region in found if region.file == number):
            assert region.offset == position
            position += region.size
        assert position == len(data)
    blobs = pack(found, blob_size=blob_size)
    assert sorted((r for blob in blobs for r in blob), key=lambda r: (r.file, r.offset)) == found
    for blob in blobs:
        assert sum(region.size for region in blob) <= blob_size
        assert len(blob) == 1 or all(region.size < 100 for region in blob)
    assert all(region.size <= blob_size for region in found)


@given(entries)
def test_an_entry_is_a_region_of_its_own_whatever_lies_around_it(found):
    large = {name: data for name, data in found.items() if 100 <= len(data) <= 300}
    for made in (archive(found), tensors(found)):
        if len(made) >= 100:
            cuts = cut(io.BytesIO(made), len(made), blob_size=300)
            pieces = [made[r.offset : r.offset + r.size] for r in cuts if r.entry]
            assert all(data in pieces for data in large.values())


def blobs_of(data: bytes) -> dict[str, int]:
    found = pack(cut(io.BytesIO(data), len(data), blob_size=1000), blob_size=1000)
    texts = (b"".join(data[r.offset : r.offset + r.size] for r in blob) for blob in found)
    return {hashlib.sha256(text).hexdigest(): len(text) for text in texts}


def test_what_did_not_change_is_the_same_blob_under_another_name():
    arrays = {f"{i}": np.random.default_rng(i).bytes(500) for i in range(5)} | {"bias": b"x" * 30, "scale": b"y" * 40}
    first = blobs_of(archive({f"step_1/{name}": data for name, data in arrays.items()}))
    second = blobs_of(archive({f"step_100/{name}": data for name, data in arrays.items()}))
    sent = sum(size for digest, size in second.items() if digest not in first)
    assert sent < sum(second.values()) - 5 * 500 - 70 + 1
    arrays["2"] = b"z" * 500
    third = blobs_of(archive({f"step_1/{name}": data for name, data in arrays.items()}))
    assert sum(size for digest, size in third.items() if digest not in first) < 500 + 700


def test_entries_that_overlap_or_lie_outside_make_a_file_without_borders():
    text = json.dumps({"a": {"data_offsets": [0, 200]}, "b": {"data_offsets": [100, 300]}}).encode()
    for data in (struct.pack("<Q", len(text)) + text + b"x" * 300, struct.pack("<Q", len(text)) + text + b"x" * 150):
        assert not any(region.entry for region in cut(io.BytesIO(data), len(data), blob_size=1000))


def test_small_files_share_a_pack_and_an_empty_one_is_in_it():
    found = [Region(number, 0, size) for number, size in enumerate((10, 0, 90, 50, 99))]
    assert pack(found, blob_size=150) == [tuple(found[:4]), (found[4],)]


@pytest.mark.parametrize(
    ("total", "packs", "largest"),
    [(3 << 20, 1, 3), (63 << 20, 4, 16), (65 << 20, 3, 32), (256 << 20, 4, 64), (1 << 30, 16, 64)],
)
def test_a_few_packs_travel_side_by_side_and_many_are_as_large_as_a_blob_may_be(monkeypatch, total, packs, largest):
    monkeypatch.setattr("runonce.store.regions.SMALL", 1 << 20)
    sizes = [1 << 19] * (total >> 19)
    made = pack([Region(number, 0, size) for number, size in enumerate(sizes)], blob_size=64 << 20)
    assert [len(made), max(sum(region.size for region in blob) for blob in made) >> 20] == [packs, largest]
