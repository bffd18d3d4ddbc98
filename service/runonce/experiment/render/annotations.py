"""A resolved annotation to its codec, made once."""

from __future__ import annotations

import collections.abc
import types
import typing
from typing import Any

from runonce.experiment.render.choices import NONE, abstract_list, literal, only, optional, reference, union
from runonce.experiment.render.codec import Codec, fault
from runonce.experiment.render.containers import fixed_tuple, mapping, sequence
from runonce.experiment.render.scalars import SCALARS, scalar
from runonce.experiment.render.values import ANY, ANY_DICT

_ABSTRACT_LISTS = (
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Collection,
    collections.abc.Iterable,
    collections.abc.Set,
    collections.abc.MutableSet,
)
_ABSTRACT_MAPPINGS = (collections.abc.Mapping, collections.abc.MutableMapping)
_CODECS: dict[Any, Codec] = {Any: ANY, object: ANY}


def codec_of(annotation: Any) -> Codec:
    """The codec of a resolved annotation. Raises RenderError when the annotation has no meaning here."""
    try:
        known = _CODECS.get(annotation)
    except TypeError:  # an annotation with an unhashable argument, as Annotated[int, {}]
        return _build(annotation)
    if known is None:
        if isinstance(annotation, type):
            # A class may name itself in its fields; they find this entry.
            known = _CODECS[annotation] = _reserve(annotation)
        known = _CODECS[annotation] = _build(annotation)
    return known


def _reserve(cls: type) -> Codec:
    """Stands for the codec of `cls` while that is being made, so that a class may name itself."""
    return Codec(
        lambda value, walk: _CODECS[cls].render(value, walk),
        lambda value, context: _CODECS[cls].load(value, context),
    )


def _build(annotation: Any) -> Codec:
    if annotation in SCALARS:
        return scalar(frozenset((annotation,)))
    if annotation is None or annotation is type(None):
        return NONE
    if annotation is bytes:
        return only(bytes)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated or origin in (typing.Final, typing.ClassVar):
        return codec_of(arguments[0])
    if origin in (typing.Union, types.UnionType):
        rest = [argument for argument in arguments if argument not in (None, type(None))]
        return optional(codec_of(rest[0])) if len(rest) == 1 else union(arguments)
    if origin is typing.Literal:
        return literal(arguments)
    if isinstance(annotation, typing.NewType):
        return codec_of(annotation.__supertype__)
    alias = getattr(typing, "TypeAliasType", None)
    if alias is not None and isinstance(annotation, alias):
        return codec_of(annotation.__value__)
    if isinstance(annotation, typing.TypeVar | typing.ParamSpec) or annotation is typing.Final:
        return ANY
    return _build_container(origin or annotation, arguments)


def _build_container(kind: Any, arguments: tuple[Any, ...]) -> Codec:
    first = codec_of(arguments[0]) if arguments and arguments[0] is not Ellipsis else ANY
    if kind in (list, set, frozenset):
        return sequence(kind, first, tag=None)
    if kind is tuple:
        if not arguments or arguments == ((),):
            return fixed_tuple(()) if arguments else sequence(tuple, ANY, tag=None)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return sequence(tuple, first, tag=None)
        return fixed_tuple(tuple(codec_of(argument) for argument in arguments))
    if kind is dict or kind in _ABSTRACT_MAPPINGS:
        return mapping(*(codec_of(argument) for argument in arguments)) if arguments else ANY_DICT
    if kind in _ABSTRACT_LISTS:
        return abstract_list(first)
    if kind is type or kind is collections.abc.Callable:
        return reference(type if kind is type else None)
    if isinstance(kind, type):
        from runonce.experiment.render.classes import codec_of_class

        return codec_of_class(kind)
    raise fault(f"has the annotation {kind!r}, which has no form.", "Annotate it with a type.")
