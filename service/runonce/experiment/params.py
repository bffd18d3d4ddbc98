"""`ExperimentParameters`: what a result depends on, as a dataclass, and its way to JSON and back."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from runonce.errors import Fault, InputError, LoadError, OnlyIn, RenderError, SpecError
from runonce.experiment import key
from runonce.experiment.canonical import canonical
from runonce.experiment.form import JSON, check_form
from runonce.experiment.render.annotations import codec_of
from runonce.experiment.render.codec import Load, Pass, Resolve
from runonce.experiment.render.instances import render_record
from runonce.experiment.render.parameters import Note, is_hidden
from runonce.experiment.render.records import BASE_FIELDS, ONLY_IN, Record, record_of
from runonce.experiment.render.values import ANY

T = TypeVar("T")

Representation = Callable[[Any, Any], Any]


def set_hash_functions(
    functions: Mapping[str, Representation | None] | None = None, **more: Representation | None
) -> Any:
    """A dataclass field for `hash_representations`, given for a whole class.

    Each value is a function `(params, value) -> value` whose result is hashed in the field's place, or None to
    keep the field out of the hash. Keywords win over `functions`. Source: Curifactory.
    """
    if functions is not None and not isinstance(functions, Mapping):
        raise ValueError(f"set_hash_functions takes a mapping and keywords, not a {type(functions).__qualname__}.")
    entries = {**(functions or {}), **more}
    return field(default_factory=lambda: dict(entries), repr=False)


def only_in(mode: str, *, default: Any) -> Any:
    """A dataclass field that counts in one mode alone ("train", "valid" or "test"), so that its edit costs that
    mode's result and no other. In other modes reading it raises `OnlyIn`; repr and == leave it out everywhere.
    """
    if mode not in key.MODES:
        raise ValueError(f"only_in({mode!r}): a mode is one of {', '.join(key.MODES)}.")
    # A factory, since a default would stay readable on the class when the instance has lost the field.
    return field(default_factory=lambda: default, repr=False, compare=False, metadata={ONLY_IN: mode})


@dataclass
class ExperimentParameters:
    """Base of every parameter class; extend it with @dataclass and give each field a default or a value.

    The four fields of this class never count in a hash. `name`: of the experiment. `hash`: pins what
    `params_hash` gives. `overwrite`: make the result anew, once. `hash_representations`: field name to a function
    `(params, value) -> value` or None, see `set_hash_functions`. Source: Curifactory.
    """

    name: str = "UNNAMED"
    hash: str | None = None
    overwrite: bool = False
    hash_representations: dict[str, Representation | None] = field(default_factory=dict, repr=False)

    __runonce_parameters__ = True

    def params_hash(self, dry: bool = False, mode: str | None = None) -> Any:
        """64 hex digits that are equal for equal parameters, in any process; the pinned `hash` where it is set.

        mode: leave out what is `only_in` another one. dry: instead, a dict of field to (rule, rendered value)
        that says what counts and how. Raises RenderError, naming the field, for a value that has no form.
        """
        if dry:
            return explain(self)
        if self.hash is not None:
            return key.check_pin(self.hash)
        description = describe(self, hash_only=True)
        try:
            return description.params_hash(mode)
        except UnicodeEncodeError:
            raise _without_characters(description) from None

    def __getattr__(self, name: str) -> Any:
        declared = type(self).__dataclass_fields__.get(name)
        if declared is not None and ONLY_IN in declared.metadata:
            raise OnlyIn(
                f"{type(self).__qualname__}.{name} is only_in({declared.metadata[ONLY_IN]!r}), and this is another "
                "mode, whose result must not depend on it. Read it in that mode alone, or drop only_in."
            )
        raise AttributeError(f"{type(self).__qualname__!r} object has no attribute {name!r}")


@dataclass(frozen=True, slots=True)
class Description:
    """Parameters as a resource holds them: `params`, `hashExclude`, `hashAs`, `paramsOnlyIn`."""

    params: dict[str, JSON]
    exclude: tuple[str, ...] = ()
    hash_as: Mapping[str, JSON] = field(default_factory=dict)
    only_in: Mapping[str, str] = field(default_factory=dict)

    def hash_form(self, mode: str | None = None) -> Mapping[str, JSON]:
        return key.hash_form(self.params, exclude=self.exclude, hash_as=self.hash_as, only_in=self.only_in, mode=mode)

    def params_hash(self, mode: str | None = None) -> str:
        return key.params_hash(self.hash_form(mode) if self.exclude or self.hash_as or self.only_in else self.params)


def describe(params: ExperimentParameters, *, hash_only: bool = False) -> Description:
    """The rendered form and what of it counts, without the check that it reads back. Raises RenderError.

    hash_only: fields whose representation alone can be written are left out instead of refused.
    """
    form, notes = _walk(params, Pass(hash_only=hash_only))
    if not notes:
        return Description(form)
    exclude: list[str] = []
    hash_as: dict[str, JSON] = {}
    only: dict[str, str] = {}
    where = _places(form, {id(note.form): note for note in notes})
    for path, note in where:
        exclude += [key.to_pointer((*path, name)) for name in note.exclude]
        hash_as |= {key.to_pointer((*path, name)): value for name, value in note.hash_as.items()}
        only |= {key.to_pointer((*path, name)): mode for name, mode in note.only_in.items()}
    return Description(form, tuple(sorted(exclude)), hash_as, only)


def _without_characters(description: Description) -> RenderError:
    """Text with lone surrogates, which the encoder meets too late to know where it stands."""
    try:
        check_form(dict(description.hash_form()))
    except SpecError as error:
        return RenderError(*error.faults)
    return RenderError(Fault("", "holds a lone surrogate, which is no character.", "Remove it."))


def _walk(params: ExperimentParameters, walk: Pass) -> tuple[dict[str, JSON], list[Note]]:
    if not isinstance(params, ExperimentParameters):
        raise TypeError(f"parameters are an instance of ExperimentParameters, not a {type(params).__qualname__}.")
    try:
        form = render_record(_record(type(params)), params, walk)
    except RenderError as error:
        raise _all_faults(params, error) from None
    return form, walk.notes


def _record(cls: type) -> Record:
    record = record_of(cls)
    if record is None:
        raise TypeError(f"{cls.__qualname__} is no dataclass.")
    return record


def _all_faults(params: ExperimentParameters, first: RenderError) -> RenderError:
    """Every field's fault, now that there is one."""
    faults: list[Fault] = []
    for entry in _record(type(params)).fields:
        if entry.name in params.hash_representations or is_hidden(params, entry.name):
            continue
        try:
            canonical(entry.codec.render(getattr(params, entry.name), Pass()))
        except InputError as error:
            faults += error.under(entry.name).faults
        except UnicodeEncodeError:
            faults.append(Fault(entry.name, "holds a lone surrogate, which is no character.", "Remove it."))
    return RenderError(*(faults or first.faults))


