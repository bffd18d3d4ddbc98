"""Lists, tuples, sets and mappings, of items that have a codec."""

from __future__ import annotations

import itertools
import typing
from collections.abc import Callable, Iterable
from typing import Any

from runonce.errors import InputError, raise_all, shown
from runonce.experiment.canonical import canonical
from runonce.experiment.form import JSON, MAX_DEPTH
from runonce.experiment.frozen import plain_class
from runonce.experiment.render.codec import Codec, Load, Pass, fault, misfit, other_class, too_deep


def _items(render_item: Callable[[Any, Pass], JSON], items: Iterable[Any], walk: Pass) -> list[JSON]:
    walk.depth += 1
    if walk.depth > MAX_DEPTH:
        raise too_deep()
    out: list[JSON] = []
    try:
        for item in items:
            out.append(render_item(item, walk))
    except InputError as error:
        raise error.under(len(out)) from None
    walk.depth -= 1
    return out


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


def sequence(kind: type, item: Codec, *, tag: str | None) -> Codec:
    """list, tuple of any length, set, frozenset: plain where the annotation names it, else under `tag`."""
    render_item, load_item = item.render, item.load
    is_set = kind in (set, frozenset)

    def render(value: Any, walk: Pass) -> JSON:
        if type(value) is not kind and plain_class(value) is not kind:
            raise other_class(value, kind)
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


def fixed_tuple(items: tuple[Codec, ...]) -> Codec:
    def render(value: Any, walk: Pass) -> JSON:
        if type(value) is not tuple:
            raise other_class(value, tuple)
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


def mapping(key: Codec, item: Codec) -> Codec:
    render_item, load_item, render_key = item.render, item.load, key.render

    def render(value: Any, walk: Pass) -> JSON:
        if type(value) is not dict and plain_class(value) is not dict:
            raise other_class(value, dict)
        walk.depth += 1
        if walk.depth > MAX_DEPTH:
            raise too_deep()
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
