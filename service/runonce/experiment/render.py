"""Values to JSON and back, each by the type that its annotation declares. The table of forms is docs/forms.md.

A codec is made once for an annotation and holds both directions, so that they cannot part. Here are the plain
values and containers; classes that name themselves are in `render_types`.
"""

from __future__ import annotations

import base64
import collections.abc
import itertools
import sys
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, NamedTuple

from runonce.errors import Fault, InputError, LoadError, RenderError, raise_all, shown
from runonce.experiment.canonical import UNSAFE_FROM, UNSAFE_TO, canonical
from runonce.experiment.form import (
    ARRAY_TYPES,
    JSON,
    MAX_ARRAY_BYTES,
    MAX_DEPTH,
    MAX_DIGITS,
    decode_base64,
    float_text,
    tag_of,
)

Resolve = Callable[[str], Any]  # "package.module:Name" to the class or function; raises LoadError


@dataclass(slots=True)
class Pass:
    """One walk over a value. notes: what nested parameter classes keep out of the hash, by their JSON.

    hash_only: a value that has a representation need have no form of its own.
    """

    depth: int = 0
    hash_only: bool = False
    represented: bool = True  # False: leave out what has a representation, and call no user function
    notes: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class Load:
    """What reading JSON needs besides the annotation. mode: whose fields may be read; None for all."""

    resolve: Resolve
    mode: str | None = None


class Codec(NamedTuple):
    """Both directions for one annotation. `plain`: the classes whose values it writes without a tag."""

    render: Callable[[Any, Pass], JSON]
    load: Callable[[JSON, Load], Any]
    plain: tuple[type, ...] = ()


REPRESENT = (
    "Give it a representation: hash_representations = set_hash_functions(field=lambda params, value: …), "
    "or None there to leave the field out of the key."
)


def fault(what: str, fix: str = "") -> RenderError:
    return RenderError(Fault("", what, fix))


def misfit(what: str, fix: str = "") -> LoadError:
    return LoadError(Fault("", what, fix))


# --- numbers and text ---------------------------------------------------------------------------------------


_TOO_LONG = 10**MAX_DIGITS  # Python makes no text of much longer ones


def _render_int(value: int) -> JSON:
    if -UNSAFE_FROM < value < UNSAFE_FROM:
        return value
    if abs(value) >= _TOO_LONG:
        raise fault(f"is a whole number of more than {MAX_DIGITS} digits.", "Keep such a number in a file.")
    return {"$int": str(value)}


def _render_float(value: float) -> JSON:
    if value - value == 0 and not value.is_integer():  # the common case first: finite, with a fraction
        return value
    if value.is_integer():
        if -UNSAFE_FROM < value < UNSAFE_FROM:
            return int(value)
        return value if abs(value) >= UNSAFE_TO else {"$float": float_text(value)}
    return {"$float": float_text(value)}


def _python_number(value: Any) -> Any:
    """A numpy scalar as Python's number or text; anything else as it is."""
    if type(value).__module__ == "numpy" and hasattr(value, "item") and getattr(value, "shape", None) == ():
        item = value.item()
        if type(item) in (bool, int, float, str, bytes):
            return item
    return value


def _whole(value: float) -> bool:
    return isfinite(value) and value.is_integer()


_SCALARS = frozenset((bool, int, float, str))


