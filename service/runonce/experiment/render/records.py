"""Classes whose instances are their fields: dataclasses, pydantic and attrs models, named tuples."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runonce.errors import InputError
from runonce.experiment.form import JSON
from runonce.experiment.render.annotations import codec_of
from runonce.experiment.render.codec import REPRESENT, Codec, Pass, fault

MISSING: Any = dataclasses.MISSING
BASE_FIELDS = ("name", "hash", "overwrite", "hash_representations")
ONLY_IN = "runonce.only_in"  # in a dataclass field's metadata: the one mode that may read it


@dataclass(frozen=True, slots=True)
class RecordField:
    """argument: its name in the constructor. none_default: left out of the form when it is None."""

    name: str
    argument: str
    codec: Codec
    default: Callable[[], Any]  # raises LookupError when there is none
    none_default: bool
    only_in: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A class whose instances are their fields. parameters: its fields may have hash representations.
    open: a pydantic model, whose instances may hold more than their fields.
    """

    cls: type
    fields: tuple[RecordField, ...]
    parameters: bool
    open: bool
    plan: tuple[tuple[str, Callable[[Any, Pass], JSON], bool], ...]


_RECORDS: dict[type, Record | None] = {}


def record_of(cls: type) -> Record | None:
    """The class as a record, or None for any other class. Raises RenderError for an annotation without meaning."""
    if cls in _RECORDS:
        return _RECORDS[cls]
    if dataclasses.is_dataclass(cls):
        fields = _dataclass_fields(cls)
    elif "__attrs_attrs__" in cls.__dict__:
        fields = _attrs_fields(cls)
    elif hasattr(cls, "__pydantic_fields__"):
        fields = _pydantic_fields(cls)
    elif issubclass(cls, tuple) and hasattr(cls, "_fields"):
        fields = _namedtuple_fields(cls)
    else:
        _RECORDS[cls] = None
        return None
    parameters = bool(getattr(cls, "__runonce_parameters__", False))
    plan = tuple((field.name, field.codec.render, field.none_default) for field in fields)
    record = _RECORDS[cls] = Record(cls, tuple(fields), parameters, hasattr(cls, "model_extra"), plan)
    return record


def resolved_hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except Exception as error:  # whatever evaluating a user's annotation raises
        raise fault(
            f"is a {cls.__qualname__}, whose annotations cannot be resolved: {error}.",
            "Define or import their names where the class stands, not only under TYPE_CHECKING.",
        ) from error


def field_codec(cls: type, name: str, annotation: Any) -> Codec:
    try:
        return codec_of(annotation)
    except InputError as error:
        raise error.under(name) from None


def _factory(default: Any, factory: Any) -> Callable[[], Any]:
    if factory is not MISSING and factory is not None:
        return typing.cast("Callable[[], Any]", factory)
    if default is MISSING:
        return no_default
    return lambda: default


def no_default() -> Any:
    raise LookupError


def _dataclass_fields(cls: type) -> list[RecordField]:
    declared = {field.name: field for field in dataclasses.fields(cls)}
    if "__dataclass_fields__" not in cls.__dict__:
        lost = [name for name in getattr(cls, "__annotations__", {}) if name not in declared]
        if lost:
            raise fault(
                f"is a {cls.__qualname__}, which is not decorated: {', '.join(lost)} would never count.",
                f"Write @dataclass above class {cls.__qualname__}.",
            )
    for name, field in cls.__dict__.get("__dataclass_fields__", {}).items():
        if isinstance(field.type, dataclasses.InitVar) and not hasattr(cls, name):
            raise fault(f"is a {cls.__qualname__} with the InitVar {name}, which is gone once it was made.", REPRESENT)
    base = BASE_FIELDS if getattr(cls, "__runonce_parameters__", False) else ()
    wanted = [field for field in declared.values() if field.init and field.name not in base]
    hints = resolved_hints(cls) if wanted else {}
    out = []
    for field in wanted:
        only_in = field.metadata.get(ONLY_IN)
        make = _factory(field.default, field.default_factory)
        if only_in and not getattr(cls, "__runonce_parameters__", False):
            raise fault(f"is a {cls.__qualname__} with only_in({only_in!r}); only ExperimentParameters have modes.")
        out.append(
            RecordField(
                field.name,
                field.name,
                field_codec(cls, field.name, hints.get(field.name, field.type)),
                make,
                field.default is None or bool(only_in and make() is None),
                only_in,
            )
        )
    return out


def _attrs_fields(cls: type) -> list[RecordField]:
    hints = resolved_hints(cls)
    out = []
    for attribute in cls.__attrs_attrs__:  # type: ignore[attr-defined]
        if not attribute.init:
            continue
        default = attribute.default
        factory = getattr(default, "factory", None)
        if factory is not None and default.takes_self:
            factory = no_default
        missing = repr(default) == "NOTHING"
        codec = field_codec(cls, attribute.name, hints.get(attribute.name, Any))
        make = _factory(MISSING if missing or factory else default, factory)
        out.append(RecordField(attribute.name, attribute.alias, codec, make, default is None))
    return out


def _pydantic_fields(cls: type) -> list[RecordField]:
    by_name = cls.model_config.get("populate_by_name") or cls.model_config.get("validate_by_name")  # type: ignore[attr-defined]
    out = []
    for name, info in cls.__pydantic_fields__.items():  # type: ignore[attr-defined]
        alias = info.validation_alias or info.alias
        if alias is not None and not by_name and not isinstance(alias, str):
            raise fault(f"is a {cls.__qualname__}, whose field {name} has several aliases.", "Set populate_by_name.")
        argument = name if by_name or alias is None else alias
        default = MISSING if info.is_required() else info.default
        make = _factory(default, info.default_factory)
        out.append(RecordField(name, argument, field_codec(cls, name, info.annotation), make, default is None))
    return out


def _namedtuple_fields(cls: Any) -> list[RecordField]:
    hints = resolved_hints(cls)
    return [
        RecordField(
            name,
            name,
            field_codec(cls, name, hints.get(name, Any)),
            _factory(cls._field_defaults.get(name, MISSING), None),
            cls._field_defaults.get(name, MISSING) is None,
        )
        for name in cls._fields
    ]
