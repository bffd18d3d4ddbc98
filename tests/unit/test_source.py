"""The code version: what belongs to it and what does not, wherever the code lies, without running any of it."""

from __future__ import annotations

import os
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import pytest
from runonce.author.source import SourceList, closure, command_digest, explain_mismatch, unhashed
from runonce.author.version import named_modules
from runonce.errors import CodeError

ENGINE = 1


@pytest.fixture
def code(tmp_path):
    """Writes modules below tmp_path/code; a file that is run would leave `ran` there."""

    def write(**files: str) -> Path:
        folder = tmp_path / "code"
        for name, text in files.items():
            path = folder / (name.replace("__init__", "\0").replace("__", "/").replace("\0", "__init__") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return folder

    return write


def listed(folder: Path, entry: str, **options) -> SourceList:
    return closure(entry, search=[str(folder)], engine=ENGINE, **options)


def names(found: SourceList) -> list[str]:
    return [name for name, _ in found.modules]


RAN = "import pathlib; pathlib.Path(__file__).with_name('ran').write_text('')\n"


def test_nothing_is_run(code):
    folder = code(main=RAN + "import helper", helper=RAN)
    assert names(listed(folder, "main")) == ["helper", "main", "runonce:engine"]
    assert not list(folder.glob("ran"))
    assert "helper" not in sys.modules


def test_a_single_file_module(code):
    found = listed(code(main="x = 1"), "main")
    assert (names(found), found.packages) == (["main", "runonce:engine"], ("main",))


def test_a_sibling_package_counts_with_the_inits_of_its_parents(code):
    folder = code(main="import other.deep.leaf", other____init__="", other__deep____init__="", other__deep__leaf="", other__deep__unused="")
    found = listed(folder, "main")
    assert names(found) == ["main", "other", "other.deep", "other.deep.leaf", "runonce:engine"]
    assert found.packages == ("main", "other")


def test_a_namespace_package_has_no_text_of_its_own(code):
    folder = code(main="import space.inner.leaf", space__inner__leaf="x = 1")
    assert names(listed(folder, "main")) == ["main", "runonce:engine", "space.inner.leaf"]


@pytest.mark.parametrize(
    ("statement", "reached"),
    [
        ("import pkg.a", ["pkg.a"]),
        ("from pkg import a", ["pkg.a"]),
        ("from pkg.a import x", ["pkg.a"]),
        ("from pkg import a as b, c", ["pkg.a", "pkg.c"]),
        ("from pkg.a import *", ["pkg.a"]),
        ("from . import a", ["pkg.a"]),
        ("from .a import x", ["pkg.a"]),
        ("from .sub import leaf", ["pkg.sub", "pkg.sub.leaf"]),
        ("def f():\n    import pkg.a", ["pkg.a"]),
        ("class C:\n    def f(self):\n        from . import c", ["pkg.c"]),
        ("try:\n    import pkg.fast\nexcept ImportError:\n    import pkg.a", ["pkg.a"]),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pkg.a", ["pkg.a"]),
        ("from ..... import nowhere", []),
        ("import numpy, json, no_such_thing", []),
    ],
)
def test_every_kind_of_import_statement_is_followed(code, statement, reached):
    folder = code(
        pkg____init__="", pkg__main=statement, pkg__a="x = 1", pkg__c="", pkg__sub____init__="", pkg__sub__leaf=""
    )
    assert names(listed(folder, "pkg.main")) == sorted(["pkg", "pkg.main", "runonce:engine", *reached])


def test_a_relative_import_in_a_package_is_relative_to_it(code):
    folder = code(pkg____init__="from .a import x", pkg__a="from .b import y", pkg__b="")
    assert names(listed(folder, "pkg")) == ["pkg", "pkg.a", "pkg.b", "runonce:engine"]


def test_modules_that_import_each_other(code):
    folder = code(one="import two", two="import one")
    assert names(listed(folder, "one")) == ["one", "runonce:engine", "two"]


def test_an_edit_counts_where_it_is_reached_and_nowhere_else(code):
    folder = code(pkg____init__="", pkg__main="import pkg.a", pkg__a="import pkg.b", pkg__b="x = 1", pkg__unrelated="")
    before = listed(folder, "pkg.main").digest()
    code(pkg__unrelated="x = 2", other="y = 1")
    assert listed(folder, "pkg.main").digest() == before
    code(pkg__b="x = 2")
    assert listed(folder, "pkg.main").digest() != before


def test_the_place_of_the_code_does_not_count(code, tmp_path):
    folder = code(pkg____init__="", pkg__main="from . import a", pkg__a="")
    before = listed(folder, "pkg.main").digest()
    moved = tmp_path / "elsewhere" / "src"
    moved.parent.mkdir()
    folder.rename(moved)
    assert listed(moved, "pkg.main").digest() == before


def test_line_ends_and_byte_order_marks_do_not_count(code):
    folder = code(main="x = 'ä'\ny = 1\n")
    before = listed(folder, "main").digest()
    for data in ("x = 'ä'\r\ny = 1\r\n".encode(), b"\xef\xbb\xbf" + "x = 'ä'\ny = 1\n".encode()):
        (folder / "main.py").write_bytes(data)
        assert listed(folder, "main").digest() == before


def test_a_text_in_another_encoding_is_read_by_its_own_word(code):
    folder = code()
    folder.mkdir()
    (folder / "main.py").write_bytes("# coding: latin-1\nx = 'ä'\n".encode("latin-1"))
    before = listed(folder, "main").digest()
    (folder / "main.py").write_bytes("# coding: latin-1\nx = 'ö'\n".encode("latin-1"))
    assert listed(folder, "main").digest() != before


def test_a_link_counts_as_what_it_leads_to(code, tmp_path):
    folder = code(main="import helper", helper="x = 1")
    before = listed(folder, "main").digest()
    (folder / "helper.py").rename(tmp_path / "real.py")
    (folder / "helper.py").symlink_to(tmp_path / "real.py")
    assert listed(folder, "main").digest() == before


def test_code_in_a_zip_has_the_same_version(code, tmp_path):
    folder = code(pkg____init__="", pkg__main="from . import a", pkg__a="x = 1")
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        for path in folder.rglob("*.py"):
            archive.write(path, path.relative_to(folder))
    found = closure("pkg.main", search=[str(tmp_path / "code.zip")], engine=ENGINE)
    assert found.digest() == listed(folder, "pkg.main").digest()


def test_an_installed_copy_has_the_version_of_the_working_copy(code, tmp_path):
    """As from a wheel: in site-packages nothing counts as the author's unless codePackages says so."""
    folder = code(pkg____init__="", pkg__main="import shared, yours", shared="x = 1")
    here = listed(folder, "pkg.main")
    site = tmp_path / "lib" / "site-packages"
    site.parent.mkdir()
    folder.rename(site)
    (site / "yours.py").write_text("somebody else's")
    assert here.packages == ("pkg", "shared")
    assert listed(site, "pkg.main", packages=here.packages).digest() == here.digest()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A project with src layout, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "src" / "wheeled").mkdir(parents=True)
    (folder / "src" / "wheeled" / "__init__.py").write_text("")
    (folder / "src" / "wheeled" / "main.py").write_text("from . import a\n")
    (folder / "src" / "wheeled" / "a.py").write_text("x = 1\n")
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "wheeled"\nversion = "1"\n[tool.hatch.build.targets.wheel]\npackages = ["src/wheeled"]\n'
    )
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"]
    subprocess.run(build, cwd=folder, check=True, capture_output=True)
    return folder, next((folder / "dist").glob("*.whl"))


