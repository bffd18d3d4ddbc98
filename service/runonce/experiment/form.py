"""The rendered form as text: which JSON may stand in `params`, and the one spelling of every tag.

Nothing here knows a class, so the controller can refuse what the worker would refuse. The table of forms is
docs/forms.md; `render` writes these forms and reads them.
"""

from __future__ import annotations

import base64
import binascii
import itertools
from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from typing import Any

from runonce.errors import Fault, NotCanonical, SpecError, shown
from runonce.experiment.canonical import UNSAFE_FROM, UNSAFE_TO, canonical, number

MAX_DEPTH = 48
MAX_BYTES = 64 * 1024  # of `params` in a resource; an API server spends time on every one of them
MAX_ARRAY_BYTES = 4 * 1024
MAX_DIGITS = 4000  # of an integer; Python reads and writes 4300 by default

JSON = Any  # dict[str, JSON] | list[JSON] | str | int | float | bool


def check_form(value: JSON, *path: str | int) -> None:
    """Raise one error with every fault of `value`: nulls, numbers an API server would change, unknown or
    misspelled tags, lone surrogates, too deep a nesting. `path` says where the value stands.

    The error is a NotCanonical when spelling is all that is wrong, else a SpecError.
    """
    faults: list[Fault] = []
    spelling: list[Fault] = []
    # The value itself is the first level, wherever it stands; a tag and what it holds are one level, as in `render`.
    _walk(value, path, len(path) + MAX_DEPTH - 1, faults, spelling)
    if faults:
        raise SpecError(*faults, *spelling)
    if spelling:
        raise NotCanonical(*spelling)


def check_size(value: JSON, *path: str | int) -> None:
    size = len(canonical(value))
    if size > MAX_BYTES:
        raise SpecError(
            Fault("", f"is {size:,} bytes as JSON; an API server takes up to {MAX_BYTES:,} here.", _BIG).under(*path)
        )


_BIG = "Keep big values in a file and let a parameter name it, or give them a short representation."
_NULL = (
    "Write {$none: true} for None, or leave the field out where None is its default: "
    "kubectl apply silently drops entries that are null."
)


def _walk(value: JSON, path: tuple[str | int, ...], limit: int, faults: list[Fault], spelling: list[Fault]) -> None:
    kind = type(value)
    if kind is str:
        if not value.isascii() and _surrogate(value):
            faults.append(Fault("", "holds a lone surrogate, which is no character.", "Remove it.").under(*path))
    elif kind is int or kind is float:
        what = plain_number_fault(value)
        if what:
            faults.append(Fault("", *what).under(*path))
    elif kind is bool:
        pass
    elif len(path) > limit:
        faults.append(Fault("", f"is nested more than {MAX_DEPTH} levels deep.", "Flatten it.").under(*path[:6]))
    elif kind is list:
        for index, item in enumerate(value):
            _walk(item, (*path, index), limit, faults, spelling)
    elif kind is dict:
        _walk_mapping(value, path, limit, faults, spelling)
    elif value is None:
        faults.append(Fault("", "is null.", _NULL).under(*path))
    else:
        faults.append(Fault("", f"is a {kind.__qualname__}, which JSON does not have.").under(*path))


def _walk_mapping(
    value: dict[str, JSON], path: tuple[str | int, ...], limit: int, faults: list[Fault], spelling: list[Fault]
) -> None:
    tag = tag_of(value)
    if tag is None:
        for key, item in value.items():
            if key.startswith("$") or (not key.isascii() and _surrogate(key)):
                faults.append(Fault("", *_bad_key(key)).under(*path))
            else:
                _walk(item, (*path, key), limit, faults, spelling)
        return
    what = _TAGS[tag](value)
    if what:
        spelling.append(Fault("", what).under(*path))
    elif tag in ("$tuple", "$set", "$frozenset", "$map"):
        _walk(value[tag], (*path, tag), limit + 1, faults, spelling)
    elif tag == "$type":
        _walk(value["value"], (*path, "value"), limit + 1, faults, spelling)
    elif tag == "$ref":
        for key in ("args", "kwargs"):
            _walk(value.get(key, []), (*path, key), limit + 1, faults, spelling)
    if not what and tag in ("$set", "$frozenset", "$map") and not _ordered(value[tag], pairs=tag == "$map"):
        spelling.append(Fault("", f"{tag} stands out of order, or twice.", _ORDER).under(*path))


