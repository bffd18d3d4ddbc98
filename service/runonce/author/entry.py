"""From `module:Class` to the author's class, and from it to an Experiment and back. Imports user code."""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from runonce.author.source import SourceList
from runonce.author.version import source_list
from runonce.errors import EntryError, Fault, InputError, LoadError, near
from runonce.experiment.config import ENGINE_METHODS, ExperimentConfig, own_loops
from runonce.experiment.form import JSON
from runonce.experiment.key import MODES, check_pin, digest_of_identity
from runonce.experiment.machine import MachineParams, gpu_id, machine_params_of, plan_job, process_count
from runonce.experiment.params import Description, ExperimentParameters, load, render_checked
from runonce.experiment.spec import ExperimentSpec, MachineBlock, Machines, parse_experiment, to_resource

MAX_TAG = 54  # with a hyphen and 8 hex digits it is a name of 63


def find_class(entry: str) -> type[ExperimentConfig]:
    """Import the module and return the class. Raises EntryError saying what is missing or why it failed."""
    found = resolve(entry)
    if not (isinstance(found, type) and issubclass(found, ExperimentConfig)):
        raise EntryError(
            Fault("", f"{entry} is no ExperimentConfig.", "Name a class that derives from runonce.ExperimentConfig.")
        )
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise EntryError(Fault("", f"{entry} lacks {', '.join(missing)}.", f"Define them in class {found.__name__}."))
    return found


def resolve(name: str) -> Any:
    """`package.module:Name` to what it names, importing the module. Raises EntryError."""
    module_name, _, qualname = name.partition(":")
    if module_name == "__main__":
        raise EntryError(
            Fault("", f"{name} is in __main__, which no other process can import.", "Move it into a module.")
        )
    module = _import(module_name)
    found: Any = module
    for part in qualname.split("."):
        if not hasattr(found, part):
            known = [n for n in vars(found) if not n.startswith("_")] if hasattr(found, "__dict__") else []
            raise EntryError(Fault("", f"{module_name} has no {qualname}.", near(part, known)))
        found = getattr(found, part)
    return found


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise EntryError(
                Fault(
                    "",
                    f"there is no module {error.name} here.",
                    "Start in the folder that holds it, or install the package that does.",
                )
            ) from error
        raise _import_failed(name, error) from error
    except Exception as error:  # whatever the author's module raises when it runs
        raise _import_failed(name, error) from error


def _import_failed(name: str, error: Exception) -> EntryError:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    own = [frame for frame in frames if not frame.filename.endswith("author/entry.py")]
    if isinstance(error, SyntaxError):
        where = f"{error.filename}, line {error.lineno}"
    else:
        where = f"{own[-1].filename}, line {own[-1].lineno}" if own else name
    return EntryError(
        Fault("", f"{name} cannot be imported: {type(error).__name__}: {error} ({where}).", "Mend the module.")
    )


def find_named(name: str) -> Any:
    """For `load`: a `$type` or `$ref`, with the fault at the field that names it."""
    try:
        return resolve(name)
    except EntryError as error:
        raise LoadError(*error.faults) from error


def make_config(
    cls: type[ExperimentConfig],
    form: Mapping[str, JSON],
    *,
    name: str,
    mode: str | None = None,
    pin: str | None = None,
    overwrite: bool = False,
) -> ExperimentConfig:
    """The config as the program sees it: from the rendered form alone, here as in a cluster."""
    params = load_params(cls, form, name=name, mode=mode, pin=pin, overwrite=overwrite)
    try:
        return cls(params)
    except InputError:
        raise
    except Exception as error:
        raise _failed(cls, "__init__", error) from error


def load_params(
    cls: type[ExperimentConfig],
    form: Mapping[str, JSON],
    *,
    name: str,
    mode: str | None = None,
    pin: str | None = None,
    overwrite: bool = False,
) -> ExperimentParameters:
    try:
        return load(cls.Params, form, find_named, mode=mode, name=name, hash=pin, overwrite=overwrite)
    except InputError as error:
        raise error.under("spec", "params") from None