CLOSURE = "import sys; from runonce.author.source import closure; print(closure('wheeled.main', engine=1, packages=eval(sys.argv[1])).digest())"


def test_wheel_editable_install_and_source_layout_agree(wheel, tmp_path):
    folder, built = wheel
    here = closure("wheeled.main", search=[str(folder / "src")], engine=ENGINE)
    site, editable = tmp_path / "site-packages", tmp_path / "editable"
    with zipfile.ZipFile(built) as archive:
        archive.extractall(site)
    editable.mkdir()
    (editable / "wheeled.pth").write_text(str(folder / "src"))
    for setup, packages in (
        (f"import sys; sys.path.insert(0, {str(site)!r})", ["wheeled"]),
        (f"import site; site.addsitedir({str(editable)!r})", None),
    ):
        done = subprocess.run(
            [sys.executable, "-c", f"{setup}\n{CLOSURE}", repr(packages)], capture_output=True, text=True, cwd="/"
        )
        assert done.stdout.strip() == here.digest(), done.stderr


FINDER = """
import importlib.machinery, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "wheeled":
            where = {where!r} + "/wheeled/__init__.py"
            return importlib.util.spec_from_file_location(name, where, submodule_search_locations=[{where!r} + "/wheeled"])
import importlib.util
sys.meta_path.append(Finder)
"""


