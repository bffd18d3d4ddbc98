"""A class as an annotation."""

from __future__ import annotations

import enum
import typing
from collections.abc import Callable
from typing import Any

from runonce.errors import InputError, near, raise_all, shown
from runonce.experiment.form import JSON
from runonce.experiment.frozen import plain_class
from runonce.experiment.render.annotations import codec_of
from runonce.experiment.render.codec import Codec, Load, Pass, fault, misfit
from runonce.experiment.render.containers import ordered_keys
from runonce.experiment.render.instances import instance_of, record_codec
from runonce.experiment.render.library import enum_codec, library_codec, library_name
from runonce.experiment.render.records import field_codec, record_of, resolved_hints
from runonce.experiment.render.values import ANY


def codec_of_class(cls: type) -> Codec:
    if issubclass(cls, enum.Enum):
        return enum_codec(cls)
    name = library_name(cls) or {
        ("pathlib", "Path"): "pathlib:Path",
        ("pathlib", "PurePath"): "pathlib:Path",
    }.get((cls.__module__.partition(".")[0], cls.__qualname__))
    if name:
        return library_codec(cls, name)
    if typing.is_typeddict(cls):
        return _typed_dict_codec(cls)
    record = record_of(cls)
    if record is not None:
        return record_codec(record)
    if cls.__module__ == "numpy":
        number = _numpy_scalar(cls)
        if number is not None:
            return codec_of(number)
    if getattr(cls, "_is_protocol", False):
        return ANY
    return _checked(cls)


def _numpy_scalar(cls: type) -> type | None:
    ancestors = {base.__name__ for base in cls.__mro__}
    by_name = {"floating": float, "integer": int, "bool": bool, "bool_": bool, "str_": str}
    return next((kind for name, kind in by_name.items() if name in ancestors), None)


def _checked(cls: type) -> Codec:
    """Any form, if it is an instance of the class that the annotation names."""

    def render(value: Any, walk: Pass) -> JSON:
        if not isinstance(value, cls):
            raise fault(f"is {shown(value)}; declared as {cls.__qualname__}.", "Change one of them.")
        return ANY.render(value, walk)

    return Codec(render, lambda value, context: instance_of(ANY.load(value, context), cls))


def _typed_dict_codec(cls: type) -> Codec:
    hints = resolved_hints(cls)
    codecs = {name: field_codec(cls, name, _unmarked(hint)) for name, hint in hints.items()}
    # By the hints: where annotations are text, the class itself cannot know its marks.
    marks = {name: typing.get_origin(hint) for name, hint in hints.items()}
    required = {
        name
        for name, mark in marks.items()
        if mark is typing.Required or (mark is not typing.NotRequired and name in cls.__required_keys__)  # type: ignore[attr-defined]
    }

    def each(value: Any, direction: Callable[[Codec, Any], Any], error: Callable[..., InputError]) -> Any:
        if plain_class(value) is not dict:
            raise error(f"is {shown(value)}; a mapping is meant.")
        out, errors = {}, []
        for name in value:
            if name not in codecs:
                errors.append(error(f"is no key of {cls.__qualname__}.", near(str(name), codecs)).under(str(name)))
                continue
            try:
                out[name] = direction(codecs[name], value[name])
            except InputError as inner:
                errors.append(inner.under(name))
        errors += [error("is missing.", "Give it.").under(name) for name in sorted(required - value.keys())]
        raise_all(errors)
        return out

    def load(value: JSON, context: Load) -> Any:
        loaded = each(value, lambda codec, entry: codec.load(entry, context), misfit)
        return {name: loaded[name] for name in ordered_keys(loaded)}

    return Codec(lambda value, walk: each(value, lambda codec, entry: codec.render(entry, walk), fault), load)


def _unmarked(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) in (typing.Required, typing.NotRequired) else hint
