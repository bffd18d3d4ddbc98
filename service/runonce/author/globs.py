"""Files that count by their names and bytes: those of a command, and the data of a config's code."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from os.path import exists, isfile
from pathlib import Path, PurePosixPath

from runonce.errors import CodeError, Fault
from runonce.experiment.canonical import digest


def command_digest(globs: Sequence[str], root: Path) -> str:
    """Over sorted POSIX path (relative to `root`) and sha256 of each file that a glob names. Raises CodeError.

    `**` stands for folders in any depth, those behind links left out, and at the end for all files below.
    """
    return digest([list(entry) for entry in globbed(globs, root, "spec.code")])


def globbed(globs: Sequence[str], root: Path, where: str) -> list[tuple[str, str]]:
    """Files by name; a link counts as the file that it leads to, folders and Python's caches not at all."""
    found: dict[str, str] = {}
    faults = []
    for position, glob in enumerate(globs):
        place = f"{where}[{position}]"
        fault = _check_glob(glob, root)
        if fault is not None:
            faults.append(Fault(place, *fault))
            continue
        paths = _matches(glob, root)
        if not paths:
            faults.append(Fault(place, f"names no file: {glob!r}, below {root}.", "Correct or remove it."))
        for path in paths:
            name = path.relative_to(root).as_posix()
            try:
                name.encode()
                with path.open("rb") as file:
                    found[name] = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                what = f"names {path}, which cannot be read: {error.strerror}."
                faults.append(Fault(place, what, "Make it readable, or name other files."))
            except UnicodeEncodeError:
                faults.append(Fault(place, f"names {name!r}, whose name is no UTF-8.", "Rename the file."))
    if faults:
        raise CodeError(*faults)
    return sorted(found.items())


def _check_glob(glob: str, root: Path) -> tuple[str, str] | None:
    parts = PurePosixPath(glob).parts
    if not parts or glob.startswith("/") or ".." in parts or "\0" in glob:
        return f"is {glob!r}, which is no path below {root}.", "Write one."
    if any("**" in part and part != "**" for part in parts):
        return f"is {glob!r}; ** stands for whole folders.", "Write it between slashes."
    return None


def _matches(glob: str, root: Path) -> list[Path]:
    last = PurePosixPath(glob).name
    paths = root.glob(f"{glob.rstrip('/')}/*" if last == "**" else glob)  # Pythons differ about a last **
    # What is not there is a link that leads nowhere: reading it will tell. A pipe would not let itself be read.
    counted = (path for path in paths if "__pycache__" not in path.relative_to(root).parts)
    return [path for path in counted if isfile(path) or not exists(path)]
