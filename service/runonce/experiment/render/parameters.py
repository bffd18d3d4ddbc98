"""Fields of parameters whose value is not what counts: with a representation, or of one mode only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runonce.errors import InputError, near, shown
from runonce.experiment.form import JSON
from runonce.experiment.render.codec import Pass, fault
from runonce.experiment.render.records import Record, RecordField
from runonce.experiment.render.values import ANY


@dataclass(frozen=True, slots=True)
class Note:
    """What one parameter object keeps out of the hash; `form` is its rendered form, found by identity."""

    form: dict[str, JSON]
    exclude: tuple[str, ...]
    hash_as: Mapping[str, JSON]
    only_in: Mapping[str, str]


def render_parameters(record: Record, value: Any, walk: Pass) -> dict[str, JSON]:
    representations = _representations(record, value)
    out: dict[str, JSON] = {}
    exclude: list[str] = []
    hash_as: dict[str, JSON] = {}
    only_in = {field.name: field.only_in for field in record.fields if field.only_in}
    for field in record.fields:
        if field.only_in and is_hidden(value, field.name):
            continue
        represented = field.name in representations
        if represented and not walk.represented:
            continue
        entry = getattr(value, field.name)
        try:
            if not (entry is None and field.none_default):
                depth = walk.depth
                try:
                    out[field.name] = field.codec.render(entry, walk)
                except InputError:
                    walk.depth = depth
                    if not (represented and (walk.hash_only or _is_default(field, entry))):
                        raise
            if represented:
                form = _representation(representations[field.name], value, entry, walk)
                if form is None:
                    exclude.append(field.name)
                else:
                    hash_as[field.name] = form
        except InputError as error:
            raise error.under(field.name) from None
    walk.notes.append(Note(out, tuple(exclude), hash_as, only_in))
    return out


def _representations(record: Record, value: Any) -> Mapping[str, Any]:
    representations = value.hash_representations
    if not isinstance(representations, Mapping):
        raise fault(
            f"is {shown(representations)}; a mapping of field names to functions or None is meant.",
            "Use set_hash_functions.",
        ).under("hash_representations")
    names = [field.name for field in record.fields]
    for name, function in representations.items():
        if name not in names:
            raise fault("is no field of these parameters.", near(str(name), names)).under("hash_representations", name)
        if function is not None and not callable(function):
            raise fault(f"is {shown(function)}; a function (params, value) -> value or None is meant.").under(
                "hash_representations", name
            )
    return representations


def _representation(function: Any, params: Any, value: Any, walk: Pass) -> JSON | None:
    if function is None:
        return None
    try:
        result = function(params, value)
    except Exception as error:
        raise fault(f"has a representation that raised {type(error).__name__}: {error}.", "Mend it.") from error
    return None if result is None else ANY.render(result, walk)


def _is_default(field: RecordField, value: Any) -> bool:
    try:
        default = field.default()
        return default is value or bool(type(default) is type(value) and default == value)
    except Exception:  # no default, or a user's == that raises: not known to be the default
        return False


def is_hidden(params: Any, name: str) -> bool:
    """Whether a field of another mode was taken from this object; see `ExperimentParameters.__getattr__`."""
    try:
        object.__getattribute__(params, name)
    except AttributeError:
        return True
    return False
