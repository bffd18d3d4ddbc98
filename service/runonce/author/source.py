"""The code that a result depends on: the modules along import statements, found and hashed without running any.

Settings, for what no import statement shows, stand in `runonce-code.toml` in the entry's package (so that a wheel
carries them), else under `[tool.runonce.code]` in the nearest pyproject.toml above the entry; above site-packages none
is looked for, so a project that installs its code writes the first. `include` and `exclude` take names of modules (`*`
for any part), `data` takes globs relative to the file that holds the settings.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import io
import os
import pkgutil
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from os.path import exists
from pathlib import Path
from typing import Any

from runonce.author.code_settings import IN_PACKAGE, NEVER, CodeSettings, from_package, from_project
from runonce.author.globs import globbed
from runonce.errors import CodeError, Fault
from runonce.experiment.canonical import digest

_SHOWN = 5


@dataclass(frozen=True)
class SourceList:
    """modules: (name, sha256 of its text) by name, data files as `data:<path>`, and the engine. packages: top-level
    names that count as the author's. excluded: patterns of modules that do not count, uncounted: those of them that an
    import statement reaches. settings: what the author says of the code, and where.
    """

    modules: tuple[tuple[str, str], ...]
    packages: tuple[str, ...]
    excluded: tuple[str, ...] = NEVER
    uncounted: tuple[str, ...] = ()
    settings: CodeSettings = field(default_factory=CodeSettings, compare=False)

    def digest(self) -> str:
        return digest([list(entry) for entry in self.modules])


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
    None: those reached that are not installed. The entry's own, and those that `include` names, count in any case.
    search: as sys.path, which it is by default, so that what is hashed is what an import would load.
    Raises CodeError when the entry or an included module is not there, or a module cannot be read.
    """
    importlib.invalidate_caches()  # a file that was written a moment ago is there
    walk = _Walk(tuple(search if search is not None else sys.path), packages)
    spec = walk.find(entry_module)
    if spec is None or not spec.has_location:
        raise CodeError(_not_there(entry_module, spec, walk.search))
    walk.packages[entry_module.partition(".")[0]] = True
    settings = _read_settings(walk, entry_module, spec)
    walk.excluded = settings.exclude
    for name in (entry_module, *also):
        walk.add(name)
    _include(walk, settings)
    walk.run()
    entries = {**walk.hashes, **data_files(settings), "runonce:engine": str(engine)}
    author = sorted(name for name, counts in walk.packages.items() if counts and name in walk.reached)
    modules = tuple(sorted(entries.items()))
    return SourceList(modules, tuple(author), settings.exclude, tuple(sorted(walk.uncounted)), settings)


def locate(listed: SourceList, search: Sequence[str] | None = None) -> Iterator[tuple[str, ModuleSpec, bytes]]:
    """Every module of the list that has a file, and those that do not count, with its bytes as they lie here.

    search: as for `closure`.
    """
    walk = _Walk(tuple(search if search is not None else sys.path), listed.packages)
    for name in sorted({name for name, _ in listed.modules if ":" not in name} | {*listed.uncounted}):
        spec = walk.find(name)
        if spec is not None and spec.has_location and spec.origin is not None:
            yield name, spec, _read(spec, spec.origin)


def _not_there(name: str, spec: ModuleSpec | None, search: Sequence[str]) -> Fault:
    if spec is not None:
        return Fault("", f"{name} is a folder without __init__.py.", "Name the module in it that has the class.")
    own = [path or "." for path in search if exists(path or ".") and not _is_installed(path)]
    looked = few(own) or "no folder but those of installed packages"
    return Fault(
        "",
        f"there is no module {name} here (looked in {looked}).",
        "Start in the folder that holds it, or install the package that does.",
    )