def describe_class(
    entry: str,
    changes: Mapping[str, JSON],
    search: list[str] | None = None,
    *,
    config: ExperimentConfig | None = None,
    find_code: Callable[[str, Mapping[str, JSON]], SourceList] | None = None,
) -> tuple[str, ExperimentSpec]:
    """The Experiment that a class stands for, every field written: its name and spec.

    changes: dotted parameter names to values as a file would hold them (`-p`). config: an instance of the class with
    parameters of its own. find_code: finds the modules, where that is not to be done anew each time.
    """
    cls = find_class(entry)
    if config is None:
        config = _call(cls, "__init__", cls)
    if changes:
        form = apply_changes(render_params(config.params).params, changes)
        config = make_config(cls, form, name=config.params.name)
    description = render_params(config.params)
    tag = _call(cls, "tag", config.tag)
    code = find_code(entry, description.params) if find_code else source_list(entry, description.params, search=search)
    params = config.params
    if params.hash is not None:
        check_pin(params.hash)
    spec = ExperimentSpec(
        config=entry,
        params=description.params,
        hash_exclude=description.exclude,
        hash_as=dict(description.hash_as),
        params_only_in=dict(description.only_in),  # type: ignore[arg-type]
        hash=params.hash,
        code_version=f"source:{code.digest()}",
        code_packages=code.packages,
        key_machine=True if own_loops(cls) else None,
        machine_params=machines_of(config),
        overwrite=params.overwrite,
    )
    check_methods(cls, spec.modes())
    name = experiment_name(tag, spec)
    return name, parse_experiment(to_resource(name, spec)).spec  # what a file cannot say a class cannot either


def render_params(params: ExperimentParameters) -> Description:
    try:
        return render_checked(params)
    except InputError as error:
        raise error.under("params") from None


def apply_changes(form: Mapping[str, JSON], changes: Mapping[str, JSON]) -> dict[str, JSON]:
    """`{"optimizer.lr": 0.1}` put into the form; an unknown name is left for `load` to refuse with a suggestion."""
    out: dict[str, JSON] = {**form}
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        inner = out
        for parent in parents:
            entry = inner.get(parent)
            if not isinstance(entry, dict):
                raise LoadError(Fault(dotted, f"{parent} is no mapping with fields.", near(parent, form)))
            entry = {**entry}
            inner[parent] = entry
            inner = entry["value"] if "$type" in entry else entry
        inner[last] = value
    return out


def machines_of(config: ExperimentConfig) -> Machines:
    """A block for each mode that `machine_params` knows. Raises MachineError in the words a file would hear."""
    blocks: dict[str, MachineBlock] = {}
    for mode in MODES:
        try:
            given = config.machine_params(mode=mode)
        except NotImplementedError:
            continue
        except InputError:
            raise
        except Exception as error:
            raise _failed(type(config), f"machine_params(mode={mode!r})", error) from error
        try:
            machine = machine_params_of(given, mode=mode)
            plan_job(machine, mode=mode, local=True)
        except InputError as error:
            raise error.under("spec", "machineParams", mode) from None
        blocks[mode] = _block(machine)
    return Machines(**blocks)


def _block(machine: MachineParams) -> MachineBlock:
    counts = machine.nprocesses
    several = isinstance(counts, Sequence)
    return MachineBlock(
        nprocesses=None if several else process_count(counts),
        nprocesses_per_device=tuple(map(process_count, counts)) if several else None,  # type: ignore[arg-type]
        gpu_ids=tuple(map(gpu_id, machine.gpu_ids)),
        gpu_resource=machine.gpu_resource,
        coupled=machine.coupled,
        env=dict(machine.env),
    )


def experiment_name(tag: str, spec: ExperimentSpec) -> str:
    """`<tag>-<8 hex over entry, params_hash, env, seed, extra>`, as a resource may be called."""
    clean = re.sub(r"[^a-z0-9]+", "-", tag.lower()).strip("-")[:MAX_TAG].strip("-") or "experiment"
    return f"{clean}-{digest_of_identity(spec)[:8]}"


def check_methods(cls: type[ExperimentConfig], modes: Iterable[str]) -> None:
    """Modes that keep the engine's loop need what it calls, also of a class with a loop of its own for others.

    Raises EntryError.
    """
    left = [name for name in ENGINE_METHODS if getattr(getattr(cls, name), "__isabstractmethod__", False)]
    kept = [mode for mode in modes if mode not in own_loops(cls)]
    if left and kept:
        what = f"{cls.__qualname__} lacks {', '.join(left)}, which the engine needs for {', '.join(kept)}."
        raise EntryError(Fault("", what, f"Define them, or a loop of your own there too: def {kept[0]}(self, run)."))


def _call(cls: type, what: str, function: Any) -> Any:
    try:
        return function()
    except InputError:
        raise
    except Exception as error:
        raise _failed(cls, what, error) from error


def _failed(cls: type, what: str, error: Exception) -> EntryError:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return EntryError(
        Fault("", f"{cls.__qualname__}.{what} raised {type(error).__name__}: {error}{where}.", "Mend it.")
    )


def add_to_path(folder: str) -> None:
    """Let modules of this folder be imported, as `python -m` does."""
    if folder not in sys.path:
        sys.path.insert(0, folder)