_ORDER = "Sort it by the RFC 8785 text of its items, each one once."


def _bad_key(key: str) -> tuple[str, str]:
    if key.startswith("$"):
        return f"has the key {shown(key)}: keys that begin with $ are kept for tags.", (
            f"Known tags: {', '.join(sorted(_TAGS))}, alone in their mapping. Rename any other key."
        )
    return "has a key with a lone surrogate, which is no character.", "Rename it."


def tag_of(value: Mapping[str, JSON]) -> str | None:
    """The tag that makes this mapping a tagged value; None for a plain mapping."""
    for key in value:
        if key in _TAGS and value.keys() <= _COMPANIONS.get(key, frozenset((key,))):
            return key
    return None


_COMPANIONS = {
    "$type": frozenset(("$type", "value")),
    "$ref": frozenset(("$ref", "args", "kwargs")),
}


def plain_number_fault(value: int | float) -> tuple[str, str] | None:
    """Why this number cannot stand as a plain JSON number, and how to write it; None if it can."""
    if UNSAFE_FROM <= abs(value) < UNSAFE_TO:  # a float of this size is whole
        return (
            f"is {shown(value)}: an API server may hand back another whole number of this size (2^53 to 10^21).",
            f'Write {{$int: "{int(value)}"}} for the integer or {{$float: "{number(float(value))}"}} for the float.',
        )
    if type(value) is int and abs(value) >= 10**MAX_DIGITS:
        return f"is {shown(value)}.", "Keep such a number in a file."
    if type(value) is int and abs(value) >= UNSAFE_TO:
        return f"is {shown(value)}, which only a float could hold.", f'Write {{$int: "{value}"}}.'
    if not isfinite(value):
        return f"is {shown(value)}, which JSON does not have.", f'Write {{$float: "{float_text(value)}"}}.'
    return None


def float_text(value: float) -> str:
    if isfinite(value):
        return number(value)
    return "nan" if value != value else "inf" if value > 0 else "-inf"


def _surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _ordered(items: Iterable[Any], *, pairs: bool) -> bool:
    try:
        keys = [canonical(item[0] if pairs else item) for item in items]
    except (ValueError, UnicodeError):
        return True  # named already, where the item stands
    return all(first < second for first, second in itertools.pairwise(keys))


# Each takes the tagged mapping and says what is wrong with its spelling and how to write it; empty if nothing is.


def _none(value: dict[str, JSON]) -> str:
    return "" if value["$none"] is True else "$none takes only true. Write {$none: true}."


def _int(value: dict[str, JSON]) -> str:
    text = value["$int"]
    if type(text) is not str or not text.removeprefix("-").isdecimal() or not text.isascii():
        return f'$int takes a string of decimal digits, not {shown(text)}. Write {{$int: "9007199254740993"}}.'
    digits = text.removeprefix("-")
    if len(digits) > MAX_DIGITS:
        return f"$int has {len(digits)} digits; {MAX_DIGITS} are the limit. Keep such a number in a file."
    number_ = int(text)
    if str(number_) != text:
        return f'$int has one spelling, without padding. Write {{$int: "{number_}"}}.'
    if abs(number_) < UNSAFE_FROM:
        return f"$int is for whole numbers from 2^53 on. Write {number_}."
    return ""


def _float(value: dict[str, JSON]) -> str:
    text = value["$float"]
    if type(text) is str and text in ("nan", "inf", "-inf"):
        return ""
    try:
        number_ = float(text) if type(text) is str else float("nan")
    except ValueError:
        number_ = float("nan")
    if not isfinite(number_):
        return f'$float takes the text of a number, "nan", "inf" or "-inf", not {shown(text)}.'
    if number(number_) != text:
        return f'$float has one spelling, that of RFC 8785. Write {{$float: "{number(number_)}"}}.'
    if not UNSAFE_FROM <= abs(number_) < UNSAFE_TO:
        return f"$float is for what a plain number cannot say. Write {text}."
    return ""


