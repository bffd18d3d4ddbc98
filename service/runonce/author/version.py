"""The code version of an experiment as this machine has it, for configs and for commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runonce.author.globs import command_digest
from runonce.author.source import SourceList, closure

if TYPE_CHECKING:
    from runonce.experiment.spec import ExperimentSpec

# Raised when the numerics of the default engine change: a worker of another engine must not serve the old key.
ENGINE = 1


def source_list(
    entry: str, params: Any, *, packages: Sequence[str] | None = None, search: Sequence[str] | None = None
) -> SourceList:
    """The modules that a config's result depends on. packages: `codePackages` of a file; None: found here."""
    return closure(
        entry.partition(":")[0],
        also=named_modules(params),
        packages=packages or None,
        search=search,
        engine=ENGINE,
    )


def source_version(spec: ExperimentSpec, folder: Path) -> tuple[str, SourceList | None]:
    """`source:<digest>` of the code that is here; folder: where a command's globs begin. Raises CodeError."""
    if spec.config is None:
        return f"source:{command_digest(spec.code, folder)}", None
    found = source_list(spec.config, spec.params, packages=spec.code_packages)
    return f"source:{found.digest()}", found


def named_modules(params: Any) -> list[str]:
    """The modules that `$type` and `$ref` in rendered parameters name."""
    found: set[str] = set()
    stack: list[Any] = [params]
    while stack:
        value = stack.pop()
        if isinstance(value, Mapping):
            names = (value[tag] for tag in ("$type", "$ref") if isinstance(value.get(tag), str))
            found.update(name.partition(":")[0] for name in names)
            stack += value.values()
        elif isinstance(value, list):
            stack += value
    return sorted(found)