def _places(form: JSON, notes: Mapping[int, Note]) -> list[tuple[tuple[str | int, ...], Note]]:
    found = []
    stack: list[tuple[tuple[str | int, ...], JSON]] = [((), form)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, dict):
            if id(value) in notes:
                found.append((path, notes[id(value)]))
            stack += [((*path, name), entry) for name, entry in value.items()]
        elif isinstance(value, list):
            stack += [((*path, index), entry) for index, entry in enumerate(value)]
    return found


def render(params: ExperimentParameters) -> dict[str, JSON]:
    """The parameters as JSON: every field, defaults included; the one form that is hashed.

    Raises RenderError, naming every field, for a value without a form, for one that the constructor would not
    make again, and for classes in `__main__`, which no other process can import.
    """
    return render_checked(params).params


def render_checked(params: ExperimentParameters) -> Description:
    """`describe`, checked: what another process reads from it is what is here."""
    if type(params).__module__ == "__main__":
        raise RenderError(Fault("", _in_main(type(params).__qualname__), _MOVE))
    description = describe(params)
    try:
        twin = load(type(params), description.params, find_imported)
        twin.hash_representations = params.hash_representations
        again = describe(twin).params
    except UnicodeEncodeError:
        raise _without_characters(description) from None
    except (LoadError, SpecError) as error:
        raise RenderError(*error.faults) from None
    faults = [
        Fault(name, f"reads back as {again.get(name)!r}, not {form!r}: the constructor changes it.", _ONCE)
        for name, form in description.params.items()
        if name not in again or canonical(again[name]) != canonical(form)
    ]
    faults += [
        Fault(name, "comes into being when it is read back: the constructor makes it.", _ONCE)
        for name in again
        if name not in description.params and name not in params.hash_representations
    ]
    faults += _unseen(params, twin, ())
    if faults:
        raise RenderError(*faults)
    return description


_ONCE = "Let __post_init__ give the same when it gets its own result, or make the computed value a property."
_MOVE = "Move it into a module that can be imported."


def _in_main(name: str) -> str:
    return f"{name} is defined in __main__, which no other process can import."


def find_imported(name: str) -> Any:
    """Resolve `package.module:Name` among the modules that are imported already; raises LoadError."""
    module, _, qualname = name.partition(":")
    if module == "__main__":
        raise LoadError(Fault("", _in_main(qualname), _MOVE))
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise LoadError(Fault("", f"names {name}, which is not imported here."))
    return found


