"""TARGET: a file, `-`, or `module:Class`, and what `-p` changes in it, as experiments ready to be keyed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from runonce.api.place import read_target, search_from
from runonce.author.document import Document, read_documents, read_value
from runonce.author.source import SourceList
from runonce.author.version import source_version
from runonce.errors import CodeError, Fault, InputError, SpecError
from runonce.experiment.key import KeyParts
from runonce.experiment.spec import ExperimentSpec, parse_experiment

_CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True)
class Located:
    """One experiment. workdir: where its processes start. where: file and line, or the class, for messages.

    complete: every field is written, as `render` does it, so that the class need not be asked what it lacks.
    written: the code version as the file has it, before the one that is here was filled in.
    point: what a grid put in, by dotted name.
    """

    name: str
    spec: ExperimentSpec
    workdir: Path
    where: str
    complete: bool = False
    written: str | None = None
    point: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def keys(self) -> dict[str, tuple[KeyParts, str]]:
        return self.spec.keys()


def locate(target: str, params: Sequence[str] = ()) -> list[Located]:
    """Every experiment of the target. Raises InputError with the faults of all of them."""
    changes = _changes(params)
    search_from(Path.cwd())
    if target != "-" and not Path(target).exists() and _CLASS.fullmatch(target):
        from runonce.author.entry import describe_class

        name, spec = describe_class(target, changes)
        return [Located(name, spec, Path.cwd(), target, complete=True)]
    data, folder = read_target(target)
    search_from(folder)
    found, faults = [], []
    for document in read_documents(data, name="standard input" if target == "-" else target):
        try:
            found.append(_from_document(document, folder, changes))
        except InputError as error:
            lead = f"{document.source}, line {document.line}"
            faults += [Fault(f"{lead}: {f.path}" if f.path else lead, f.what, f.fix) for f in error.faults]
            reason = error.reason
    if faults:
        raise SpecError(*faults, reason=reason)
    _check_names(found)
    return found


def _changes(params: Sequence[str]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    faults = []
    for text in params:
        name, separator, value = text.partition("=")
        if not separator or not name:
            faults.append(Fault("-p", f"is {text!r}.", "Write -p name=value."))
        elif name in changes:
            faults.append(Fault("-p", f"names {name} twice.", "Give it once."))
        else:
            try:
                changes[name] = read_value(value)
            except InputError as error:
                faults += error.under("-p").faults
    if faults:
        raise SpecError(*faults)
    return changes


def _from_document(document: Document, folder: Path, changes: Mapping[str, Any]) -> Located:
    experiment = parse_experiment(document.value)
    where = f"{document.source}, line {document.line}"
    spec = experiment.spec
    workdir = Path.cwd() if spec.config is not None else folder
    if changes:
        spec = changed(spec, changes)
    filled = with_code_version(spec, folder)
    return Located(
        experiment.name, filled, workdir, where, complete=bool(changes), written=experiment.spec.code_version
    )


def changed(spec: ExperimentSpec, changes: Mapping[str, Any]) -> ExperimentSpec:
    """The spec with other parameters, checked against the class and in the class's own spelling."""
    from runonce.author import entry

    form = entry.apply_changes(spec.params, changes)
    if spec.config is None:
        return _remade(spec, params=form)
    params = entry.load_params(entry.find_class(spec.config), form, name="", pin=spec.hash)
    return _remade(spec, params=entry.render_params(params).params)


def completed(located: Located) -> ExperimentSpec:
    """What `render` writes for a file: all fields, in the hashed spelling, and the code version that is here."""
    from runonce.author import entry

    spec = located.spec
    if spec.config is not None:
        cls = entry.find_class(spec.config)
        description = entry.render_params(entry.load_params(cls, spec.params, name=located.name, pin=spec.hash))
        loops = bool(entry.overridden_loops(cls))
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


def _remade(spec: ExperimentSpec, **changes: Any) -> ExperimentSpec:
    return spec.model_copy(update=changes)


def _check_names(found: Sequence[Located]) -> None:
    seen: dict[str, Located] = {}
    faults = []
    for located in found:
        if located.name in seen:
            what = f"is the name of two experiments ({seen[located.name].where}; {located.where})."
            faults.append(Fault("metadata.name", f"{located.name} {what}", "Give each its own."))
        seen[located.name] = located
    if faults:
        raise SpecError(*faults)
