"""An instance of a record to its fields and back."""

from __future__ import annotations

from typing import Any

from runonce.errors import InputError, near, raise_all, shown
from runonce.experiment.form import JSON, MAX_DEPTH, tag_of
from runonce.experiment.render.codec import Codec, Load, Pass, fault, misfit, too_deep
from runonce.experiment.render.parameters import render_parameters
from runonce.experiment.render.records import Record, no_default
from runonce.experiment.render.values import ANY


def render_record(record: Record, value: Any, walk: Pass) -> dict[str, JSON]:
    walk.depth += 1
    if walk.depth > MAX_DEPTH:
        raise too_deep()
    if record.parameters and (value.hash_representations or any(field.only_in for field in record.fields)):
        out = render_parameters(record, value, walk)
        walk.depth -= 1
        return out
    out = {}
    name = ""
    try:
        for name, render, none_default in record.plan:
            entry = getattr(value, name)
            if entry is None and none_default:
                continue
            out[name] = render(entry, walk)
    except InputError as error:
        raise error.under(name) from None
    walk.depth -= 1
    if record.open and value.model_extra:
        raise fault(f"holds the undeclared fields {', '.join(value.model_extra)}.", "Declare them.")
    return out


def load_record(record: Record, value: JSON, context: Load) -> Any:
    """Call the constructor with the init fields that are given; raises LoadError with every fault."""
    if type(value) is not dict:
        raise misfit(f"is {shown(value)}; a mapping with the fields of {record.cls.__qualname__} is meant.")
    arguments: dict[str, Any] = {}
    errors: list[InputError] = []
    names = [field.name for field in record.fields]
    for name in value:
        if name not in names:
            error = misfit(f"is no field of {record.cls.__qualname__}.", near(name, names))
            errors.append(error.under(name))
    hidden = []
    for field in record.fields:
        if field.only_in and context.mode and field.only_in != context.mode:
            hidden.append(field.name)
        elif field.name in value:
            try:
                arguments[field.argument] = field.codec.load(value[field.name], context)
            except InputError as error:
                errors.append(error.under(field.name))
        elif field.default is no_default:
            errors.append(misfit("is missing, and has no default.", "Give it.").under(field.name))
    raise_all(errors)
    try:
        made = record.cls(**arguments)
    except InputError:
        raise
    except Exception as error:
        what = f"{record.cls.__qualname__} refused these values: {type(error).__name__}: {error}"
        raise misfit(what, "Change the values, or the class.") from error
    for name in hidden:
        object.__delattr__(made, name)
    return made


def record_codec(record: Record) -> Codec:
    cls = record.cls

    def render(value: Any, walk: Pass) -> JSON:
        if type(value) is cls:
            return render_record(record, value, walk)
        if isinstance(value, cls):
            return ANY.render(value, walk)
        raise fault(f"is {shown(value)}; declared as {cls.__qualname__}.", "Change the value or the annotation.")

    def load(value: JSON, context: Load) -> Any:
        if type(value) is dict and tag_of(value) is not None:
            return instance_of(ANY.load(value, context), cls)
        return load_record(record, value, context)

    return Codec(render, load, (cls,))


def instance_of(value: Any, cls: type) -> Any:
    if not isinstance(value, cls):
        raise misfit(f"is {shown(value)}; declared as {cls.__qualname__}.")
    return value
