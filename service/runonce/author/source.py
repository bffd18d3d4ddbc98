"""The code that a result depends on: the modules along import statements, found and hashed without running any.

Settings, for what no import statement shows, stand in `runonce-code.toml` in the entry's top-level package (so that a
wheel carries them), else under `[tool.runonce.code]` in the nearest pyproject.toml above it: `include` and `exclude`
take names of modules (`*` for any part), `data` takes globs relative to the file that holds the settings.
"""

from __future__ import annotations

import ast
import hashlib
import io
import sys
import sysconfig
import tokenize
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from runonce.errors import CodeError, Fault
from runonce.experiment.canonical import digest
from runonce.experiment.render_types import near

SETTINGS_IN_PACKAGE = "runonce-code.toml"
NEVER = ("*._version",)  # written by build tools anew for each build

_SETTINGS = ("include", "exclude", "data")
_SHOWN = 5


@dataclass(frozen=True)
class SourceList:
    """modules: (name, sha256 of its text) by name, data files as `data:<path>`, and the engine. packages: top-level
    names that count as the author's. excluded: patterns of modules that do not count.
    """

    modules: tuple[tuple[str, str], ...]
    packages: tuple[str, ...]
    excluded: tuple[str, ...] = NEVER

    def digest(self) -> str:
        return digest([list(entry) for entry in self.modules])


@dataclass(frozen=True)
class _Settings:
    folder: Path | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = NEVER
    data: tuple[str, ...] = ()


def closure(
    entry_module: str,
    *,
    also: Sequence[str] = (),
    packages: Sequence[str] | None = None,
    search: Sequence[str] | None = None,
    engine: int,
) -> SourceList:
    """Everything that `entry_module` may import from the author's packages, parents' `__init__` included.

    also: more modules to begin with; those of other packages do not count. packages: the author's top-level names;
    None: the entry's own, and those reached that are not installed. search: as sys.path, which it is by default.
    Raises CodeError when the entry or an included module is not there, or a module cannot be read.
    """
    walk = _Walk(tuple(search if search is not None else sys.path), packages)
    own = entry_module.partition(".")[0]
    walk.packages.setdefault(own, packages is None or own in packages)
    spec = walk.find(entry_module)
    if spec is None:
        raise CodeError(
            Fault(
                "",
                f"there is no module {entry_module} here (looked in {', '.join(_shown_path(walk.search))}).",
                "Start in the folder that holds it, or install the package that does.",
            )
        )
    settings = _read_settings(spec, walk.find(own))
    walk.excluded = settings.exclude
    walk.add(entry_module)
    for name in also:
        walk.add(name)
    _include(walk, settings)
    walk.run()
    entries = {**walk.hashes, **_data(settings), "runonce:engine": str(engine)}
    author = sorted(name for name, counts in walk.packages.items() if counts and name in walk.reached)
    return SourceList(tuple(sorted(entries.items())), tuple(author), settings.exclude)


@dataclass
class _Walk:
    """Breadth-first over module names; `packages` remembers which top-level names are the author's."""

    search: tuple[str, ...]
    given: Sequence[str] | None
    packages: dict[str, bool] = field(default_factory=dict)
    reached: set[str] = field(default_factory=set)
    hashes: dict[str, str] = field(default_factory=dict)
    excluded: tuple[str, ...] = NEVER
    _specs: dict[str, ModuleSpec | None] = field(default_factory=dict)
    _waiting: list[str] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def find(self, name: str) -> ModuleSpec | None:
        """The module's spec, level by level: `importlib.util.find_spec("a.b")` would import a."""
        if name not in self._specs:
            parent, _, last = name.rpartition(".")
            above = self.find(parent) if parent else None
            if parent and (above is None or above.submodule_search_locations is None):
                self._specs[name] = None
            else:
                folders = _folders(above) if above else list(self.search)
                # By its last name alone: of a longer one a namespace would ask for the imported parent.
                found = PathFinder.find_spec(last, folders)
                self._specs[name] = found or (None if parent else _ask_finders(name))
        return self._specs[name]

    def is_author(self, name: str) -> bool:
        top = name.partition(".")[0]
        if top not in self.packages:
            if self.given is not None:
                self.packages[top] = top in self.given
            else:
                self.packages[top] = top not in ("runonce", *sys.stdlib_module_names) and not _installed(self.find(top))
        return self.packages[top]

    def add(self, name: str) -> bool:
        """Put a module and its parents on the way; False when it is no module of the author's."""
        if name in self._seen:
            return True
        if not self.is_author(name) or self.find(name) is None:
            return False
        self._seen.add(name)
        self._waiting.append(name)
        self.reached.add(name.partition(".")[0])
        parent = name.rpartition(".")[0]
        if parent:
            self.add(parent)
        return True

    def run(self) -> None:
        while self._waiting:
            name = self._waiting.pop()
            if any(fnmatchcase(name, pattern) for pattern in self.excluded):
                continue
            data = _data_of(self.find(name))
            if data is None:
                continue  # a namespace has no text of its own
            if isinstance(data, str):
                self.hashes[name] = hashlib.sha256(data.encode()).hexdigest()
                for imported in _imports(name, data, self._is_package(name)):
                    self.add(imported)
            else:
                self.hashes[name] = hashlib.sha256(data).hexdigest()

    def _is_package(self, name: str) -> bool:
        spec = self.find(name)
        return spec is not None and spec.submodule_search_locations is not None

    def below(self, name: str) -> Iterator[str]:
        """All modules of a package on the disk, for patterns in `include`."""
        spec = self.find(name)
        for folder in _folders(spec):
            for path in sorted(Path(folder).rglob("*")):
                parts = path.relative_to(folder).with_suffix("").parts
                if path.suffix == ".py" and all(part.isidentifier() for part in parts):
                    yield ".".join((name, *(parts[:-1] if parts[-1] == "__init__" else parts)))


