"""Enums, and the listed library types under their fixed names: values that are one text."""

from __future__ import annotations

import enum
import sys
import typing
from collections.abc import Callable
from typing import Any

from runonce.errors import near, shown
from runonce.experiment.form import JSON
from runonce.experiment.render.codec import REPRESENT, Codec, Load, Pass, fault, misfit
from runonce.experiment.render.instances import instance_of
from runonce.experiment.render.values import ANY


def member_name(value: enum.Enum) -> str:
    if value.name is None or value.name not in type(value).__members__:
        raise fault("is a combination of flags, which has no name of its own.", REPRESENT)
    return value.name


def load_member(cls: type[enum.Enum], name: JSON) -> enum.Enum:
    if type(name) is str and name in cls.__members__:
        return cls[name]
    raise misfit(f"is {shown(name)}, no member of {cls.__qualname__}.", near(str(name), cls.__members__))


def enum_codec(cls: type[enum.Enum]) -> Codec:
    def render(value: Any, walk: Pass) -> JSON:
        if type(value) is not cls:
            raise fault(f"is {shown(value)}; declared as {cls.__qualname__}.", "Give a member of it.")
        return member_name(value)

    return Codec(render, lambda value, context: load_member(cls, value), (cls,))


def _iso(value: Any) -> str:
    tzinfo = getattr(value, "tzinfo", None)
    if getattr(value, "fold", 0) or (tzinfo is not None and type(tzinfo).__name__ != "timezone"):
        raise fault("has a time zone that is more than an offset.", "Convert it to UTC. " + REPRESENT)
    return typing.cast(str, value.isoformat())


def _from_timedelta(value: Any) -> JSON:
    return [value.days, value.seconds, value.microseconds]


def _to_timedelta(cls: Any, value: JSON) -> Any:
    return cls(*value)


# By the name in $type: the classes that carry it, and both directions. The text is the one that the class
# itself writes and reads.
LIBRARY: dict[str, tuple[tuple[str, ...], Callable[[Any], JSON], Callable[[Any, JSON], Any]]] = {
    "pathlib:Path": (("PosixPath", "WindowsPath"), str, lambda cls, text: cls(text)),
    "pathlib:PurePosixPath": (("PurePosixPath",), str, lambda cls, text: cls(text)),
    "pathlib:PureWindowsPath": (("PureWindowsPath",), str, lambda cls, text: cls(text)),
    "datetime:date": (("date",), _iso, lambda cls, text: cls.fromisoformat(text)),
    "datetime:datetime": (("datetime",), _iso, lambda cls, text: cls.fromisoformat(text)),
    "datetime:time": (("time",), _iso, lambda cls, text: cls.fromisoformat(text)),
    "datetime:timedelta": (("timedelta",), _from_timedelta, _to_timedelta),
    "decimal:Decimal": (("Decimal",), str, lambda cls, text: cls(text)),
    "uuid:UUID": (("UUID",), str, lambda cls, text: cls(text)),
    "fractions:Fraction": (("Fraction",), str, lambda cls, text: cls(text)),
}
_LIBRARY_CLASSES = {
    (name.partition(":")[0], qualname): name for name, (classes, *_) in LIBRARY.items() for qualname in classes
}


def library_name(cls: type) -> str | None:
    """The fixed name under which instances of a library class are written; never by importing its module."""
    module = cls.__module__.partition(".")[0]
    name = _LIBRARY_CLASSES.get((module, cls.__qualname__))
    return name if name and getattr(sys.modules.get(module), cls.__qualname__, None) is cls else None


def load_library(name: str, value: JSON) -> Any:
    import importlib

    module, _, qualname = name.partition(":")
    cls = getattr(importlib.import_module(module), qualname)
    _, write, read = LIBRARY[name]
    try:
        made = read(cls, value)
        again = write(made)
    except Exception as error:  # each class refuses in its own way
        raise misfit(f"is {shown(value)}, which {qualname} refused: {error}.") from error
    if again != value:
        raise misfit(f"is {shown(value)}; {qualname} writes it {shown(again)}.", "Write it so.")
    return made


def library_codec(annotation: type, name: str) -> Codec:
    def render(value: Any, walk: Pass) -> JSON:
        if library_name(type(value)) != name:
            if isinstance(value, annotation):
                return ANY.render(value, walk)
            raise fault(f"is {shown(value)}; declared as {annotation.__qualname__}.", "Change one of them.")
        return LIBRARY[name][1](value)

    def load(value: JSON, context: Load) -> Any:
        if type(value) is dict:
            return instance_of(ANY.load(value, context), annotation)
        return load_library(name, value)

    return Codec(render, load)
