"""TARGET: a file, `-`, or `module:Class`, and what is changed in it, as experiments ready to be keyed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os.path import exists, isfile
from pathlib import Path
from typing import Any

from runonce.api.changes import Axes, Changes, point_text, points, read_axes, read_changes
from runonce.api.place import read_target, search_from
from runonce.author.document import Document, read_documents
from runonce.author.source import SourceList
from runonce.author.version import named_modules, source_list, source_version
from runonce.errors import CodeError, EntryError, Fault, InputError, SpecError, near, raise_all
from runonce.experiment.arguments import decoded, dotted_names
from runonce.experiment.config import ExperimentConfig, own_loops
from runonce.experiment.key import KeyParts
from runonce.experiment.spec import LAST_APPLIED, ExperimentSpec, parse_experiment, to_resource
from runonce.experiment.spec_checks import check_spec
from runonce.store.earlier import stem_of

_CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")

MAX_FAULTS = 10  # of points of a grid that are alike

Target = str | Path | type[ExperimentConfig] | ExperimentConfig


@dataclass(frozen=True)
class Located:
    """One experiment. workdir: where its processes start. source: the document of a file, or the class, for messages.

    complete: every field is written, as `render` does it, so that the class need not be asked what it lacks.
    written: the code version as the file has it, before the one that is here was filled in.
    point: what a grid put in, by dotted name. namespace, labels, annotations: of the file, for whoever submits it.
    """

    name: str
    spec: ExperimentSpec
    workdir: Path
    source: Document | str
    complete: bool = False
    written: str | None = None
    point: Mapping[str, Any] = field(default_factory=dict)
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    def where(self, path: str = "") -> str:
        """File and line of a field, or the class."""
        return self.source if isinstance(self.source, str) else self.source.where(path)

    def resource(self, spec: ExperimentSpec, *, namespace: str = "") -> dict[str, Any]:
        """As it is applied, with this spec."""
        where = namespace or self.namespace
        return to_resource(self.name, spec, namespace=where, labels=self.labels, annotations=self.annotations)

    @cached_property
    def keys(self) -> dict[str, tuple[KeyParts, str]]:
        return self.spec.keys()


def locate(target: str, params: Sequence[str] = (), grid: Sequence[str] = ()) -> list[Located]:
    """Every experiment of the target, changed as `-p` and `--grid` say. Raises InputError with the faults of all."""
    return locate_given(target, read_changes(params), read_axes(grid))


def locate_given(target: Target, changes: Changes, axes: Axes) -> list[Located]:
    """The same with values. A class, or an instance with parameters of its own, is a target too."""
    grid = points(changes, axes)
    search_from(Path.cwd())
    if not isinstance(target, str | Path):
        return _checked(_of_class(*_named(target), changes, grid))
    name = str(target)
    python, _, class_name = name.partition(":")
    if python.endswith(".py") and isfile(python):
        from runonce.author.classes import refuse_python_file

        refuse_python_file(Path(python), class_name)
    if name != "-" and not exists(name) and _CLASS.fullmatch(name):
        return _checked(_of_class(name, None, changes, grid))
    data, folder = read_target(name)
    search_from(folder)
    found: list[Located] = []
    errors: list[InputError] = []
    for document in read_documents(data, name="standard input" if name == "-" else name):
        try:
            found += _from_document(document, folder, changes, grid)
        except InputError as error:
            errors.append(placed(error, document.where))
    raise_all(errors)
    return _checked(found)


def placed(error: InputError, where: Callable[[str], str]) -> SpecError:
    """The same faults, each with its place. where: the file and line of a path, or the class."""
    leads = ((where(fault.path), fault) for fault in error.faults)
    faults = (Fault(f"{lead}: {f.path}" if f.path else lead, f.what, f.fix) for lead, f in leads)
    return SpecError(*faults, reason=error.reason)


def _named(target: type[ExperimentConfig] | ExperimentConfig) -> tuple[str, ExperimentConfig | None]:
    """The name by which another process finds the class, and the instance if it is one. Raises EntryError."""
    from runonce.author import entry

    cls = target if isinstance(target, type) else type(target)
    name = f"{cls.__module__}:{cls.__qualname__}"
    if "<locals>" in name:
        what = f"{name} is made inside a function, where no other process can find it."
        raise EntryError(Fault("", what, "Move it to the top of a module."))
    if entry.find_class(name) is not cls:
        what = f"{name} is another class by now: the module was loaded again."
        raise EntryError(Fault("", what, f"Take the class anew: from {cls.__module__} import {cls.__qualname__}."))
    return name, None if isinstance(target, type) else target


def _of_class(name: str, config: ExperimentConfig | None, changes: Changes, grid: Sequence[Changes]) -> list[Located]:
    from runonce.author.entry import describe_class

    code = _Code()

    def at(point: Changes) -> Located:
        found, spec = describe_class(name, {**changes, **point}, config=config, find_code=code)
        return Located(found, spec, Path.cwd(), name, complete=True, point=point)

    return _at_all(grid, at)


def _from_document(document: Document, folder: Path, changes: Changes, grid: Sequence[Changes]) -> list[Located]:
    experiment = parse_experiment(document.value)
    written = experiment.spec
    workdir = Path.cwd() if written.config is not None else folder
    filled = with_code_version(written, folder)

    def at(point: Changes) -> Located:
        spec, name = filled, experiment.name
        given = {**changes, **point}
        if given:
            spec = changed(filled, given)
            if named_modules(spec.params) != named_modules(filled.params):
                version = {"code_version": written.code_version, "code_packages": written.code_packages}
                spec = with_code_version(_remade(spec, **version), folder)
        if point:
            name = point_name(name, spec)
        return Located(
            name,
            spec,
            workdir,
            document,
            complete=bool(given),
            written=written.code_version,
            point=point,
            namespace=experiment.metadata.namespace,
            labels=experiment.metadata.labels,
            annotations={n: text for n, text in experiment.metadata.annotations.items() if n != LAST_APPLIED},
        )

    return _at_all(grid, at)


def _at_all(grid: Sequence[Changes], at: Callable[[Changes], Located]) -> list[Located]:
    found: list[Located] = []
    faults: dict[str, Fault] = {}
    error: InputError | None = None
    for point in grid:
        try:
            found.append(at(point))
        except InputError as caught:
            error = error or caught
            faults |= {str(fault): fault for fault in caught.faults}
    if error is not None:
        raise type(error)(*faults.values(), reason=error.reason) from error
    return found


def point_name(name: str, spec: ExperimentSpec) -> str:
    """`<name>-<8 hex>` of what the experiment is, as a class's name is made; such digits in `name` give way."""
    from runonce.author.entry import experiment_name

    return experiment_name(stem_of(name), spec)