def _unseen(first: Any, second: Any, path: tuple[str | int, ...]) -> list[Fault]:
    """What an object carries beside its init fields, where its twin, made from these, does not."""
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        pairs = zip(first, second, strict=False)
        return [fault for i, (one, other) in enumerate(pairs) for fault in _unseen(one, other, (*path, i))]
    if isinstance(first, dict) and isinstance(second, dict):
        shared = [name for name in first if name in second]
        return [f for name in shared for f in _unseen(first[name], second[name], (*path, str(name)))]
    if not dataclasses.is_dataclass(first) or type(first) is not type(second) or isinstance(first, type):
        return []
    fields = {entry.name for entry in dataclasses.fields(first) if entry.init}
    faults = []
    for name, value in getattr(first, "__dict__", {}).items():
        if name in fields or isinstance(inspect.getattr_static(type(first), name, None), functools.cached_property):
            continue
        if not _same(value, getattr(second, "__dict__", {}).get(name, _unseen)):
            what = "is no init field, and no constructor gives it this value, so no other process would see it."
            faults.append(Fault("", what, "Make it a field, or compute it in __post_init__.").under(*path, name))
    for name in fields - set(BASE_FIELDS):
        if not is_hidden(first, name):
            faults += _unseen(getattr(first, name), getattr(second, name), (*path, name))
    return faults


def _same(first: Any, second: Any) -> bool:
    if first is second:
        return True
    try:
        return canonical(ANY.render(first, Pass())) == canonical(ANY.render(second, Pass()))
    except (InputError, ValueError):
        return type(first) is type(second)  # without a form no more can be told


def load(
    cls: type[T],
    form: Mapping[str, JSON],
    resolve: Resolve,
    *,
    mode: str | None = None,
    name: str | None = None,
    hash: str | None = None,
    overwrite: bool = False,
) -> T:
    """Make the parameters from their rendered form; the inverse of `render`.

    resolve: finds the class or function that a `$type` or `$ref` names. mode: what is `only_in` another one is
    taken away. Fields that `form` lacks have the class's defaults. Raises SpecError, NotCanonical or LoadError
    with every fault, paths beginning at the field.
    """
    check_form(dict(form))
    made: Any = codec_of(cls).load(dict(form), Load(resolve, mode))
    if isinstance(made, ExperimentParameters):
        if name is not None:
            made.name = name
        made.hash, made.overwrite = hash, overwrite
    return made  # type: ignore[no-any-return]


def fingerprint(params: ExperimentParameters, *, exclude: tuple[str, ...] = ()) -> bytes:
    """The bytes by which a change of parameters during a run is seen: no user function is called, a pin does not
    count, nor what has a representation (`exclude`: names and pointers of it, as the resource has them).
    """
    top = {name for name in exclude if not name.startswith("/")}
    kept = params.hash_representations
    params.hash_representations = {**kept, **{name: None for name in top if name not in kept}}
    try:
        form, _ = _walk(params, Pass(represented=False))
    finally:
        params.hash_representations = kept
    return canonical(key.hash_form(form, exclude=[name for name in exclude if name not in top]))


def explain(params: ExperimentParameters) -> dict[str, tuple[str, JSON | None]]:
    """Each field with the rule that applies to it and the value that is hashed; None where it does not count."""
    out: dict[str, tuple[str, JSON | None]] = dict.fromkeys(BASE_FIELDS, ("never counts", None))
    if params.hash is not None:
        out["hash"] = ("pinned: replaces the hash of all fields", params.hash)
    for entry in _record(type(params)).fields:
        if is_hidden(params, entry.name):
            out[entry.name] = (f"only in {entry.only_in}: not in this mode", None)
            continue
        value = getattr(params, entry.name)
        if entry.name in params.hash_representations:
            out[entry.name] = _explain_represented(params, entry.name, value)
        elif value is None and entry.none_default:
            out[entry.name] = ("left out: it is None, and so is its default", None)
        else:
            rule = f"only in {entry.only_in}" if entry.only_in else "as rendered"
            try:
                out[entry.name] = (rule, entry.codec.render(value, Pass()))
            except InputError as error:
                out[entry.name] = (f"refused: {error}", None)
    return out


def _explain_represented(params: ExperimentParameters, name: str, value: Any) -> tuple[str, JSON | None]:
    function = params.hash_representations[name]
    if function is None:
        return "left out: None in hash_representations", None
    rule = f"hash_representations: {getattr(function, '__qualname__', type(function).__qualname__)}(params, value)"
    try:
        result = function(params, value)
        return (f"left out: {rule} gave None", None) if result is None else (rule, ANY.render(result, Pass()))
    except Exception as error:  # shown instead of raised: this is the way to find it
        return f"refused: {rule} gave {error}", None
