"""Annotations that leave a choice: unions, literals, None, abstract lists, any class or function."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

from runonce.errors import InputError, shown
from runonce.experiment.form import JSON
from runonce.experiment.frozen import plain_class
from runonce.experiment.render.codec import Codec, Load, Pass, fault, misfit, other_class
from runonce.experiment.render.containers import sequence
from runonce.experiment.render.scalars import SCALARS, python_number, scalar
from runonce.experiment.render.values import ANY


def optional(inner: Codec) -> Codec:
    render_inner, load_inner = inner.render, inner.load

    def render(value: Any, walk: Pass) -> JSON:
        return {"$none": True} if value is None else render_inner(value, walk)

    def load(value: JSON, context: Load) -> Any:
        return None if type(value) is dict and "$none" in value else load_inner(value, context)

    return Codec(render, load, inner.plain)


def union(members: tuple[Any, ...]) -> Codec:
    rest = tuple(member for member in members if member not in (None, type(None)))
    if all(member in SCALARS for member in rest):
        scalars = scalar(frozenset(rest))
        return scalars if len(rest) == len(members) else optional(scalars)
    # Which member a value has is told by its tag; numbers still take the type that the union names.
    number = scalar(frozenset(rest) & {int, float}) if not {int, float}.isdisjoint(rest) else None
    classes = tuple(filter(None, (_class_of(member) for member in rest)))
    open_ = len(classes) < len(rest)

    def check(value: Any, error: Callable[[str], InputError]) -> Any:
        if open_ or value is None or isinstance(value, classes):
            return value
        raise error(f"is {shown(value)}; declared as {' or '.join(c.__name__ for c in classes)}.")

    def render(value: Any, walk: Pass) -> JSON:
        value = python_number(value)
        if number and type(value) in (int, float):
            return number.render(value, walk)
        if value is None and len(rest) == len(members):
            raise fault("is None; its union does not name None.")
        return ANY.render(check(value, fault), walk)

    def load(value: JSON, context: Load) -> Any:
        if number and (type(value) in (int, float) or (type(value) is dict and value.keys() & {"$int", "$float"})):
            return number.load(value, context)
        return check(ANY.load(value, context), misfit)

    return Codec(render, load)


def _class_of(annotation: Any) -> type | None:
    kind = typing.get_origin(annotation) or annotation
    return kind if isinstance(kind, type) and not getattr(kind, "_is_protocol", False) else None


def literal(choices: tuple[Any, ...]) -> Codec:
    names = ", ".join(map(repr, choices))

    def check(value: Any, error: Callable[[str], InputError]) -> Any:
        for choice in choices:
            if type(choice) is type(value) and choice == value:
                return value
        raise error(f"is {shown(value)}; one of {names} is meant.")

    def load(value: JSON, context: Load) -> Any:
        return check(ANY.load(value, context), misfit)

    return Codec(lambda value, walk: ANY.render(check(python_number(value), fault), walk), load)


def reference(kind: type | None) -> Codec:
    """`type[X]`, or where kind is None a Callable."""
    what = "a class" if kind else "a function or class"

    def check(value: Any, error: Callable[[str], InputError]) -> Any:
        if isinstance(value, kind) if kind else callable(value):
            return value
        raise error(f"is {shown(value)}; {what} is meant.")

    def render(value: Any, walk: Pass) -> JSON:
        return ANY.render(check(value, fault), walk)

    return Codec(render, lambda value, context: check(ANY.load(value, context), misfit))


def abstract_list(item: Codec) -> Codec:
    """Sequence[X] and its kin: the value's own class decides, so it is plain for a list and tagged else."""
    plain = sequence(list, item, tag=None)
    tagged: dict[type, Codec] = {
        kind: sequence(kind, item, tag=f"${kind.__name__}") for kind in (tuple, set, frozenset)
    }

    def render(value: Any, walk: Pass) -> JSON:
        kind = plain_class(value)
        codec = plain if kind is list else tagged.get(kind)
        return codec.render(value, walk) if codec else ANY.render(value, walk)

    def load(value: JSON, context: Load) -> Any:
        if type(value) is list:
            return plain.load(value, context)
        kind = next((k for k in tagged if type(value) is dict and f"${k.__name__}" in value), None)
        return tagged[kind].load(value, context) if kind else ANY.load(value, context)

    return Codec(render, load, (list,))


def _render_none(value: Any, walk: Pass) -> JSON:
    if value is not None:
        raise fault(f"is {shown(value)}; declared as None.")
    return {"$none": True}


def _load_none(value: JSON, context: Load) -> None:
    if not (type(value) is dict and "$none" in value):
        raise misfit(f"is {shown(value)}; only {{$none: true}} is meant.")


NONE = Codec(_render_none, _load_none, (type(None),))


def only(kind: type) -> Codec:
    """The values of one class that always carry their tag."""

    def render(value: Any, walk: Pass) -> JSON:
        value = python_number(value)
        if type(value) is not kind:
            raise other_class(value, kind)
        return ANY.render(value, walk)

    def load(value: JSON, context: Load) -> Any:
        out = ANY.load(value, context)
        if type(out) is not kind:
            raise misfit(f"is {shown(value)}; {kind.__name__} is meant, as its tag writes it.")
        return out

    return Codec(render, load)
