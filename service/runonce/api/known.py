"""What files said when they were last read in full: enough to see a hit without YAML and without pydantic.

An entry is found by the bytes of the file and by the code of this package, so it can be lost but never be wrong; the
author's code is hashed anew each time. Whatever is not a plain hit goes the long way.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import runonce
from runonce.author.globs import command_digest
from runonce.author.source import closure
from runonce.errors import InputError
from runonce.experiment.canonical import digest

if TYPE_CHECKING:
    from runonce.api.target import Located

KEPT = 1000  # entries; the oldest go


@dataclass(frozen=True)
class Known:
    """One experiment of a file. parts: by mode, of its key, without code version and inputs. totals: processes."""

    name: str
    config: str
    code: list[str]
    also: list[str]
    packages: list[str]
    code_version: str | None
    parts: dict[str, dict[str, Any]]
    totals: dict[str, int]

    def keys(self, folder: Path, engine: int) -> Iterator[tuple[str, str, dict[str, str]]]:
        """Mode, cache key and inputs (mode to cache key). Raises InputError where the code is not what is pinned."""
        version = self._version(folder, engine)
        made: dict[str, str] = {}
        for mode, parts in self.parts.items():
            inputs = {name: made[name] for name in parts["inputs"]}
            made[mode] = digest({**parts, "codeVersion": version, "inputs": inputs})
            yield mode, made[mode], inputs

    def _version(self, folder: Path, engine: int) -> str:
        written = self.code_version
        if written is not None and not written.startswith("source:"):
            return written
        if self.config:
            entry = self.config.partition(":")[0]
            listed = closure(entry, also=self.also, packages=self.packages or None, engine=engine)
            found = f"source:{listed.digest()}"
        else:
            found = f"source:{command_digest(self.code, folder)}"
        if written not in (None, found):
            raise InputError.of("spec.codeVersion", "is not that of the code here.")
        return found


def find(folder: Path, data: bytes) -> list[Known] | None:
    """The experiments of a file with these bytes; None where it has to be read."""
    try:
        entries: list[Any] = json.loads((folder / f"{_name(data)}.json").read_bytes())
        return [Known(**entry) for entry in entries] or None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def keep(folder: Path, data: bytes, found: Sequence[Located]) -> None:
    """Remember what a file said. To lose it costs time alone, so no error is one."""
    from runonce.author.version import named_modules

    if any(located.spec.overwrite or located.written == "image" for located in found):
        return
    entries = [
        {
            "name": located.name,
            "config": located.spec.config or "",
            "code": list(located.spec.code),
            "also": named_modules(located.spec.params),
            "packages": list(located.spec.code_packages) if located.written else [],
            "code_version": located.written,
            "parts": {mode: parts.to_json() for mode, (parts, _) in located.keys.items()},
            "totals": {mode: located.spec.shape(mode, local=True).completions for mode in located.keys},
        }
        for located in found
    ]
    path = folder / f"{_name(data)}.json"
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(entries), encoding="utf-8")
        temporary.rename(path)
        kept = sorted(folder.iterdir(), key=lambda entry: entry.stat().st_mtime)
        for old in kept[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _name(data: bytes) -> str:
    """Digest of the file and of what reads it: a release, or an edit of this package, forgets."""
    package = Path(runonce.__file__).parent
    stamp = [runonce.__version__]
    for part in ("api", "author", "experiment"):
        for entry in sorted(os.scandir(package / part), key=lambda entry: entry.name):
            if entry.name.endswith(".py"):
                stat = entry.stat()
                stamp.append(f"{entry.name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(stamp).encode() + b"\0" + data).hexdigest()
