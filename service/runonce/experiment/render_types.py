"""Codecs of classes that name themselves: dataclasses, pydantic and attrs models, named tuples, enums, a listed
set of library types, and references to functions and classes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from runonce.errors import InputError, raise_all, shown
from runonce.experiment import render as plain
from runonce.experiment.form import JSON, MAX_DEPTH, tag_of
from runonce.experiment.render import ANY, REPRESENT, Codec, Load, Pass, fault, misfit

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


@dataclass(frozen=True, slots=True)
class Note:
    """What one parameter object keeps out of the hash; `form` is its rendered form, found by identity."""

    form: dict[str, JSON]
    exclude: tuple[str, ...]
    hash_as: Mapping[str, JSON]
    only_in: Mapping[str, str]


# --- names --------------------------------------------------------------------------------------------------

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


# --- records ------------------------------------------------------------------------------------------------

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


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except Exception as error:  # whatever evaluating a user's annotation raises
        raise fault(
            f"is a {cls.__qualname__}, whose annotations cannot be resolved: {error}.",
            "Define or import their names where the class stands, not only under TYPE_CHECKING.",
        ) from error


def _field_codec(cls: type, name: str, annotation: Any) -> Codec:
    try:
        return plain.codec_of(annotation)
    except InputError as error:
        raise error.under(name) from None


def _factory(default: Any, factory: Any) -> Callable[[], Any]:
    if factory is not MISSING and factory is not None:
        return typing.cast("Callable[[], Any]", factory)
    if default is MISSING:
        return _no_default
    return lambda: default


def _no_default() -> Any:
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
    hints = _hints(cls) if wanted else {}
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
                _field_codec(cls, field.name, hints.get(field.name, field.type)),
                make,
                field.default is None or bool(only_in and make() is None),
                only_in,
            )
        )
    return out


def _attrs_fields(cls: type) -> list[RecordField]:
    hints = _hints(cls)
    out = []
    for attribute in cls.__attrs_attrs__:  # type: ignore[attr-defined]
        if not attribute.init:
            continue
        default = attribute.default
        factory = getattr(default, "factory", None)
        if factory is not None and default.takes_self:
            factory = _no_default
        missing = repr(default) == "NOTHING"
        codec = _field_codec(cls, attribute.name, hints.get(attribute.name, Any))
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
        out.append(RecordField(name, argument, _field_codec(cls, name, info.annotation), make, default is None))
    return out


def _namedtuple_fields(cls: Any) -> list[RecordField]:
    hints = _hints(cls)
    return [
        RecordField(
            name,
            name,
            _field_codec(cls, name, hints.get(name, Any)),
            _factory(cls._field_defaults.get(name, MISSING), None),
            cls._field_defaults.get(name, MISSING) is None,
        )
        for name in cls._fields
    ]


def render_record(record: Record, value: Any, walk: Pass) -> dict[str, JSON]:
    walk.depth += 1
    if walk.depth > MAX_DEPTH:
        raise plain._too_deep()
    if record.parameters and (value.hash_representations or any(field.only_in for field in record.fields)):
        out = _render_parameters(record, value, walk)
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


def _render_parameters(record: Record, value: Any, walk: Pass) -> dict[str, JSON]:
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


def near(name: str, names: typing.Iterable[str]) -> str:
    """A suggestion for a misspelled name."""
    import difflib

    known = list(names)
    close = difflib.get_close_matches(name, known, 1)
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(known) or 'none'}."


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
        elif field.default is _no_default:
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


def _record_codec(record: Record) -> Codec:
    cls = record.cls

    def render(value: Any, walk: Pass) -> JSON:
        if type(value) is cls:
            return render_record(record, value, walk)
        if isinstance(value, cls):
            return ANY.render(value, walk)
        raise fault(f"is {shown(value)}; declared as {cls.__qualname__}.", "Change the value or the annotation.")

    def load(value: JSON, context: Load) -> Any:
        if type(value) is dict and tag_of(value) is not None:
            return _instance(ANY.load(value, context), cls)
        return load_record(record, value, context)

    return Codec(render, load, (cls,))


def _instance(value: Any, cls: type) -> Any:
    if not isinstance(value, cls):
        raise misfit(f"is {shown(value)}; declared as {cls.__qualname__}.")
    return value


# --- enums and library types --------------------------------------------------------------------------------


def _member_name(value: enum.Enum) -> str:
    if value.name is None or value.name not in type(value).__members__:
        raise fault("is a combination of flags, which has no name of its own.", REPRESENT)
    return value.name


def _load_member(cls: type[enum.Enum], name: JSON) -> enum.Enum:
    if type(name) is str and name in cls.__members__:
        return cls[name]
    raise misfit(f"is {shown(name)}, no member of {cls.__qualname__}.", near(str(name), cls.__members__))


def _enum_codec(cls: type[enum.Enum]) -> Codec:
    def render(value: Any, walk: Pass) -> JSON:
        if type(value) is not cls:
            raise fault(f"is {shown(value)}; declared as {cls.__qualname__}.", "Give a member of it.")
        return _member_name(value)

    return Codec(render, lambda value, context: _load_member(cls, value), (cls,))


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
_LIBRARY: dict[str, tuple[tuple[str, ...], Callable[[Any], JSON], Callable[[Any, JSON], Any]]] = {
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
    (name.partition(":")[0], qualname): name for name, (classes, *_) in _LIBRARY.items() for qualname in classes
}


def library_name(cls: type) -> str | None:
    """The fixed name under which instances of a library class are written; never by importing its module."""
    module = cls.__module__.partition(".")[0]
    name = _LIBRARY_CLASSES.get((module, cls.__qualname__))
    return name if name and getattr(sys.modules.get(module), cls.__qualname__, None) is cls else None


def _load_library(name: str, value: JSON) -> Any:
    import importlib

    module, _, qualname = name.partition(":")
    cls = getattr(importlib.import_module(module), qualname)
    _, write, read = _LIBRARY[name]
    try:
        made = read(cls, value)
        again = write(made)
    except Exception as error:  # each class refuses in its own way
        raise misfit(f"is {shown(value)}, which {qualname} refused: {error}.") from error
    if again != value:
        raise misfit(f"is {shown(value)}; {qualname} writes it {shown(again)}.", "Write it so.")
    return made


def _library_codec(annotation: type, name: str) -> Codec:
    def render(value: Any, walk: Pass) -> JSON:
        if library_name(type(value)) != name:
            if isinstance(value, annotation):
                return ANY.render(value, walk)
            raise fault(f"is {shown(value)}; declared as {annotation.__qualname__}.", "Change one of them.")
        return _LIBRARY[name][1](value)

    def load(value: JSON, context: Load) -> Any:
        if type(value) is dict:
            return _instance(ANY.load(value, context), annotation)
        return _load_library(name, value)

    return Codec(render, load)


# --- a class as an annotation -------------------------------------------------------------------------------


def reserve(cls: type) -> Codec:
    """Stands for the codec of `cls` while that is being made, so that a class may name itself."""
    return Codec(
        lambda value, walk: plain._CODECS[cls].render(value, walk),
        lambda value, context: plain._CODECS[cls].load(value, context),
    )


def codec_of_class(cls: type) -> Codec:
    if issubclass(cls, enum.Enum):
        return _enum_codec(cls)
    name = library_name(cls) or {
        ("pathlib", "Path"): "pathlib:Path",
        ("pathlib", "PurePath"): "pathlib:Path",
    }.get((cls.__module__.partition(".")[0], cls.__qualname__))
    if name:
        return _library_codec(cls, name)
    if typing.is_typeddict(cls):
        return _typed_dict_codec(cls)
    record = record_of(cls)
    if record is not None:
        return _record_codec(record)
    if cls.__module__ == "numpy":
        number = _numpy_scalar(cls)
        if number is not None:
            return plain.codec_of(number)
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

    return Codec(render, lambda value, context: _instance(ANY.load(value, context), cls))


def _typed_dict_codec(cls: type) -> Codec:
    hints = _hints(cls)
    codecs = {name: _field_codec(cls, name, _unmarked(hint)) for name, hint in hints.items()}
    # By the hints: where annotations are text, the class itself cannot know its marks.
    marks = {name: typing.get_origin(hint) for name, hint in hints.items()}
    required = {
        name
        for name, mark in marks.items()
        if mark is typing.Required or (mark is not typing.NotRequired and name in cls.__required_keys__)  # type: ignore[attr-defined]
    }

    def each(value: Any, direction: Callable[[Codec, Any], Any], error: Callable[..., InputError]) -> Any:
        if type(value) is not dict:
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
        return {name: loaded[name] for name in plain.ordered_keys(loaded)}

    return Codec(lambda value, walk: each(value, lambda codec, entry: codec.render(entry, walk), fault), load)


def _unmarked(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) in (typing.Required, typing.NotRequired) else hint


# --- values that carry their name ---------------------------------------------------------------------------


def render_named(value: Any, walk: Pass) -> JSON:
    """A value of any other class, under its tag. Raises RenderError for what has no form."""
    cls = type(value)
    if isinstance(value, type):
        return {"$ref": name_of(value)}
    if isinstance(value, enum.Enum):
        return {"$type": name_of(cls), "value": _member_name(value)}
    name = library_name(cls)
    if name:
        return {"$type": name, "value": _LIBRARY[name][1](value)}
    record = record_of(cls)
    if record is not None:
        plain.BY_CLASS[cls] = functools.partial(_render_tagged, name_of(cls), record)
        return plain.BY_CLASS[cls](value, walk)
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
    if name in _LIBRARY:
        return _load_library(name, value["value"])
    cls = context.resolve(name)
    if not isinstance(cls, type):
        raise misfit(f"names {name}, which is no class.", "Use $ref for a function.")
    with contextlib.suppress(TypeError):  # abstract classes and the like are no enums
        if issubclass(cls, enum.Enum):
            return _load_member(cls, value["value"])
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