def test_an_editable_install_by_a_finder_is_found(wheel):
    folder, _ = wheel
    here = closure("wheeled.main", search=[str(folder / "src")], engine=ENGINE)
    text = FINDER.format(where=str(folder / "src")) + CLOSURE
    done = subprocess.run([sys.executable, "-c", text, "None"], capture_output=True, text=True, cwd="/")
    assert done.stdout.strip() == here.digest(), done.stderr


def test_the_version_file_of_a_build_tool_does_not_count(code):
    folder = code(pkg____init__="from ._version import version", pkg___version="version = 1")
    (folder / "pkg" / "_version.py").write_text("version = 1")
    before = listed(folder, "pkg").digest()
    (folder / "pkg" / "_version.py").write_text("version = 2")
    assert listed(folder, "pkg").digest() == before


def test_a_generated_file_counts_from_when_it_is_there(code):
    folder = code(pkg____init__="try:\n    from . import generated\nexcept ImportError:\n    pass")
    before = listed(folder, "pkg").digest()
    code(pkg__generated="x = 1")
    assert listed(folder, "pkg").digest() != before


def test_a_dynamic_import_is_seen_when_it_was_made_and_the_setting_covers_it(code):
    folder = code(pkg____init__="import importlib", pkg__plugins____init__="", pkg__plugins__one="", pkg__plugins__two="")
    loaded = {name: _loaded(name) for name in ("pkg", "pkg.plugins", "pkg.plugins.one", "json", "runonce")}
    assert unhashed(loaded, listed(folder, "pkg")) == ["pkg.plugins", "pkg.plugins.one"]
    (folder / "pyproject.toml").write_text('[tool.runonce.code]\ninclude = ["pkg.plugins.*"]\n')
    found = listed(folder, "pkg")
    assert names(found) == ["pkg", "pkg.plugins", "pkg.plugins.one", "pkg.plugins.two", "runonce:engine"]
    assert unhashed(loaded, found) == []


def _loaded(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__spec__ = types.SimpleNamespace(origin=f"/{name}.py")
    return module


def test_a_namespace_and_an_excluded_module_are_not_missed(code):
    folder = code(pkg____init__="")
    found = listed(folder, "pkg")
    space = types.ModuleType("pkg.space")
    space.__spec__ = types.SimpleNamespace(origin=None)
    assert unhashed({"pkg.space": space, "pkg._version": _loaded("pkg._version")}, found) == []


def test_settings_exclude_modules_and_count_data_files(code):
    folder = code(pkg____init__="from . import a, b", pkg__a="", pkg__b="")
    (folder / "table.csv").write_text("1,2")
    (folder / "pyproject.toml").write_text('[tool.runonce.code]\nexclude = ["pkg.b"]\ndata = ["*.csv"]\n')
    found = listed(folder, "pkg")
    assert names(found) == ["data:table.csv", "pkg", "pkg.a", "runonce:engine"]
    (folder / "table.csv").write_text("1,3")
    assert listed(folder, "pkg").digest() != found.digest()


def test_settings_in_the_package_go_with_its_wheel_and_win(code):
    folder = code(pkg____init__="", pkg__hidden="")
    (folder / "pyproject.toml").write_text('[tool.runonce.code]\ninclude = ["pkg.nowhere"]\n')
    (folder / "pkg" / "runonce-code.toml").write_text('include = ["pkg.hidden"]\n')
    assert names(listed(folder, "pkg")) == ["pkg", "pkg.hidden", "runonce:engine"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('includes = ["pkg.a"]', "tool.runonce.code.includes: is no setting. Did you mean include"),
        ('include = "pkg.a"', "tool.runonce.code.include: is 'pkg.a'; a list of texts is meant"),
        ('include = ["pkg.nowhere"]', "include: pkg.nowhere: is no module here"),
        ('include = ["pkg.no*"]', "include: pkg.no*: is no module here"),
        ('data = ["*.csv"]', "data[0]: names no file: '*.csv'"),
        ('data = ["../*"]', "which leads out of"),
        ("include = [", "cannot be read"),
    ],
)
def test_settings_that_cannot_be_are_refused(code, text, message):
    folder = code(pkg____init__="")
    (folder / "pyproject.toml").write_text(f"[tool.runonce.code]\n{text}\n")
    with pytest.raises(CodeError) as caught:
        listed(folder, "pkg")
    assert message in str(caught.value)