def _folders(spec: ModuleSpec | None) -> list[str]:
    """Where a package's modules lie. A namespace would work them out anew, from modules that are not imported."""
    places: Any = spec.submodule_search_locations if spec is not None else None
    return list(getattr(places, "_path", places) or ())


def _ask_finders(name: str) -> ModuleSpec | None:
    """Editable installs put finders of their own into sys.meta_path; a top-level name imports nothing."""
    for finder in sys.meta_path:
        if finder is PathFinder or getattr(finder, "__module__", "").startswith(("_frozen_importlib", "_pytest")):
            continue
        find_spec = getattr(finder, "find_spec", None)
        found: ModuleSpec | None = find_spec(name, None, None) if find_spec is not None else None
        if found is not None:
            return found
    return None


@lru_cache(maxsize=1)
def _installed_folders() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({Path(sysconfig.get_path(name)).resolve() for name in names})


def _installed(spec: ModuleSpec | None) -> bool:
    """Whether a top-level module was installed as a copy, or is a part of Python; unknown ones count as neither."""
    if spec is None:
        return True
    places = [Path(place) for place in (_folders(spec) or [spec.origin or ""])]
    return any(
        {"site-packages", "dist-packages"} & set(place.parts)
        or any(place.resolve().is_relative_to(folder) for folder in _installed_folders())
        for place in places
    )