class _Code:
    """The modules behind a class, found once for all points of a grid that name the same ones."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, ...], SourceList] = {}

    def __call__(self, entry: str, params: Mapping[str, Any]) -> SourceList:
        named = (entry, *named_modules(params))
        if named not in self._found:
            self._found[named] = source_list(entry, params)
        return self._found[named]


def changed(spec: ExperimentSpec, changes: Mapping[str, Any]) -> ExperimentSpec:
    """The spec with other parameters, checked against the class and in the class's own spelling; those of a program
    are the ones that its file has.
    """
    from runonce.author import entry

    form = entry.apply_changes(spec.params, changes)
    if spec.config is None:
        known = list(dotted_names(decoded(spec.params)))
        unknown = [name for name in changes if name not in known]
        if unknown:
            what = "is no parameter in the file of this program."
            raise SpecError(*(Fault(name, what, near(name, known)) for name in unknown))
    else:
        params = entry.load_params(entry.find_class(spec.config), form, name="", pin=spec.hash)
        form = entry.render_params(params).params
    made = _remade(spec, params=form)
    faults = list(check_spec(made))
    if faults:
        raise SpecError(*faults)
    return made


def completed(located: Located) -> ExperimentSpec:
    """What `render` writes for a file: all fields, in the hashed spelling, and the code version that is here."""
    from runonce.author import entry

    spec = located.spec
    if spec.config is not None:
        cls = entry.find_class(spec.config)
        description = entry.render_params(entry.load_params(cls, spec.params, name=located.name, pin=spec.hash))
        loops = bool(own_loops(cls))
        spec = _remade(
            spec,
            params=description.params,
            # Where the file says how a field counts, it keeps its word.
            hash_exclude=tuple(sorted({*spec.hash_exclude, *(set(description.exclude) - set(spec.hash_as))})),
            hash_as={n: v for n, v in description.hash_as.items() if n not in spec.hash_exclude} | spec.hash_as,
            params_only_in={**description.only_in, **spec.params_only_in},
            key_machine=True if loops and spec.key_machine is None else spec.key_machine,
        )
    if spec.code_version is None or spec.code_version.startswith("source:"):
        fresh = _remade(spec, code_version=None, code_packages=())
        version, modules = source_version(fresh, located.workdir)
        packages = modules.packages if modules is not None else ()
        spec = _remade(spec, code_version=version, code_packages=packages)
    return spec


def with_code_version(spec: ExperimentSpec, folder: Path) -> ExperimentSpec:
    """The spec with the version of the code that is here, where it names none. Raises CodeError for `image`."""
    if spec.code_version is None:
        version, modules = source_version(spec, folder)
        packages = modules.packages if modules is not None else ()
        return _remade(spec, code_version=version, code_packages=packages)
    return spec


def modules_here(located: Located, kept: Path) -> SourceList | None:
    """Stop where the pinned code is not what is here; needed also on a hit, or an edit would go unseen.

    An `image` cannot be proved here, and is refused by whoever runs something.
    """
    from runonce.author.agree import prove_code

    if located.spec.code_version == "image":
        raise CodeError(
            Fault(
                "spec.codeVersion",
                "is image: what is in an image cannot be proved here.",
                "Run it on a cluster, or leave codeVersion out to run the code that is here.",
            )
        )
    return prove_code(located.spec, located.workdir, kept)


def prove_all(found: Sequence[Located], kept: Path) -> None:
    """`modules_here` for all of them, once where the same is to be proved."""
    seen = set()
    for located in found:
        spec = located.spec
        what = (spec.code_version, spec.config, spec.code, spec.code_packages, *named_modules(spec.params))
        if (what, located.workdir) not in seen:
            seen.add((what, located.workdir))
            modules_here(located, kept)


def _remade(spec: ExperimentSpec, **changes: Any) -> ExperimentSpec:
    return spec.model_copy(update=changes)


def _checked(found: list[Located]) -> list[Located]:
    """Names are of one experiment each, and points of a grid are not one and the same."""
    by_name: dict[str, Located] = {}
    faults = []
    for located in found:
        other = by_name.setdefault(located.name, located)
        if other is located:
            continue
        if located.point and _keys(located) == _keys(other):
            what = f"has {point_text(other.point)} and {point_text(located.point)}, which have one key."
            faults.append(Fault("--grid", what, "Take out what does not count (`runonce key` says what does)."))
        else:
            what = f"{located.name} is the name of two experiments ({other.where()}; {located.where()})."
            faults.append(Fault("metadata.name", what, "Give each its own."))
    if faults:
        raise SpecError(*faults[:MAX_FAULTS])
    return found


def _keys(located: Located) -> list[str]:
    return [key for _, key in located.keys.values()]
