"""A value of which nothing is declared: its own class decides, and what JSON cannot tell is tagged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runonce.experiment.canonical import UNSAFE_FROM
from runonce.experiment.form import JSON, decode_base64, tag_of
from runonce.experiment.frozen import FrozenDict, FrozenList, FrozenSet
from runonce.experiment.render.arrays import is_array, load_array, render_array
from runonce.experiment.render.codec import Codec, Load, Pass
from runonce.experiment.render.containers import load_items, mapping, sequence
from runonce.experiment.render.scalars import python_number, render_bytes, render_float, render_int, whole


def _render_any(value: Any, walk: Pass) -> JSON:
    kind = type(value)
    if kind is str or kind is bool:
        return value
    if kind is int:
        return render_int(value)
    render = BY_CLASS.get(kind)
    if render is not None:
        return render(value, walk)
    if is_array(value):
        return render_array(value, walk)
    number = python_number(value)
    if number is not value:
        return _render_any(number, walk)
    from runonce.experiment.render.named import render_named

    return render_named(value, walk)


def _load_any(value: JSON, context: Load) -> Any:
    kind = type(value)
    if kind is float:
        return int(value) if whole(value) and abs(value) < UNSAFE_FROM else value
    if kind is list:
        return load_items(_load_any, value, context)
    if kind is not dict:
        return value
    tag = tag_of(value)
    if tag is None or tag == "$map":
        return ANY_DICT.load(value, context)
    if tag in _ANY_TAGS:
        return _ANY_TAGS[tag](value, context)
    from runonce.experiment.render.named import load_named

    return load_named(tag, value, context)


ANY = Codec(_render_any, _load_any)
ANY_DICT = mapping(ANY, ANY)
_ANY_LIST = sequence(list, ANY, tag=None)
_TAGGED = {kind: sequence(kind, ANY, tag=f"${kind.__name__}") for kind in (tuple, set, frozenset)}
# Exact class to its form; `named` adds each class that it has once found a name and a record for.
BY_CLASS: dict[type, Callable[[Any, Pass], JSON]] = {
    float: lambda value, walk: render_float(value),
    type(None): lambda value, walk: {"$none": True},
    bytes: lambda value, walk: render_bytes(value),
    dict: ANY_DICT.render,
    list: _ANY_LIST.render,
    FrozenDict: ANY_DICT.render,
    FrozenList: _ANY_LIST.render,
    FrozenSet: _TAGGED[set].render,
    **{kind: codec.render for kind, codec in _TAGGED.items()},
}
_ANY_TAGS: dict[str, Callable[[JSON, Load], Any]] = {
    "$none": lambda value, context: None,
    "$int": lambda value, context: int(value["$int"]),
    "$float": lambda value, context: float(value["$float"]),
    "$bytes": lambda value, context: decode_base64(value["$bytes"]) or b"",
    "$array": lambda value, context: load_array(value),
    **{f"${kind.__name__}": codec.load for kind, codec in _TAGGED.items()},
}