def _scalar(kinds: frozenset[type]) -> Codec:
    """bool, int, float, str or a union of them: JSON tells them apart, so none needs a tag."""
    names = " or ".join(kind.__name__ for kind in (bool, int, float, str) if kind in kinds)

    def render(value: Any, walk: Pass) -> JSON:
        kind = type(value)
        if kind not in _SCALARS:
            value = _python_number(value)
            kind = type(value)
        if kind in kinds:
            if kind is float:
                return _render_float(value)
            return _render_int(value) if kind is int else value
        if kind is int and float in kinds:
            if abs(value) < UNSAFE_FROM:
                return value
            try:
                if int(float(value)) == value:
                    return _render_float(float(value))
            except OverflowError:
                pass
        elif kind is float and int in kinds and _whole(value):
            return _render_int(int(value))
        raise fault(f"is {shown(value)}; declared as {names}.", "Change the value or the annotation.")

    def load(value: JSON, context: Load) -> Any:
        kind = type(value)
        if kind is dict:
            if "$int" in value and int in kinds:
                return int(value["$int"])
            if "$float" in value and float in kinds:
                return float(value["$float"])
        elif kind is float and float not in kinds and int in kinds and _whole(value) and abs(value) < UNSAFE_FROM:
            return int(value)
        elif kind is float and float in kinds and int in kinds and _whole(value) and abs(value) < UNSAFE_FROM:
            return int(value)  # 1.0 and 1 are one key, so they must be one value
        elif kind in kinds:
            return value
        elif kind is int and float in kinds:
            return float(value)
        raise misfit(f"is {shown(value)}; the parameter takes {names}.")

    return Codec(render, load, tuple(kinds))


def _render_bytes(value: bytes) -> JSON:
    return {"$bytes": base64.b64encode(value).decode()}


# --- None and unions ----------------------------------------------------------------------------------------


def optional(inner: Codec) -> Codec:
    render_inner, load_inner = inner.render, inner.load

    def render(value: Any, walk: Pass) -> JSON:
        return {"$none": True} if value is None else render_inner(value, walk)

    def load(value: JSON, context: Load) -> Any:
        return None if type(value) is dict and "$none" in value else load_inner(value, context)

    return Codec(render, load, inner.plain)


def _union(members: tuple[Any, ...]) -> Codec:
    rest = tuple(member for member in members if member not in (None, type(None)))
    if len(rest) == 1:
        return optional(codec_of(rest[0]))
    if all(member in _SCALARS for member in rest):
        scalars = _scalar(frozenset(rest))
        return scalars if len(rest) == len(members) else optional(scalars)
    # Which member a value has is told by its tag; numbers still take the type that the union names.
    number = _scalar(frozenset(rest) & {int, float}) if not {int, float}.isdisjoint(rest) else None
    classes = tuple(filter(None, (_class_of(member) for member in rest)))
    open_ = len(classes) < len(rest)

    def check(value: Any, error: Callable[[str], InputError]) -> Any:
        if open_ or value is None or isinstance(value, classes):
            return value
        raise error(f"is {shown(value)}; declared as {' or '.join(c.__name__ for c in classes)}.")

    def render(value: Any, walk: Pass) -> JSON:
        value = _python_number(value)
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


def _literal(choices: tuple[Any, ...]) -> Codec:
    names = ", ".join(map(repr, choices))

    def check(value: Any, error: Callable[[str], InputError]) -> Any:
        for choice in choices:
            if type(choice) is type(value) and choice == value:
                return value
        raise error(f"is {shown(value)}; one of {names} is meant.")

    def load(value: JSON, context: Load) -> Any:
        return check(ANY.load(value, context), misfit)

    return Codec(lambda value, walk: ANY.render(check(_python_number(value), fault), walk), load)


# --- containers ---------------------------------------------------------------------------------------------


def _items(render_item: Callable[[Any, Pass], JSON], items: Iterable[Any], walk: Pass) -> list[JSON]:
    walk.depth += 1
    if walk.depth > MAX_DEPTH:
        raise _too_deep()
    out: list[JSON] = []
    try:
        for item in items:
            out.append(render_item(item, walk))
    except InputError as error:
        raise error.under(len(out)) from None
    walk.depth -= 1
    return out


def _too_deep() -> RenderError:
    return fault(f"is nested more than {MAX_DEPTH} levels deep, or holds itself.", "Flatten it or cut the cycle.")


