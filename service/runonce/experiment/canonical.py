"""JSON to bytes as RFC 8785 (JSON Canonicalization Scheme) writes it, and digests over them.

Only JSON values come in: dict with str keys, list, str, int, float, bool, None, of exactly these types.
"""

from __future__ import annotations

import hashlib
import json
import re
from math import isfinite
from typing import Any

# Whole numbers from here to 10**21 are not safe as plain numbers: an API server reads some of them as floats
# and hands back other integers.
UNSAFE_FROM = 2**53
UNSAFE_TO = 10**21

# The C encoder writes floats as Python does. Where that differs from ECMAScript (RFC 8785, 3.2.2.3), or might:
# whole floats, exponents from -05 to -09, exponents that ECMAScript spells out. A false alarm costs only time.
_OTHER_THAN_ECMASCRIPT = re.compile(r"\.0(?![0-9])|[0-9]e(?:-0|\+)")
_encode = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, sort_keys=True, separators=(",", ":")
).encode
_quote = json.JSONEncoder(ensure_ascii=False).encode


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of a JSON value.

    Raises ValueError or TypeError for nan, inf, lone surrogates and objects. The caller sees to it that lists are
    lists and keys are text, that depth is bounded, and integers too: from 2**53 on RFC 8785 has no text for them.
    """
    text: str = _encode(value)
    # Sorting by code points and by UTF-16 units is one thing for ASCII; for the rest the slow way is sure.
    if text.isascii() and not _OTHER_THAN_ECMASCRIPT.search(text):
        return text.encode()
    out: list[str] = []
    _write(value, out)
    return "".join(out).encode()


def digest(value: Any) -> str:
    """SHA-256 over the canonical bytes: 64 lower-case hex digits."""
    return hashlib.sha256(canonical(value)).hexdigest()


def _write(value: Any, out: list[str]) -> None:
    kind = type(value)
    if kind is str:
        out.append(_quote(value))
    elif kind is bool:
        out.append("true" if value else "false")
    elif kind is int:
        out.append(str(value))
    elif kind is float:
        out.append(number(value))
    elif kind is dict:
        separator = "{"
        for key in sorted(value, key=_utf16):
            out.append(separator)
            out.append(_quote(key))
            out.append(":")
            _write(value[key], out)
            separator = ","
        out.append("}" if value else "{}")
    elif kind is list:
        separator = "["
        for item in value:
            out.append(separator)
            _write(item, out)
            separator = ","
        out.append("]" if value else "[]")
    elif value is None:
        out.append("null")
    else:
        raise ValueError(f"{kind.__qualname__} is no JSON type")


def _utf16(key: str) -> bytes:
    return key.encode("utf-16-be")


def number(value: float) -> str:
    """A finite float as ECMAScript prints it: the shortest digits that read back, in its choice of notation."""
    if not isfinite(value):
        raise ValueError(f"{value} has no form in JSON")
    if value == 0:
        return "0"
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    # point: the value is 0.digits * 10**point
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        text = digits + "0" * (point - count)
    elif 0 < point <= 21:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = "0." + "0" * -point + digits
    else:
        text = digits[0] + ("." + digits[1:] if count > 1 else "") + f"e{point - 1:+d}"
    return "-" + text if value < 0 else text


def parse(data: bytes | str) -> Any:
    """JSON as an API server reads it: an integer literal outside int64 is a float.

    Raises ValueError for anything that is no JSON, nan and infinities, overflow, a key given twice, and for nesting
    that no one could walk.
    """
    try:
        return json.loads(
            data, parse_int=_integer, parse_float=_float, parse_constant=_constant, object_pairs_hook=_object
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _integer(literal: str) -> int | float:
    if len(literal) < 19:
        return int(literal)
    value = int(literal) if len(literal) < 30 else 2**63
    return value if -(2**63) <= value < 2**63 else _float(literal)


def _float(literal: str) -> float:
    value = float(literal)
    if not isfinite(value):
        raise ValueError(f"the number {literal} is too large")
    return value


def _constant(literal: str) -> Any:
    raise ValueError(f"{literal} is no JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    return value