def _list(tag: str) -> Callable[[dict[str, JSON]], str]:
    return lambda value: "" if type(value[tag]) is list else f"{tag} takes a list, not {shown(value[tag])}."


def _bytes(value: dict[str, JSON]) -> str:
    return "" if decode_base64(value["$bytes"]) is not None else "$bytes takes padded base64 text (RFC 4648)."


def _map(value: dict[str, JSON]) -> str:
    pairs = value["$map"]
    if type(pairs) is not list or not all(type(pair) is list and len(pair) == 2 for pair in pairs):
        return "$map takes a list of pairs: {$map: [[1, a], [2, b]]}."
    if all(type(key) is str for key, _ in pairs):
        return "$map is for keys that are not all strings. Write a plain mapping."
    return ""


def _array(value: dict[str, JSON]) -> str:
    array = value["$array"]
    if type(array) is not dict or array.keys() != {"dtype", "shape", "data"}:
        return '$array takes {dtype, shape, data}: {$array: {dtype: "<f4", shape: [2], data: "AACAPwAAAEA="}}.'
    data, shape, dtype = decode_base64(array["data"]), array["shape"], array["dtype"]
    if data is None:
        return "$array has data that is no padded base64 text (RFC 4648)."
    if type(shape) is not list or not all(type(size) is int and 0 <= size < UNSAFE_FROM for size in shape):
        return "$array has a shape that is no list of whole numbers."
    if type(dtype) is not str or dtype not in ARRAY_TYPES:
        return f"$array has the dtype {shown(dtype)}. Known: {', '.join(ARRAY_TYPES)}."
    items = 1
    for size in shape:
        items *= size
    if items * ARRAY_TYPES[dtype] != len(data):
        return f"$array has {len(data)} bytes of data; its dtype and shape need {items * ARRAY_TYPES[dtype]}."
    if len(data) > MAX_ARRAY_BYTES:
        return f"$array has {len(data):,} bytes; {MAX_ARRAY_BYTES:,} are the limit. {_BIG}"
    return ""


# little-endian, as numpy names them, with the bytes of one item
ARRAY_TYPES = {"|b1": 1, "|i1": 1, "|u1": 1} | {
    f"<{kind}{size}": size
    for kind, sizes in (("i", (2, 4, 8)), ("u", (2, 4, 8)), ("f", (2, 4, 8)), ("c", (8, 16)))
    for size in sizes
}


def _type(value: dict[str, JSON]) -> str:
    if value.keys() != {"$type", "value"}:
        return '$type goes with value: {$type: "package.module:Class", value: {…}}.'
    return _name("$type", value["$type"])


def _ref(value: dict[str, JSON]) -> str:
    what = _name("$ref", value["$ref"])
    if what or len(value) == 1:
        return what
    if value.keys() != {"$ref", "args", "kwargs"}:
        return "$ref to a partial has both args and kwargs."
    if type(value["args"]) is not list or type(value["kwargs"]) is not dict:
        return "$ref takes args as a list and kwargs as a mapping."
    return ""


def _name(tag: str, name: JSON) -> str:
    module, colon, qualname = name.partition(":") if type(name) is str else ("", "", "")
    parts = [*module.split("."), *qualname.split(".")]
    if colon and all(part.isidentifier() for part in parts):
        return ""
    return f'{tag} takes "package.module:Name", not {shown(name)}.'


def decode_base64(text: JSON) -> bytes | None:
    """The bytes, or None where the text is not the one canonical spelling of any."""
    if type(text) is not str or not text.isascii():
        return None
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return data if base64.b64encode(data).decode() == text else None


_TAGS: dict[str, Callable[[dict[str, JSON]], str]] = {
    "$none": _none,
    "$int": _int,
    "$float": _float,
    "$tuple": _list("$tuple"),
    "$set": _list("$set"),
    "$frozenset": _list("$frozenset"),
    "$bytes": _bytes,
    "$map": _map,
    "$array": _array,
    "$type": _type,
    "$ref": _ref,
}
