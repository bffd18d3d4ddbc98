"""The code that a digest covers, as one archive: kept under the digest, and put in place where the code is missing.

It keeps where files lie beside each other, since code finds its data that way. What an archive holds is believed by
nobody: who unpacks it computes the digest anew before any of it runs. Modules that do not count are the exception.
"""

from __future__ import annotations

import io
import json
import os
import stat
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path, PurePosixPath

from runonce.author.agree import RENEW
from runonce.author.code_settings import IN_PACKAGE, NEVER, CodeSettings
from runonce.author.globs import globbed
from runonce.author.source import SourceList, locate
from runonce.author.version import source_version
from runonce.errors import CodeError, Damaged, Fault
from runonce.experiment.spec import ExperimentSpec

MAX_BYTES = 64 * 2**20  # of all files; an archive is read whole

_INDEX = "runonce-code.json"
_APART = "modules"  # for a module whose path does not end in its name
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same bytes whenever they are packed


@dataclass(frozen=True)
class Unpacked:
    """path: folders to put first on sys.path. folder: where a command's files lie."""

    folder: Path
    path: tuple[str, ...]


def pack(spec: ExperimentSpec, folder: Path) -> tuple[str, bytes]:
    """The digest that the spec pins, and an archive of the code that has it. folder: of a command's files.

    Raises CodeError where the code here is another, or the spec pins none.
    """
    wanted = spec.code_version or ""
    if not wanted.startswith("source:"):
        fault = Fault("spec.codeVersion", f"is {wanted or 'missing'}; only code of a source: version can be sent.")
        raise CodeError(fault)
    found, listed = source_version(spec, folder)
    if found != wanted:
        raise CodeError(Fault("spec.codeVersion", f"is {wanted}, but the code here is {found}.", RENEW))
    files = _command_files(spec, folder) if listed is None else _module_files(listed)
    return wanted.removeprefix("source:"), _zip(files)


@dataclass
class _Files:
    """data: bytes by path in the archive. roots: folders of it to put on sys.path. modes: of what can be executed."""

    data: dict[str, bytes]
    roots: tuple[str, ...] = ()
    executable: frozenset[str] = frozenset()


def _command_files(spec: ExperimentSpec, folder: Path) -> _Files:
    names = [name for name, _ in globbed(spec.code, folder, "spec.code")]
    data = {name: (folder / name).read_bytes() for name in names}
    return _Files(data, executable=frozenset(name for name in names if os.access(folder / name, os.X_OK)))


def _module_files(listed: SourceList) -> _Files:
    placed = [(_root(name, spec), _tail(name, spec), spec, data) for name, spec, data in locate(listed)]
    roots = {root for root, *_ in placed if root is not None}
    settings = listed.settings
    home = settings.file.parent.absolute() if settings.file.name else None
    base = Path(os.path.commonpath([*map(str, roots), *([str(home)] if home is not None else [])] or ["/"]))

    def inside(path: Path | None) -> PurePosixPath:
        return PurePosixPath(_APART) if path is None else PurePosixPath(path.relative_to(base).as_posix())

    files = {str(inside(root) / tail): data for root, tail, _, data in placed}
    if home is not None:
        for name, _ in globbed(settings.data, home, f"{settings.table}data"):
            files[str(inside(home) / name)] = (home / name).read_bytes()
    files |= _settings_file(settings, inside(home) if home is not None else PurePosixPath())
    return _Files(files, roots=tuple(sorted({str(inside(root)) for root, *_ in placed})))


def _tail(name: str, spec: ModuleSpec) -> PurePosixPath:
    """`pkg/__init__.py`, `pkg/module.py`, `pkg/module.cpython-311-x86_64-linux-gnu.so`."""
    parts = name.split(".")
    folders = parts if spec.submodule_search_locations is not None else parts[:-1]
    return PurePosixPath(*folders, Path(spec.origin or "").name)


def _root(name: str, spec: ModuleSpec) -> Path | None:
    """The folder below which an import found the module; None where its path is not made of its name."""
    origin, tail = Path(spec.origin or "").absolute(), _tail(name, spec)
    return origin.parents[len(tail.parts) - 1] if origin.parts[-len(tail.parts) :] == tail.parts else None


def _settings_file(settings: CodeSettings, home: PurePosixPath) -> dict[str, bytes]:
    """So that the digest is computed by the same settings; always, lest another file above be taken for it."""
    lists = {"include": settings.include, "exclude": settings.exclude[len(NEVER) :], "data": settings.data}
    table = "".join(f"{name} = {json.dumps(list(value))}\n" for name, value in lists.items())  # JSON is TOML here
    if settings.file.name == IN_PACKAGE:
        return {str(home / IN_PACKAGE): table.encode()}
    return {str(home / "pyproject.toml"): f"[tool.runonce.code]\n{table}".encode()}


def _zip(files: _Files) -> bytes:
    size = sum(map(len, files.data.values()))
    if size > MAX_BYTES:
        what = f"are {size / 2**20:.0f} MiB; code of at most {MAX_BYTES // 2**20} MiB can be sent."
        raise CodeError(Fault("the files of codeVersion", what, "Build an image, or keep data apart from code."))
    out = io.BytesIO()
    index = json.dumps({"format": 1, "path": list(files.roots)})
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in [(_INDEX, index.encode()), *sorted(files.data.items())]:
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (stat.S_IFREG | (0o755 if name in files.executable else 0o644)) << 16
            archive.writestr(info, data)
    return out.getvalue()


def with_nonce(archive: bytes) -> bytes:
    """The same archive in other bytes: sent again, it is not the old one that a collector saw, and may delete."""
    out = io.BytesIO(archive)
    with zipfile.ZipFile(out, "a") as opened:
        opened.comment = uuid.uuid4().hex.encode()
    return out.getvalue()


def unpack(data: bytes, folder: Path, *, name: str) -> Unpacked:
    """Write an archive's files below `folder`. name: of the archive, for messages. Raises Damaged."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = list(_entries(archive))
            index = json.loads(archive.read(_INDEX))
            for info, path in entries:
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(info))
                target.chmod(0o755 if info.external_attr >> 16 & 0o100 else 0o644)
            roots = tuple(str(folder / _safe(root)) for root in index["path"])
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError, NotImplementedError) as error:
        raise Damaged(f"{name} is no archive of code: {error}.") from error
    return Unpacked(folder, roots)


def _entries(archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, PurePosixPath]]:
    if sum(info.file_size for info in archive.infolist()) > 2 * MAX_BYTES:
        raise ValueError("it is larger than any that is made")
    for info in archive.infolist():
        if info.filename != _INDEX:
            yield info, _safe(info.filename)


def _safe(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name:
        raise ValueError(f"it names {name!r}, which is not below it")
    return path