def test_an_entry_that_is_not_there_says_where_was_looked(code):
    with pytest.raises(CodeError) as caught:
        listed(code(main=""), "nowhere.main")
    assert "there is no module nowhere.main here (looked in" in str(caught.value)


@pytest.mark.parametrize(("data", "message"), [(b"def (", "module main, line 1, is no Python"), (b"\xff", "is no text that Python")])
def test_a_module_that_python_could_not_read_is_named(code, data, message):
    folder = code(main="")
    (folder / "main.py").write_bytes(data)
    with pytest.raises(CodeError) as caught:
        listed(folder, "main")
    assert message in str(caught.value)


def test_types_in_parameters_count_with_their_modules(code):
    folder = code(main="", optimizers="x = 1")
    params = {"a": {"$type": "optimizers:Lion", "value": {}}, "b": [{"$ref": "numpy:sum"}, {"$ref": "main:f"}]}
    assert named_modules(params) == ["main", "numpy", "optimizers"]
    found = listed(folder, "main", also=named_modules(params))
    assert names(found) == ["main", "optimizers", "runonce:engine"]


def test_the_engine_counts(code):
    folder = code(main="")
    assert closure("main", search=[str(folder)], engine=1) != closure("main", search=[str(folder)], engine=2)


def test_extension_modules_count_by_their_bytes(code):
    import importlib.machinery

    folder = code(main="import fast")
    binary = folder / f"fast{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    binary.write_bytes(b"one")
    before = listed(folder, "main")
    assert names(before) == ["fast", "main", "runonce:engine"]
    binary.write_bytes(b"two")
    assert listed(folder, "main").digest() != before.digest()


def test_a_mismatch_names_its_modules():
    wanted = SourceList((("a", "1"), ("b", "1"), ("c", "1")), ("a",))
    found = SourceList((("a", "2"), ("b", "1"), ("d", "1")), ("a",))
    assert explain_mismatch(wanted, found) == "changed: a; new: d; gone: c."
    many = SourceList(tuple((f"m{i}", "1") for i in range(7)), ())
    assert explain_mismatch(SourceList((), ()), many) == "new: m0, m1, m2, m3, m4 and 2 more."


# --- commands ---


def test_a_command_counts_the_files_that_its_globs_name(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "run.sh").write_text("echo")
    (tmp_path / "src" / "a.c").write_text("int a;")
    before = command_digest(["*.sh", "src/**/*.c"], tmp_path)
    assert command_digest(["src/*.c", "run.sh", "*.sh"], tmp_path) == before
    (tmp_path / "notes.txt").write_text("")
    assert command_digest(["*.sh", "src/**/*.c"], tmp_path) == before
    (tmp_path / "src" / "a.c").rename(tmp_path / "src" / "b.c")
    assert command_digest(["*.sh", "src/**/*.c"], tmp_path) != before


def test_globs_that_name_nothing_or_lead_out_are_refused_together(tmp_path):
    with pytest.raises(CodeError) as caught:
        command_digest(["*.sh", "/etc/passwd", "../x", ""], tmp_path)
    assert [fault.path for fault in caught.value.faults] == [f"spec.code[{i}]" for i in range(4)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything, so no file is unreadable for it")
def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "run.sh").write_text("")
    (tmp_path / "run.sh").chmod(0)
    with pytest.raises(CodeError, match="cannot be read"):
        command_digest(["*.sh"], tmp_path)
