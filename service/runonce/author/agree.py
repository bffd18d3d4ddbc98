"""Does a spec agree with the code that is here: its digest, its class's fields, its loops. Before any of it is run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runonce.author import entry
from runonce.author.source import SourceList, explain_mismatch
from runonce.author.version import source_version
from runonce.errors import CodeError, Fault, NotCanonical, SpecError, near, raise_all
from runonce.experiment.canonical import canonical
from runonce.experiment.config import ExperimentConfig, own_loops
from runonce.experiment.key import pointer
from runonce.experiment.params import describe
from runonce.experiment.render.records import ONLY_IN
from runonce.experiment.spec import ExperimentSpec

RENEW = (
    "Start with the code that is pinned, or pin this one: run the class again, or renew the file by `runonce render -f "
    "FILE`."
)


def prove_code(spec: ExperimentSpec, folder: Path, kept: Path | None = None) -> SourceList | None:
    """Compare `source:` with the code that is here; returns its modules, None for a command.

    folder: where a command's globs begin. kept: folder of module lists by digest, which let a mismatch be named.
    Raises CodeError. A label or an image is not looked at: nobody here can prove it.
    """
    wanted = spec.code_version or ""
    if not wanted.startswith("source:"):
        return None
    found, modules = source_version(spec, folder)
    if wanted != found:
        known = read_modules(kept, wanted) if kept is not None else None
        named = " " + explain_mismatch(known, modules) if known is not None and modules is not None else ""
        raise CodeError(Fault("spec.codeVersion", f"is {wanted}, but the code here is {found}.{named}", RENEW))
    if kept is not None and modules is not None:
        keep_modules(kept, modules)
    return modules


def keep_modules(folder: Path, modules: SourceList) -> None:
    """Remember what is behind a digest. It only serves a better message, so where nothing can be written, none is."""
    path = folder / f"{modules.digest()}.json"
    with contextlib.suppress(OSError):
        if path.exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps({"format": 1, "modules": modules.modules, "packages": modules.packages}))
        temporary.rename(path)


def read_modules(folder: Path, version: str) -> SourceList | None:
    try:
        value = json.loads((folder / f"{version.removeprefix('source:')}.json").read_bytes())
        modules = tuple((name, sha256) for name, sha256 in value["modules"])
        return SourceList(modules=modules, packages=tuple(value["packages"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # it only serves a better message


def check_class(cls: type[ExperimentConfig], spec: ExperimentSpec) -> dict[str, Any]:
    """Hold a spec against its class; returns the parameters with the code's defaults filled in.

    Raises InputError: values that the declared types cannot take, another spelling than the one that is hashed,
    an own loop without `keyMachine`, no method that the engine needs, a label on a file that leaves fields to defaults.
    """
    full = describe(entry.load_params(cls, spec.params, name="", pin=spec.hash)).params
    faults = [
        Fault(name, f"is spelled {_text(form)}, and what is hashed is {_text(full.get(name))}.", _line(name, full))
        for name, form in spec.params.items()
        if canonical(full.get(name)) != canonical(form) and not _represented(name, spec)
    ]
    if faults:
        raise NotCanonical(*faults).under("spec", "params")
    raise_all([SpecError(fault) for fault in _check_names(cls, spec)])
    entry.check_methods(cls, spec.modes())
    if spec.key_machine is None and own_loops(cls):
        raise CodeError(
            Fault(
                "spec.keyMachine",
                f"is not given, and {cls.__qualname__} brings its own loop, whose result may depend on the number of "
                "processes.",
                "Write keyMachine: true, or false if you know that it does not.",
            )
        )
    missing = missing_fields(full, spec)
    if missing and (spec.code_version or "").startswith("label:"):
        raise CodeError(
            Fault(
                "spec.params",
                f"lacks {', '.join(missing)}, and a label does not say which defaults the code had.",
                "Give all fields (`runonce render -f FILE` writes them), or use codeVersion: source:….",
            ),
            reason="PartialFile",
        )
    return full


def _check_names(cls: type[ExperimentConfig], spec: ExperimentSpec) -> Iterator[Fault]:
    """What the file keeps out of a key has to be a field, and what it keeps to one mode be kept there by the class."""
    fields = {field.name: field.metadata.get(ONLY_IN) for field in dataclasses.fields(cls.Params)}
    for name in (*spec.hash_exclude, *spec.hash_as):
        if pointer(name)[0] not in fields:
            where = "hashExclude" if name in spec.hash_exclude else "hashAs"
            yield Fault(f"spec.{where}", f"names {name!r}, no field of {cls.Params.__qualname__}.", near(name, fields))
    for name, mode in spec.params_only_in.items():
        if not name.startswith("/") and fields.get(name) != mode:
            what = f"is kept to {mode} here and not by {cls.Params.__qualname__}, so other modes could read it unseen."
            fix = f'Write {name} = only_in("{mode}", default=…) in the class, or remove the line.'
            yield Fault("", what, fix).under("spec", "paramsOnlyIn", name)


def missing_fields(full: dict[str, Any], spec: ExperimentSpec) -> tuple[str, ...]:
    """The fields that a partial file leaves to the code's defaults."""
    return tuple(sorted(full.keys() - spec.params.keys()))


def _represented(name: str, spec: ExperimentSpec) -> bool:
    return name in spec.hash_exclude or name in spec.hash_as


def _text(form: Any) -> str:
    return "left out" if form is None else canonical(form).decode()


def _line(name: str, full: dict[str, Any]) -> str:
    return f"Write {name}: {canonical(full[name]).decode()}" if name in full else f"Remove the line {name}."