def load_items(load_item: Callable[[JSON, Load], Any], value: JSON, context: Load) -> list[Any]:
    if type(value) is not list:
        raise misfit(f"is {shown(value)}; a list is meant.")
    out, errors = [], []
    for index, item in enumerate(value):
        try:
            out.append(load_item(item, context))
        except InputError as error:
            errors.append(error.under(index))
    raise_all(errors)
    return out


def _sorted_forms(forms: list[JSON], what: str) -> list[JSON]:
    keyed = sorted((canonical(form), position) for position, form in enumerate(forms))
    for (first, _), (second, position) in itertools.pairwise(keyed):
        if first == second:
            raise fault(f"holds two items that both read {shown(forms[position])}.", f"Make the {what} distinct.")
    return [forms[position] for _, position in keyed]


def _sequence(kind: type, item: Codec, *, tag: str | None) -> Codec:
    """list, tuple of any length, set, frozenset: plain where the annotation names it, else under `tag`."""
    render_item, load_item = item.render, item.load
    is_set = kind in (set, frozenset)

    def render(value: Any, walk: Pass) -> JSON:
        if type(value) is not kind:
            raise _other_class(value, kind)
        forms = _items(render_item, typing.cast("Iterable[Any]", value), walk)
        if is_set:
            forms = _sorted_forms(forms, "members of the set")
        return {tag: forms} if tag else forms

    def load(value: JSON, context: Load) -> Any:
        if tag:
            value = value[tag] if type(value) is dict and tag in value else value
        items = load_items(load_item, value, context)
        try:
            return items if kind is list else kind(items)
        except TypeError as error:
            raise misfit(f"has a member that no {kind.__name__} takes: {error}.") from error

    return Codec(render, load, () if tag else (kind,))


def _fixed_tuple(items: tuple[Codec, ...]) -> Codec:
    def render(value: Any, walk: Pass) -> JSON:
        if type(value) is not tuple:
            raise _other_class(value, tuple)
        if len(value) != len(items):
            raise fault(f"has {len(value)} items; declared with {len(items)}.")
        codecs = iter(items)
        return _items(lambda item, inner: next(codecs).render(item, inner), value, walk)

    def load(value: JSON, context: Load) -> Any:
        if type(value) is list and len(value) != len(items):
            raise misfit(f"has {len(value)} items; {len(items)} are meant.")
        codecs = iter(items)
        return tuple(load_items(lambda item, inner: next(codecs).load(item, inner), value, context))

    return Codec(render, load, (tuple,))


def _other_class(value: Any, kind: type) -> RenderError:
    return fault(f"is {shown(value)}; declared as {kind.__name__}.", "Change the value or the annotation.")


def _mapping(key: Codec, item: Codec) -> Codec:
    render_item, load_item, render_key = item.render, item.load, key.render

    def render(value: Any, walk: Pass) -> JSON:
        if type(value) is not dict:
            raise _other_class(value, dict)
        walk.depth += 1
        if walk.depth > MAX_DEPTH:
            raise _too_deep()
        out: dict[str, JSON] = {}
        name: Any = None
        try:
            for name, entry in value.items():
                if type(name) is not str:
                    break
                out[name] = render_item(entry, walk)
                if name[:1] == "$":
                    raise fault("begins with $; such keys are kept for tags.", "Rename it.")
            else:
                walk.depth -= 1
                return out
            pairs = []
            for name, entry in value.items():
                pairs.append([render_key(name, walk), render_item(entry, walk)])
        except InputError as error:
            raise error.under(name if isinstance(name, str) else shown(name)) from None
        walk.depth -= 1
        order = _sorted_forms([pair[0] for pair in pairs], "keys")
        by_key = {canonical(pair[0]): pair for pair in pairs}
        return {"$map": [by_key[canonical(form)] for form in order]}

    def load(value: JSON, context: Load) -> Any:
        if type(value) is not dict:
            raise misfit(f"is {shown(value)}; a mapping is meant.")
        if "$map" in value:
            pairs = [(pair[0], pair[1], key.load) for pair in value["$map"]]
        else:
            pairs = [(name, value[name], key.load) for name in ordered_keys(value)]
        out, errors = {}, []
        for name, entry, load_key in pairs:
            try:
                out[load_key(name, context)] = load_item(entry, context)
            except TypeError as error:
                errors.append(misfit(f"cannot be a key: {error}.").under(shown(name)))
            except InputError as error:
                errors.append(error.under(name if isinstance(name, str) else shown(name)))
        raise_all(errors)
        return out

    return Codec(render, load, (dict,))


