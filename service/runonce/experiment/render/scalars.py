"""Numbers, truth, text and bytes."""

from __future__ import annotations

import base64
from math import isfinite
from typing import Any

from runonce.errors import shown
from runonce.experiment.canonical import UNSAFE_FROM, UNSAFE_TO
from runonce.experiment.form import JSON, MAX_DIGITS, float_text
from runonce.experiment.render.codec import Codec, Load, Pass, fault, misfit

_TOO_LONG = 10**MAX_DIGITS  # Python makes no text of much longer ones


def render_int(value: int) -> JSON:
    if -UNSAFE_FROM < value < UNSAFE_FROM:
        return value
    if abs(value) >= _TOO_LONG:
        raise fault(f"is a whole number of more than {MAX_DIGITS} digits.", "Keep such a number in a file.")
    return {"$int": str(value)}


def render_float(value: float) -> JSON:
    if value - value == 0 and not value.is_integer():  # the common case first: finite, with a fraction
        return value
    if value.is_integer():
        if -UNSAFE_FROM < value < UNSAFE_FROM:
            return int(value)
        return value if abs(value) >= UNSAFE_TO else {"$float": float_text(value)}
    return {"$float": float_text(value)}


def python_number(value: Any) -> Any:
    """A numpy scalar as Python's number or text; anything else as it is."""
    if type(value).__module__ == "numpy" and hasattr(value, "item") and getattr(value, "shape", None) == ():
        item = value.item()
        if type(item) in (bool, int, float, str, bytes):
            return item
    return value


def whole(value: float) -> bool:
    return isfinite(value) and value.is_integer()


SCALARS = frozenset((bool, int, float, str))


def scalar(kinds: frozenset[type]) -> Codec:
    """bool, int, float, str or a union of them: JSON tells them apart, so none needs a tag."""
    names = " or ".join(kind.__name__ for kind in (bool, int, float, str) if kind in kinds)

    def render(value: Any, walk: Pass) -> JSON:
        kind = type(value)
        if kind not in SCALARS:
            value = python_number(value)
            kind = type(value)
        if kind in kinds:
            if kind is float:
                return render_float(value)
            return render_int(value) if kind is int else value
        if kind is int and float in kinds:
            if abs(value) < UNSAFE_FROM:
                return value
            try:
                if int(float(value)) == value:
                    return render_float(float(value))
            except OverflowError:
                pass
        elif kind is float and int in kinds and whole(value):
            return render_int(int(value))
        raise fault(f"is {shown(value)}; declared as {names}.", "Change the value or the annotation.")

    def load(value: JSON, context: Load) -> Any:
        kind = type(value)
        if kind is dict:
            if "$int" in value and int in kinds:
                return int(value["$int"])
            if "$float" in value and float in kinds:
                return float(value["$float"])
        elif kind is float and float not in kinds and int in kinds and whole(value) and abs(value) < UNSAFE_FROM:
            return int(value)
        elif kind is float and float in kinds and int in kinds and whole(value) and abs(value) < UNSAFE_FROM:
            return int(value)  # 1.0 and 1 are one key, so they must be one value
        elif kind in kinds:
            return value
        elif kind is int and float in kinds:
            return float(value)
        raise misfit(f"is {shown(value)}; the parameter takes {names}.")

    return Codec(render, load, tuple(kinds))


def render_bytes(value: bytes) -> JSON:
    return {"$bytes": base64.b64encode(value).decode()}
