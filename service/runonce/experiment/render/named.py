"""Values that carry the name of their class, and references to classes and functions."""

from __future__ import annotations

import contextlib
import enum
import functools
import sys
from typing import Any

from runonce.errors import InputError, shown
from runonce.experiment.form import JSON
from runonce.experiment.render.codec import REPRESENT, Load, Pass, fault, misfit
from runonce.experiment.render.instances import load_record, render_record
from runonce.experiment.render.library import LIBRARY, library_name, load_library, load_member, member_name
from runonce.experiment.render.records import Record, record_of
from runonce.experiment.render.values import ANY, BY_CLASS

_NAMES: dict[type, str] = {}


def name_of(thing: Any) -> str:
    """`package.module:Name` of a class or function that is found again under it; RenderError else."""
    known = _NAMES.get(thing) if isinstance(thing, type) else None
    if known is not None:
        return known
    module, qualname = getattr(thing, "__module__", None), thing.__qualname__
    found = sys.modules.get(module) if isinstance(module, str) else None
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found is not thing:
        raise fault(
            f"is {qualname}, which is not found again as {module}:{qualname}.",
            "Define it at the top level of a module. " + REPRESENT,
        )
    name = f"{module}:{qualname}"
    if isinstance(thing, type):
        _NAMES[thing] = name
    return name


def render_named(value: Any, walk: Pass) -> JSON:
    """A value of any other class, under its tag. Raises RenderError for what has no form."""
    cls = type(value)
    if isinstance(value, type):
        return {"$ref": name_of(value)}
    if isinstance(value, enum.Enum):
        return {"$type": name_of(cls), "value": member_name(value)}
    name = library_name(cls)
    if name:
        return {"$type": name, "value": LIBRARY[name][1](value)}
    record = record_of(cls)
    if record is not None:
        BY_CLASS[cls] = functools.partial(_render_tagged, name_of(cls), record)
        return BY_CLASS[cls](value, walk)
    if cls is functools.partial:
        return _render_partial(value, walk)
    if callable(value) and isinstance(getattr(value, "__qualname__", None), str):
        return _render_function(value)
    if isinstance(value, bool | int | float | str | bytes | list | tuple | dict | set | frozenset):
        base = next(b for b in cls.__mro__ if b.__module__ == "builtins")
        raise fault(f"is a {cls.__qualname__}, which would come back as a {base.__name__}.", f"Use a {base.__name__}.")
    raise fault(f"is a {cls.__module__}.{cls.__qualname__}, which has no form in JSON.", REPRESENT)


def _render_tagged(name: str, record: Record, value: Any, walk: Pass) -> JSON:
    return {"$type": name, "value": render_record(record, value, walk)}


def _render_function(value: Any) -> JSON:
    owner = getattr(value, "__self__", None)
    if owner is not None and not isinstance(owner, type(sys)):
        raise fault(f"is {value.__qualname__} bound to {shown(owner)}.", "Use a function of a module. " + REPRESENT)
    if "<lambda>" in value.__qualname__:
        raise fault("is a lambda, which has no name to find it again by.", "Write a def in a module. " + REPRESENT)
    if "<locals>" in value.__qualname__:
        raise fault(f"is {value.__qualname__}, made inside a function.", "Write it in a module. " + REPRESENT)
    return {"$ref": name_of(value)}


def _render_partial(value: functools.partial[Any], walk: Pass) -> JSON:
    function = ANY.render(value.func, walk)
    if type(function) is not dict or "$ref" not in function:
        raise fault("is a partial of something that is no function of a module.", REPRESENT)
    kwargs = dict(value.keywords)
    try:
        return {**function, "args": ANY.render(list(value.args), walk), "kwargs": ANY.render(kwargs, walk)}
    except InputError as error:
        raise error.under("arguments of the partial") from None


def load_named(tag: str, value: dict[str, JSON], context: Load) -> Any:
    if tag == "$ref":
        found = context.resolve(value["$ref"])
        if not callable(found):
            raise misfit(f"names {value['$ref']}, which is no function or class.")
        if "args" not in value:
            return found
        return functools.partial(found, *ANY.load(value["args"], context), **ANY.load(value["kwargs"], context))
    name = value["$type"]
    if name in LIBRARY:
        return load_library(name, value["value"])
    cls = context.resolve(name)
    if not isinstance(cls, type):
        raise misfit(f"names {name}, which is no class.", "Use $ref for a function.")
    with contextlib.suppress(TypeError):  # abstract classes and the like are no enums
        if issubclass(cls, enum.Enum):
            return load_member(cls, value["value"])
    record = record_of(cls)
    if record is None:
        raise misfit(
            f"names {name}, which is no dataclass, enum, pydantic or attrs model.",
            "Only these are made from a file.",
        )
    try:
        return load_record(record, value["value"], context)
    except InputError as error:
        raise error.under("value") from None