@dataclass
class _Walk:
    """`packages` remembers which top-level names are the author's, `reached` which of them have modules here."""

    search: tuple[str, ...]
    given: Sequence[str] | None
    packages: dict[str, bool] = field(default_factory=dict)
    reached: set[str] = field(default_factory=set)
    hashes: dict[str, str] = field(default_factory=dict)
    excluded: tuple[str, ...] = NEVER
    uncounted: set[str] = field(default_factory=set)
    _specs: dict[str, ModuleSpec | None] = field(default_factory=dict)
    _waiting: list[str] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def find(self, name: str) -> ModuleSpec | None:
        """The module's spec, level by level: `importlib.util.find_spec("a.b")` would import a."""
        if name not in self._specs:
            parent = name.rpartition(".")[0]
            places = _places(self.find(parent)) if parent else None
            self._specs[name] = None if places == [] else _find_spec(name, places, self.search)
        return self._specs[name]

    def is_author(self, name: str) -> bool:
        top = name.partition(".")[0]
        if top not in self.packages:
            counts = top in self.given if self.given is not None else not _is_copy(self.find(top))
            self.packages[top] = counts and top != "runonce"
        return self.packages[top]

    def add(self, name: str) -> None:
        """Put a module on the way, and its parents, which an import runs even where the module is missing."""
        if name in self._seen or not self.is_author(name):
            return
        self._seen.add(name)
        parent = name.rpartition(".")[0]
        if parent:
            self.add(parent)
        if self.find(name) is not None:
            self._waiting.append(name)
            self.reached.add(name.partition(".")[0])

    def run(self) -> None:
        while self._waiting:
            name = self._waiting.pop()
            spec = self.find(name)
            if spec is None:
                continue
            if any(fnmatchcase(name, pattern) for pattern in self.excluded):
                self.uncounted.add(name)
                continue
            content = content_of(spec)
            if content is not None:  # a namespace has no text of its own
                self.hashes[name] = digest_of(content)
            if isinstance(content, str):
                for imported in _imports(name, _parse(spec, content), bool(_places(spec))):
                    self.add(imported)
                    if imported.endswith(".*"):
                        self._add_exported(imported[:-2])

    def _add_exported(self, package: str) -> None:
        """`from package import *` imports the modules that `__all__` names."""
        spec = self.find(package) if self.is_author(package) else None
        content = content_of(spec) if spec is not None and _places(spec) else None
        if spec is not None and isinstance(content, str):
            for name in _exported(_parse(spec, content)):
                self.add(f"{package}.{name}")

    def below(self, name: str) -> Iterator[str]:
        """All modules of a package that are there, for patterns in `include`."""
        places = _places(self.find(name))
        folders = {path.name for place in places for path in Path(place).glob("*") if path.is_dir()}
        modules = {info.name for info in pkgutil.iter_modules(places)}
        for child in sorted(modules | {folder for folder in folders - {"__pycache__"} if folder.isidentifier()}):
            yield f"{name}.{child}"
            yield from self.below(f"{name}.{child}")


def _places(spec: ModuleSpec | None) -> list[str]:
    """The folders of a package's modules; none for what is no package."""
    return list((spec.submodule_search_locations if spec is not None else None) or ())


def _find_spec(name: str, places: list[str] | None, search: Sequence[str]) -> ModuleSpec | None:
    """Ask the finders as an import would. places: the parent's; None for a top-level name.

    Editable installs have finders of their own. None of them imports the parent: the import system does that.
    """
    for finder in sys.meta_path:
        if finder is PathFinder:
            found = _find_along(name, search if places is None else places)
        else:
            find_spec: Any = getattr(finder, "find_spec", None)
            found = find_spec(name, places, None) if find_spec is not None else None
        if found is not None:
            return found
    return None


def _find_along(name: str, folders: Sequence[str]) -> ModuleSpec | None:
    """As PathFinder does; but its namespaces would work out their folders from the imported parent."""
    portions: list[str] = []
    for folder in folders:
        finder: Any = pkgutil.get_importer(folder or os.getcwd())
        found: ModuleSpec | None = finder.find_spec(name) if finder is not None else None
        if found is not None and found.loader is not None:
            return found
        portions += _places(found)
    if not portions:
        return None
    namespace = ModuleSpec(name, None, is_package=True)
    namespace.submodule_search_locations = portions
    return namespace


@lru_cache(maxsize=1)
def _installed_folders() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({Path(sysconfig.get_path(name)).resolve() for name in names})


def _is_installed(folder: str) -> bool:
    """A link from site-packages to a working copy leads out of it."""
    real = Path(folder).resolve()
    named = not {"site-packages", "dist-packages"}.isdisjoint(real.parts)
    return named or any(real.is_relative_to(installed) for installed in _installed_folders())


def _is_copy(spec: ModuleSpec | None) -> bool:
    """Whether a module was installed, or is a part of Python, or is not there; not so if any portion is here."""
    if spec is None:
        return True
    places = _places(spec) or ([str(Path(spec.origin).parent)] if spec.has_location and spec.origin else [])
    return all(_is_installed(place) for place in places)


