"""Where a target's bytes and the code that they name lie. Imports nothing that a hit could do without."""

from __future__ import annotations

import sys
from pathlib import Path

from runonce.errors import InputError


def read_target(target: str) -> tuple[bytes, Path]:
    """The bytes of a file or of standard input (`-`), and the folder that they belong to. Raises InputError."""
    if target == "-":
        return sys.stdin.buffer.read(), Path.cwd()
    path = Path(target)
    try:
        return path.read_bytes(), path.absolute().parent
    except OSError as error:
        raise InputError.of(
            "", f"{target} cannot be read: {error.strerror}.", "Name a file, - for standard input, or module:Class."
        ) from error


def search_from(folder: Path) -> None:
    """Let modules be imported from the working directory and `folder`, before anything that is installed."""
    first = list(dict.fromkeys((str(Path.cwd()), str(folder))))
    sys.path[:] = [*first, *(path for path in sys.path if path not in ("", *first))]
