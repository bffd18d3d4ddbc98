"""What is put into parameters: `-p`, `--grid`, and the same as Python values; and the points of a grid."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from runonce.author.document import read_value
from runonce.errors import Fault, InputError, SpecError, raise_all
from runonce.experiment.canonical import canonical
from runonce.experiment.render.annotations import codec_of
from runonce.experiment.render.codec import Pass

MAX_POINTS = 10_000

Changes = Mapping[str, Any]  # dotted parameter names to values as a file holds them
Axes = Mapping[str, Sequence[Any]]  # the same to the values of a grid


def read_changes(texts: Iterable[str]) -> dict[str, Any]:
    """`-p name=value`. Raises SpecError with the faults of all."""
    return _read("-p", "-p name=value", texts, lambda _, value: value)


def read_axes(texts: Iterable[str]) -> dict[str, list[Any]]:
    """`--grid name=[…]`. Raises SpecError with the faults of all."""
    return _read("--grid", "--grid name=[value, …]", texts, _axis)


def changes_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Python values as a file would hold them. Raises InputError for those that have no form."""
    return _each(values, _form)


def axes_of(values: Mapping[str, Iterable[Any]]) -> dict[str, list[Any]]:
    """The same for a grid: any iterable of values."""
    return _each(values, lambda name, given: _axis(name, [_form(name, value) for value in _values(name, given)]))


def points(changes: Changes, axes: Axes) -> list[dict[str, Any]]:
    """The product of the axes, the last one running fastest; one empty point where there are none.

    Raises SpecError where two of the names mean the same place, and for more than MAX_POINTS points.
    """
    names = [*changes, *axes]
    faults = [
        Fault(inner, "is given one value, and a grid of values too.", "Leave one of them out.")
        if inner == outer
        else Fault(inner, f"and {outer} are both given, and one lies in the other.", "Give one of them.")
        for outer, inner in itertools.permutations(names, 2)
        if inner == outer or inner.startswith(outer + ".")
    ]
    faults = list({fault.path: fault for fault in faults}.values())
    count = math.prod(len(values) for values in axes.values())
    if count > MAX_POINTS:
        shape = " x ".join(str(len(values)) for values in axes.values())
        faults.append(Fault("--grid", f"has {shape} = {count} points; at most {MAX_POINTS} are taken.", "Split it."))
    if faults:
        raise SpecError(*faults)
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def point_text(point: Mapping[str, Any]) -> str:
    """`lr=0.1 optimizer.name="sgd"`."""
    return " ".join(f"{name}={canonical(value).decode()}" for name, value in point.items())


def _read(option: str, form: str, texts: Iterable[str], check: Callable[[str, Any], Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    faults: list[Fault] = []
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            faults.append(Fault(option, f"is {text!r}.", f"Write {form}."))
        elif name in found:
            faults.append(Fault(option, f"names {name} twice.", "Give it once."))
        else:
            try:
                found[name] = check(name, read_value(value))
            except InputError as error:
                faults += (Fault(" ".join(filter(None, (option, f.path or name))), f.what, f.fix) for f in error.faults)
    if faults:
        raise SpecError(*faults)
    return found


def _axis(name: str, values: Any) -> list[Any]:
    if not isinstance(values, list):
        raise InputError.of(name, f"is {_short(values)}, no list.", f"Write {name}=[value, …].")
    if not values:
        raise InputError.of(name, "has no values, so the grid has no points.", "Give at least one.")
    seen: set[bytes] = set()
    for value in values:
        if canonical(value) in seen:
            raise InputError.of(name, f"has {_short(value)} twice.", "Give each value once.")
        seen.add(canonical(value))
    return values


def _each(values: Mapping[str, Any], make: Callable[[str, Any], Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    errors: list[InputError] = []
    for name, value in values.items():
        try:
            found[name] = make(name, value)
        except InputError as error:
            errors.append(error)
    raise_all(errors)
    return found


def _values(name: str, given: Any) -> Iterator[Any]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InputError.of(name, f"is {given!r}, no list of values.", f"Give grid={{{name!r}: [value, …]}}.")
    return iter(given)


def _form(name: str, value: Any) -> Any:
    """Lists and mappings stay plain, as they are in a file; the declared types say what they become."""
    if isinstance(value, list | tuple):
        return [_form(name, item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _form(f"{name}.{key}", item) for key, item in value.items()}
    try:
        return codec_of(Any).render(value, Pass())
    except InputError as error:
        raise error.under(name) from None


def _short(value: Any) -> str:
    text = canonical(value).decode()
    return text if len(text) <= 60 else text[:57] + "…"