def ordered_keys(value: dict[str, JSON]) -> list[str]:
    """Keys in the order of RFC 8785, which no tool between the author and the program can change."""
    keys = list(value)
    if all(key.isascii() for key in keys):
        return sorted(keys)
    return sorted(keys, key=lambda key: key.encode("utf-16-be", "surrogatepass"))


# --- arrays -------------------------------------------------------------------------------------------------


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray


def _render_array(value: Any, walk: Pass) -> JSON:
    dtype = value.dtype.newbyteorder("<").str
    if dtype not in ARRAY_TYPES:
        raise fault(f"is an array of dtype {value.dtype}, which has no form.", REPRESENT)
    data = value.astype(dtype, order="C", copy=False).tobytes()
    shape = list(value.shape)
    if len(data) <= MAX_ARRAY_BYTES:
        return {"$array": {"dtype": dtype, "shape": shape, "data": base64.b64encode(data).decode()}}
    import hashlib

    # Enough for a key; nobody can load it, and `check_form` refuses it in a resource.
    return {"$array": {"dtype": dtype, "shape": shape, "sha256": hashlib.sha256(data).hexdigest()}}


def _load_array(value: JSON) -> Any:
    array = value["$array"]
    if "sha256" in array:
        raise misfit(f"is an array of more than {MAX_ARRAY_BYTES:,} bytes: it can be hashed, not written.", REPRESENT)
    try:
        import numpy
    except ImportError as error:
        raise misfit("is an array, and numpy is not installed here.", "Install numpy.") from error
    data = decode_base64(array["data"]) or b""
    return numpy.frombuffer(data, dtype=array["dtype"]).reshape(array["shape"]).copy()


# --- any value ----------------------------------------------------------------------------------------------


def _render_any(value: Any, walk: Pass) -> JSON:
    kind = type(value)
    if kind is str or kind is bool:
        return value
    if kind is int:
        return _render_int(value)
    render = BY_CLASS.get(kind)
    if render is not None:
        return render(value, walk)
    if _is_array(value):
        return _render_array(value, walk)
    number = _python_number(value)
    if number is not value:
        return _render_any(number, walk)
    from runonce.experiment.render_types import render_named

    return render_named(value, walk)


def _load_any(value: JSON, context: Load) -> Any:
    kind = type(value)
    if kind is float:
        return int(value) if _whole(value) and abs(value) < UNSAFE_FROM else value
    if kind is list:
        return load_items(_load_any, value, context)
    if kind is not dict:
        return value
    tag = tag_of(value)
    if tag is None or tag == "$map":
        return _ANY_DICT.load(value, context)
    if tag in _ANY_TAGS:
        return _ANY_TAGS[tag](value, context)
    from runonce.experiment.render_types import load_named

    return load_named(tag, value, context)


