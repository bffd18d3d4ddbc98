"""Canonical bytes against an oracle: the rfc8785 package."""

from __future__ import annotations

import math
import struct

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from runonce.experiment.canonical import canonical, digest, number, parse

SAFE = st.integers(-(2**53) + 1, 2**53 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | SAFE | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)


@given(VALUES)
def test_the_bytes_are_those_of_rfc_8785(value):
    assert canonical(value) == rfc8785.dumps(value)


@given(st.integers(0, 2**64 - 1))
def test_a_float_of_any_bits_is_written_as_by_rfc_8785(bits):
    value = struct.unpack("<d", struct.pack("<Q", bits))[0]
    if math.isfinite(value):
        assert number(value).encode() == rfc8785.dumps(value)


@given(VALUES)
def test_what_is_written_is_read_back(value):
    again = parse(canonical(value))
    assert canonical(again) == canonical(value)


def test_keys_are_in_the_order_of_utf_16():
    keys = {"\U0001f600": 1, "\ufb33": 2, "a": 3, "\r": 4, "é": 5}
    assert canonical(keys) == rfc8785.dumps(keys)


@pytest.mark.parametrize(
    ("value", "text"),
    [(-0.0, "0"), (1.0, "1"), (1e21, "1e+21"), (1e-7, "1e-7"), (123456789012345680000.0, "123456789012345680000")],
)
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), {1}, b"", "\ud800"])
def test_what_json_does_not_have_is_refused(value):
    with pytest.raises((ValueError, TypeError)):
        canonical(value)


@pytest.mark.parametrize("text", ["", "{", "[1,]", "nan", "NaN", '{"a":1,"a":2}', "1e999", "01", "{'a':1}", "[1] 2"])
def test_text_that_is_no_json_or_says_two_things_is_refused(text):
    with pytest.raises(ValueError):
        parse(text)


def test_the_digest_is_sha256_in_hex():
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