def content_of(spec: ModuleSpec) -> str | bytes | None:
    """A module's text in one spelling whatever the platform; the bytes of one without text; None for a namespace."""
    path = spec.origin
    if not spec.has_location or path is None:
        return None
    try:
        data = _read(spec, path)
    except OSError as error:
        raise CodeError(Fault("", f"{path} cannot be read: {error}.", "Make it readable.")) from error
    if not path.endswith(".py"):
        return data
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise CodeError(
            Fault("", f"{path} is no text that Python could read: {error}.", "Save it as UTF-8.")
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def digest_of(content: str | bytes) -> str:
    """SHA-256 in hex of what a module consists of."""
    return hashlib.sha256(content.encode(errors="surrogatepass") if isinstance(content, str) else content).hexdigest()


def _read(spec: ModuleSpec, path: str) -> bytes:
    """Through the loader where it can, as a zip needs it."""
    get_data: Any = getattr(spec.loader, "get_data", None)
    data: bytes = get_data(path) if get_data is not None else Path(path).read_bytes()
    return data


def _parse(spec: ModuleSpec, text: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are told when the module is imported
            return ast.parse(text)
    except (SyntaxError, ValueError) as error:
        line, message = (error.lineno, error.msg) if isinstance(error, SyntaxError) else (1, str(error))
        what = f"module {spec.name}, line {line}, is no Python: {message} ({spec.origin})."
        raise CodeError(Fault("", what, "Mend the module.")) from error


def _imports(name: str, tree: ast.Module, is_package: bool) -> Iterator[str]:
    """Every module that an import statement may mean, wherever it stands; of `from a import b` also `a.b`."""
    package = name.split(".") if is_package else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: max(0, len(package) - node.level + 1)] if node.level else []
            if node.level and not above:
                continue  # would fail at run time too
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _exported(tree: ast.Module) -> Iterator[str]:
    """The texts that are put into `__all__`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        else:
            continue
        if node.value is not None and any(isinstance(one, ast.Name) and one.id == "__all__" for one in targets):
            parts = (part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant))
            yield from (part for part in parts if isinstance(part, str))


def _read_settings(walk: _Walk, entry_module: str, entry: ModuleSpec) -> CodeSettings:
    parts = entry_module.split(".")
    for length in range(1, len(parts) + 1):
        package = walk.find(".".join(parts[:length]))
        for place in _places(package):
            path = os.path.join(place, IN_PACKAGE)
            try:
                data = _read(package, path) if package is not None else b""
            except PermissionError as error:
                raise CodeError(Fault("", f"{path} cannot be read: {error}.", "Make it readable.")) from error
            except OSError:
                continue
            return from_package(data, Path(path))
    if not _is_copy(entry):
        for folder in Path(entry.origin or "").absolute().parents:
            found = from_project(folder)
            if found is not None:
                return found
    return CodeSettings()


def _include(walk: _Walk, settings: CodeSettings) -> None:
    faults = []
    for position, pattern in enumerate(settings.include):
        start = pattern.partition("*")[0].rpartition(".")[0]
        if "*" not in pattern:
            found = [pattern] if walk.find(pattern) is not None else []
        else:
            found = [name for name in walk.below(start) if fnmatchcase(name, pattern)] if start else []
        if not found:
            what = f"is {pattern}, and there is no such module here ({settings.file})."
            faults.append(Fault(f"{settings.table}include[{position}]", what, "Correct or remove it."))
        for name in found:
            walk.packages[name.partition(".")[0]] = True
            walk.add(name)
    if faults:
        raise CodeError(*faults)


def data_files(settings: CodeSettings) -> dict[str, str]:
    files = globbed(settings.data, settings.file.parent, f"{settings.table}data")
    return {f"data:{name}": sha256 for name, sha256 in files}


def unhashed(modules: Mapping[str, Any], listed: SourceList) -> list[str]:
    """Imported modules of the author's packages that the digest does not cover, by the name of their file."""
    known = {name for name, _ in listed.modules}
    found = set()
    for imported, module in list(modules.items()):  # another thread may import meanwhile
        if imported.partition(".")[0] in listed.packages:
            spec = getattr(module, "__spec__", None)
            name = getattr(spec, "name", imported)  # a module may stand there under a second name too
            if getattr(spec, "origin", None) is not None and name.partition(".")[0] in listed.packages:
                found.add(name)
    return sorted(name for name in found - known if not any(fnmatchcase(name, pattern) for pattern in listed.excluded))


def explain_mismatch(wanted: SourceList, found: SourceList) -> str:
    """Which modules make the difference, at most five of each kind."""
    before, now = dict(wanted.modules), dict(found.modules)
    kinds = {
        "changed": [name for name in before if name in now and before[name] != now[name]],
        "new": [name for name in now if name not in before],
        "gone": [name for name in before if name not in now],
    }
    return "; ".join(f"{kind}: {few(names)}" for kind, names in kinds.items() if names) + "."


def few(names: Sequence[str]) -> str:
    """For messages: the first of them, and how many more."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