def _data_of(spec: ModuleSpec | None) -> str | bytes | None:
    """A module's text in one spelling whatever the platform; the bytes of one without text; None for a namespace."""
    if spec is None or spec.loader is None or spec.origin is None:
        return None
    loader: Any = spec.loader
    if not hasattr(loader, "get_data") or not hasattr(loader, "get_filename"):
        return None
    path = loader.get_filename(spec.name)
    try:
        data: bytes = loader.get_data(path)
    except OSError as error:
        raise CodeError(Fault("", f"{path} cannot be read: {error.strerror}.", "Make it readable.")) from error
    if isinstance(loader, ExtensionFileLoader) or not path.endswith(".py"):
        return data
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise CodeError(
            Fault("", f"{path} is no text that Python could read: {error}.", "Save it as UTF-8.")
        ) from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _imports(name: str, text: str, is_package: bool) -> Iterator[str]:
    """Every module that an import statement may mean, wherever it stands; of `from a import b` also `a.b`."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise CodeError(
            Fault("", f"module {name}, line {error.lineno}, is no Python: {error.msg}.", "Mend the module.")
        ) from error
    package = name.split(".") if is_package else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            if node.level and not above:
                continue  # would fail at run time too
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def _read_settings(entry: ModuleSpec, top: ModuleSpec | None) -> _Settings:
    places = _folders(top)
    for place in places:
        path = Path(place) / SETTINGS_IN_PACKAGE
        if path.is_file():
            return _parse_settings(_toml(path), path)
    origin = entry.origin or (places[0] if places else "")
    for folder in Path(origin).absolute().parents:
        path = folder / "pyproject.toml"
        if path.is_file():
            table = _toml(path).get("tool", {}).get("runonce", {}).get("code", {})
            return _parse_settings(table, path)
    return _Settings()


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CodeError(Fault("", f"{path} cannot be read: {error}.", "Mend it.")) from error


def _parse_settings(table: Any, path: Path) -> _Settings:
    faults = []
    lead = f"{path}: tool.runonce.code" if path.name == "pyproject.toml" else str(path)
    if not isinstance(table, dict):
        raise CodeError(Fault(lead, "is no table.", "Write include = [\u2026] in it."))
    for name, value in table.items():
        if name not in _SETTINGS:
            faults.append(Fault(f"{lead}.{name}", "is no setting.", near(name, _SETTINGS)))
        elif not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            faults.append(Fault(f"{lead}.{name}", f"is {value!r}; a list of texts is meant."))
    if faults:
        raise CodeError(*faults)
    return _Settings(
        path.parent,
        tuple(table.get("include", ())),
        (*NEVER, *table.get("exclude", ())),
        tuple(table.get("data", ())),
    )


def _include(walk: _Walk, settings: _Settings) -> None:
    faults = []
    for pattern in settings.include:
        walk.packages.setdefault(
            pattern.partition(".")[0], walk.given is None or pattern.partition(".")[0] in walk.given
        )
        if "*" in pattern:
            start = pattern.partition("*")[0].rpartition(".")[0]
            found = [name for name in walk.below(start) if fnmatchcase(name, pattern)] if start else []
        else:
            found = [pattern] if walk.find(pattern) is not None else []
        if not found:
            faults.append(Fault(f"include: {pattern}", "is no module here.", "Correct or remove it."))
        for name in found:
            walk.add(name)
    if faults:
        raise CodeError(*faults)


def _data(settings: _Settings) -> dict[str, str]:
    if not settings.data or settings.folder is None:
        return {}
    return {f"data:{name}": sha256 for name, sha256 in _globbed(settings.data, settings.folder, "data")}


def command_digest(globs: Sequence[str], root: Path) -> str:
    """Over sorted POSIX path (relative to `root`) and sha256 of each file that a glob names. Raises CodeError."""
    return digest([list(entry) for entry in _globbed(globs, root, "spec.code")])


def _globbed(globs: Sequence[str], root: Path, what: str) -> list[tuple[str, str]]:
    """Files by name; a link counts as what it leads to, a folder not at all."""
    found: dict[str, str] = {}
    faults = []
    for position, glob in enumerate(globs):
        where = f"{what}[{position}]"
        if not glob or glob.startswith("/") or ".." in Path(glob).parts:
            faults.append(Fault(where, f"is {glob!r}, which leads out of {root}.", "Write a path below it."))
            continue
        paths = [path for path in root.glob(glob) if path.is_file()]
        if not paths:
            faults.append(Fault(where, f"names no file: {glob!r}, below {root}.", "Correct or remove it."))
        for path in paths:
            try:
                data = path.read_bytes()
            except OSError as error:
                faults.append(Fault(where, f"names {path}, which cannot be read: {error.strerror}."))
                continue
            found[path.relative_to(root).as_posix()] = hashlib.sha256(data).hexdigest()
    if faults:
        raise CodeError(*faults)
    return sorted(found.items())


def unhashed(modules: Mapping[str, Any], listed: SourceList) -> list[str]:
    """Imported modules of the author's packages that the digest does not cover."""
    known = {name for name, _ in listed.modules}
    return sorted(
        name
        for name, module in modules.items()
        if name.partition(".")[0] in listed.packages
        and name not in known
        and getattr(getattr(module, "__spec__", None), "origin", None) not in (None, "namespace")
        and not any(fnmatchcase(name, pattern) for pattern in listed.excluded)
    )


def explain_mismatch(wanted: SourceList, found: SourceList) -> str:
    """Which modules make the difference, at most five of each kind."""
    before, now = dict(wanted.modules), dict(found.modules)
    kinds = {
        "changed": [name for name in before if name in now and before[name] != now[name]],
        "new": [name for name in now if name not in before],
        "gone": [name for name in before if name not in now],
    }
    return "; ".join(f"{kind}: {_few(names)}" for kind, names in kinds.items() if names) + "."


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _shown_path(search: Iterable[str]) -> list[str]:
    own = [path or "." for path in search if "python3" not in path and not path.endswith(".zip")]
    return own[:3] or ["no folder"]
