"""What the author says of code that no import statement shows: include, exclude, data."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runonce.errors import CodeError, Fault, near

IN_PACKAGE = "runonce-code.toml"
NEVER = ("*._version",)  # written by build tools anew for each build

_NAMES = ("include", "exclude", "data")


@dataclass(frozen=True)
class CodeSettings:
    """file and table: for messages, the table with a dot behind it. Globs of `data` begin in the file's folder."""

    file: Path = Path()
    table: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = NEVER
    data: tuple[str, ...] = ()


def from_package(data: bytes, path: Path) -> CodeSettings:
    """The settings of a file that lies in a package. Raises CodeError."""
    return _parse(_toml(data, str(path)), path)


def from_project(folder: Path) -> CodeSettings | None:
    """Those of the folder's pyproject.toml; None where there is none. Raises CodeError."""
    path = folder / "pyproject.toml"
    if not path.is_file():
        return None
    table: Any = _toml(path.read_bytes(), str(path))
    for name in ("tool", "runonce", "code"):
        table = table.get(name, {}) if isinstance(table, dict) else table
    if not isinstance(table, dict):
        fix = "Write [tool.runonce.code], and include = […] below it."
        raise CodeError(Fault("tool.runonce.code", f"is no table in {path}.", fix))
    return _parse(table, path, "tool.runonce.code.")


def _toml(data: bytes, path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode())
    except ValueError as error:
        raise CodeError(Fault("", f"{path} cannot be read: {error}.", "Mend it.")) from error


def _parse(value: dict[str, Any], file: Path, table: str = "") -> CodeSettings:
    faults = []
    for name, given in value.items():
        if name not in _NAMES:
            faults.append(Fault(table + name, f"is no setting ({file}).", near(name, _NAMES)))
        elif not isinstance(given, list) or not all(isinstance(entry, str) for entry in given):
            faults.append(Fault(table + name, f"is {given!r}; a list of texts is meant ({file})."))
    if faults:
        raise CodeError(*faults)
    return CodeSettings(
        file,
        table,
        tuple(value.get("include", ())),
        (*NEVER, *value.get("exclude", ())),
        tuple(value.get("data", ())),
    )
