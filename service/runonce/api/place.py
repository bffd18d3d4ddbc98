"""Where a target's bytes and the code that they name lie. Imports nothing that a hit could do without."""

from __future__ import annotations

import sys
from pathlib import Path

from runonce.errors import InputError

MAX_BYTES = 64 * 2**20  # of a file of experiments, each of which an API server takes up to 1.5 MiB of


def read_target(target: str) -> tuple[bytes, Path]:
    """The bytes of a file or of standard input (`-`), and the folder that they belong to. Raises InputError."""
    folder = Path.cwd()
    try:
        if target == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            folder = Path(target).absolute().parent
            with open(target, "rb") as file:
                data = file.read(MAX_BYTES + 1)
    except OSError as error:
        fix = "Name a file, - for standard input, or module:Class."
        raise InputError.of("", f"{target or '(no name)'} cannot be read: {error.strerror}.", fix) from error
    if len(data) > MAX_BYTES:
        fix = "Keep data in a file of its own that a parameter names."
        raise InputError.of("", f"{target} has more than {MAX_BYTES // 2**20} MiB, so it holds no experiments.", fix)
    return data, folder


def search_from(folder: Path) -> None:
    """Let modules be imported from the working directory and `folder`, before anything that is installed."""
    first = list(dict.fromkeys((str(Path.cwd()), str(folder))))
    sys.path[:] = [*first, *(path for path in sys.path if path not in ("", *first))]