ANY = Codec(_render_any, _load_any)
_ANY_DICT = _mapping(ANY, ANY)
_ANY_LIST = _sequence(list, ANY, tag=None)
_TAGGED = {kind: _sequence(kind, ANY, tag=f"${kind.__name__}") for kind in (tuple, set, frozenset)}
# Exact class to its form; `render_types` adds each class that it has once found a name and a record for.
BY_CLASS: dict[type, Callable[[Any, Pass], JSON]] = {
    float: lambda value, walk: _render_float(value),
    type(None): lambda value, walk: {"$none": True},
    bytes: lambda value, walk: _render_bytes(value),
    dict: _ANY_DICT.render,
    list: _ANY_LIST.render,
    **{kind: codec.render for kind, codec in _TAGGED.items()},
}
_ANY_TAGS: dict[str, Callable[[JSON, Load], Any]] = {
    "$none": lambda value, context: None,
    "$int": lambda value, context: int(value["$int"]),
    "$float": lambda value, context: float(value["$float"]),
    "$bytes": lambda value, context: decode_base64(value["$bytes"]) or b"",
    "$array": lambda value, context: _load_array(value),
    **{f"${kind.__name__}": codec.load for kind, codec in _TAGGED.items()},
}


# --- annotation to codec ------------------------------------------------------------------------------------

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
            from runonce.experiment.render_types import reserve

            # A class may name itself in its fields; they find this entry.
            known = _CODECS[annotation] = reserve(annotation)
        known = _CODECS[annotation] = _build(annotation)
    return known


def _build(annotation: Any) -> Codec:
    if annotation in _SCALARS:
        return _scalar(frozenset((annotation,)))
    if annotation is None or annotation is type(None):
        return Codec(_render_none, _load_none, (type(None),))
    if annotation is bytes:
        return _only(bytes)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated or origin in (typing.Final, typing.ClassVar):
        return codec_of(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return _union(arguments)
    if origin is typing.Literal:
        return _literal(arguments)
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
        return _sequence(kind, first, tag=None)
    if kind is tuple:
        if not arguments or arguments == ((),):
            return _fixed_tuple(()) if arguments else _sequence(tuple, ANY, tag=None)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return _sequence(tuple, first, tag=None)
        return _fixed_tuple(tuple(codec_of(argument) for argument in arguments))
    if kind is dict or kind in _ABSTRACT_MAPPINGS:
        return _mapping(*(codec_of(argument) for argument in arguments)) if arguments else _ANY_DICT
    if kind in _ABSTRACT_LISTS:
        return _abstract_list(first)
    if kind is type or kind is collections.abc.Callable:
        return _reference(type if kind is type else None)
    if isinstance(kind, type):
        from runonce.experiment.render_types import codec_of_class

        return codec_of_class(kind)
    raise fault(f"has the annotation {kind!r}, which has no form.", "Annotate it with a type.")


def _reference(kind: type | None) -> Codec:
    """`type[X]`, or where kind is None a Callable."""
    what = "a class" if kind else "a function or class"

    def check(value: Any, error: Callable[[str], InputError]) -> Any:
        if isinstance(value, kind) if kind else callable(value):
            return value
        raise error(f"is {shown(value)}; {what} is meant.")

    def render(value: Any, walk: Pass) -> JSON:
        return ANY.render(check(value, fault), walk)

    return Codec(render, lambda value, context: check(ANY.load(value, context), misfit))


def _abstract_list(item: Codec) -> Codec:
    """Sequence[X] and its kin: the value's own class decides, so it is plain for a list and tagged else."""
    plain = _sequence(list, item, tag=None)
    tagged = {kind: _sequence(kind, item, tag=f"${kind.__name__}") for kind in (tuple, set, frozenset)}

    def render(value: Any, walk: Pass) -> JSON:
        codec = plain if type(value) is list else tagged.get(type(value))
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


def _only(kind: type) -> Codec:
    """The values of one class that always carry their tag."""

    def render(value: Any, walk: Pass) -> JSON:
        value = _python_number(value)
        if type(value) is not kind:
            raise _other_class(value, kind)
        return ANY.render(value, walk)

    def load(value: JSON, context: Load) -> Any:
        out = ANY.load(value, context)
        if type(out) is not kind:
            raise misfit(f"is {shown(value)}; {kind.__name__} is meant, as its tag writes it.")
        return out

    return Codec(render, load)
