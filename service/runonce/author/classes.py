"""The experiments of a Python file by name, for who gave the file in their place. Nothing of it is run."""

from __future__ import annotations

import ast
from pathlib import Path

from runonce.errors import EntryError, Fault


def refuse_python_file(path: Path, name: str = "") -> None:
    """Raises EntryError, which says what to write: `module:Class`. name: of the class, where it was given."""
    names = [name] if name else _experiments(path)
    if path.is_absolute() or ".." in path.parts:
        where, module = f"Start in {path.parent} and name", path.stem
    else:
        where, module = "Name", ".".join(path.with_suffix("").parts)
    shown = " or ".join(f"{module}:{one}" for one in names or ["Class"])
    raise EntryError(Fault("", f"{path} is Python, no file of experiments.", f"{where} a class of it: {shown}."))


def _experiments(path: Path) -> list[str]:
    """The classes that derive from ExperimentConfig as far as the file tells; else all that could."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return []
    bases = {node.name: {_last(base) for base in node.bases} for node in body if isinstance(node, ast.ClassDef)}
    found = {"ExperimentConfig"}
    for name, above in bases.items():  # a class stands below those that it derives from
        if above & found:
            found.add(name)
    sure = [name for name in bases if name in found]
    return sure or [name for name, above in bases.items() if above and "ExperimentParameters" not in above]


def _last(base: ast.expr) -> str:
    """`ExperimentConfig` of `runonce.ExperimentConfig` and of `ExperimentConfig[T]`."""
    if isinstance(base, ast.Subscript):
        base = base.value
    return base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""
