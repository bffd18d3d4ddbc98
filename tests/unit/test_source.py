"""The code version: what belongs to it and what does not, wherever the code lies, without running any of it."""

from __future__ import annotations

import os
import subprocess
import sys
import types
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path

import pytest

from runonce.author.globs import command_digest
from runonce.author.source import SourceList, closure, explain_mismatch, unhashed
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
    folder = code(
        main="import other.deep.leaf",
        other____init__="",
        other__deep____init__="",
        other__deep__leaf="",
        other__deep__unused="",
    )
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
        ("from .sub import *", ["pkg.sub", "pkg.sub.leaf"]),
        ("import pkg.sub.missing", ["pkg.sub"]),
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
        pkg____init__="",
        pkg__main=statement,
        pkg__a="x = 1",
        pkg__c="",
        pkg__sub____init__="__all__ = ['leaf', 'x']\nx = 1",
        pkg__sub__leaf="",
    )
    assert names(listed(folder, "pkg.main")) == sorted(["pkg", "pkg.main", "runonce:engine", *reached])


def test_a_relative_import_in_a_package_is_relative_to_it(code):
    folder = code(pkg____init__="from .a import x", pkg__a="from .b import y", pkg__b="")
    assert names(listed(folder, "pkg")) == ["pkg", "pkg.a", "pkg.b", "runonce:engine"]


def test_a_relative_import_from_above_the_package_reaches_nothing(code):
    folder = code(
        a____init__="",
        a__b____init__="",
        a__b__c____init__="",
        a__b__c__main="from ..... import x",
        a__x="",
        a__b__x="",
    )
    assert names(listed(folder, "a.b.c.main")) == ["a", "a.b", "a.b.c", "a.b.c.main", "runonce:engine"]


def test_namespaces_in_namespaces_and_over_several_folders_are_found(code, tmp_path):
    folder = code(main="import space.inner.leaf, space.inner.other", space__inner__leaf="x = 1")
    more = tmp_path / "more"
    (more / "space" / "inner").mkdir(parents=True)
    (more / "space" / "inner" / "other.py").write_text("")
    found = closure("main", search=[str(folder), str(more)], engine=ENGINE)
    assert names(found) == ["main", "runonce:engine", "space.inner.leaf", "space.inner.other"]


def test_a_namespace_counts_as_the_authors_if_any_part_of_it_lies_here(code, tmp_path):
    folder = code(main="import space.mine", space__mine="")
    (tmp_path / "site-packages" / "space" / "theirs").mkdir(parents=True)
    search = [str(tmp_path / "site-packages"), str(folder)]
    assert closure("main", search=search, engine=ENGINE).packages == ("main", "space")


def test_a_module_with_the_name_of_one_of_pythons_counts_where_it_would_be_imported(code):
    folder = code(main="import profile, sys, os", profile="x = 1", sys="", os="")
    assert names(listed(folder, "main")) == ["main", "profile", "runonce:engine"]


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


def test_a_package_that_is_linked_into_site_packages_is_the_authors(code, tmp_path):
    folder = code(main="import linked")
    (tmp_path / "work" / "linked").mkdir(parents=True)
    (tmp_path / "work" / "linked" / "__init__.py").write_text("")
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "linked").symlink_to(tmp_path / "work" / "linked")
    found = closure("main", search=[str(folder), str(tmp_path / "site-packages")], engine=ENGINE)
    assert found.packages == ("linked", "main")


def test_code_in_a_zip_has_the_same_version(code, tmp_path):
    folder = code(pkg____init__="", pkg__main="from . import a", pkg__a="x = 1", pkg__plugins____init__="")
    code(pkg__plugins__one="")
    (folder / "pkg" / "runonce-code.toml").write_text('include = ["pkg.plugins.*"]')
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, path.relative_to(folder))
    found = closure("pkg.main", search=[str(tmp_path / "code.zip")], engine=ENGINE)
    assert names(found) == ["pkg", "pkg.a", "pkg.main", "pkg.plugins", "pkg.plugins.one", "runonce:engine"]
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


def test_an_installed_copy_does_not_read_the_settings_of_the_project_around_it(code, tmp_path):
    folder = code(pkg____init__="", pkg__hidden="")
    site = tmp_path / "lib" / "site-packages"
    site.parent.mkdir()
    folder.rename(site)
    (tmp_path / "pyproject.toml").write_text('[tool.runonce.code]\ninclude = ["pkg.hidden"]\n')
    assert names(listed(site, "pkg")) == ["pkg", "runonce:engine"]


@pytest.mark.parametrize("packages", [["other"], []])
def test_the_entrys_own_package_counts_whatever_codepackages_says(code, packages):
    folder = code(pkg____init__="import other", other="")
    expected = [name for name in ("other", "pkg", "runonce:engine") if name != "other" or packages]
    assert names(listed(folder, "pkg", packages=packages)) == expected


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


MAPPED = """
import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
class Packages:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return spec_from_file_location(name, {where!r} + "/__init__.py") if name == "space.wheeled" else None
class Namespaces:
    @staticmethod
    def hook(path):
        if path != "__editable__":
            raise ImportError
        return Namespaces
    @staticmethod
    def find_spec(name, target=None):
        if name == "space":
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = ["__editable__"]
            return spec
sys.meta_path.append(Packages)
sys.path_hooks.append(Namespaces.hook)
sys.path.append("__editable__")
from runonce.author.source import closure
print([name for name, _ in closure("space.wheeled.main", engine=1).modules], "space" in sys.modules)
"""


def test_an_editable_install_that_maps_a_package_in_a_namespace_is_found(wheel):
    folder, _ = wheel
    text = MAPPED.format(where=str(folder / "src" / "wheeled"))
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd="/")
    expected = ["runonce:engine", "space.wheeled", "space.wheeled.a", "space.wheeled.main"]
    assert done.stdout.strip() == f"{expected} False", done.stderr


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
    folder = code(
        pkg____init__="import importlib", pkg__plugins____init__="", pkg__plugins__one="", pkg__plugins__two=""
    )
    loaded = {name: _loaded(name) for name in ("pkg", "pkg.plugins", "pkg.plugins.one", "json", "runonce")}
    assert unhashed(loaded, listed(folder, "pkg")) == ["pkg.plugins", "pkg.plugins.one"]
    (folder / "pyproject.toml").write_text('[tool.runonce.code]\ninclude = ["pkg.plugins.*"]\n')
    found = listed(folder, "pkg")
    assert names(found) == ["pkg", "pkg.plugins", "pkg.plugins.one", "pkg.plugins.two", "runonce:engine"]
    assert unhashed(loaded, found) == []


def _loaded(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, origin=f"/{name}.py")
    return module


def test_a_namespace_and_an_excluded_module_are_not_missed(code):
    folder = code(pkg____init__="")
    found = listed(folder, "pkg")
    space = types.ModuleType("pkg.space")
    space.__spec__ = ModuleSpec("pkg.space", None)
    assert unhashed({"pkg.space": space, "pkg._version": _loaded("pkg._version")}, found) == []


def test_a_module_under_a_second_name_is_missed_by_its_own_alone(code):
    found = listed(code(pkg____init__="from . import a", pkg__a="", pkg__b=""), "pkg")
    loaded = {"pkg.alias": _loaded("pkg.a"), "pkg.second": _loaded("pkg.b"), "pkg.np": _loaded("numpy")}
    assert unhashed(loaded, found) == ["pkg.b"]


def test_a_module_that_warns_when_it_is_compiled_is_read(code):
    assert names(listed(code(main="x = '\\d'"), "main")) == ["main", "runonce:engine"]


def test_included_modules_may_be_of_another_package_and_lie_in_folders_without_an_init(code):
    folder = code(pkg____init__="", other__plugins__deep__one="", other__two="")
    (folder / "pyproject.toml").write_text('[tool.runonce.code]\ninclude = ["other.plugins.*"]\n')
    found = listed(folder, "pkg")
    assert names(found) == ["other.plugins.deep.one", "pkg", "runonce:engine"]
    assert listed(folder, "pkg", packages=found.packages).digest() == found.digest()
    assert listed(folder, "pkg", packages=["pkg"]).digest() == found.digest()


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
        ('includes = ["pkg.a"]', "tool.runonce.code.includes: is no setting ("),
        ('include = "pkg.a"', "tool.runonce.code.include: is 'pkg.a'; a list of texts is meant"),
        ('include = ["pkg.nowhere"]', "tool.runonce.code.include[0]: is pkg.nowhere, and there is no such module here"),
        ('include = ["pkg.no*"]', "tool.runonce.code.include[0]: is pkg.no*, and there is no such module here"),
        ('data = ["*.csv"]', "data[0]: names no file: '*.csv'"),
        ('data = ["../*"]', "which is no path below"),
        ('data = ["*.csv"]\nexclude = [1]', "tool.runonce.code.exclude: is [1]; a list of texts is meant"),
        ("include = [", "cannot be read"),
    ],
)
def test_settings_that_cannot_be_are_refused(code, text, message):
    folder = code(pkg____init__="")
    (folder / "pyproject.toml").write_text(f"[tool.runonce.code]\n{text}\n")
    with pytest.raises(CodeError) as caught:
        listed(folder, "pkg")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["[tool]\nrunonce = 1", "[tool.runonce]\ncode = []"])
def test_settings_that_are_no_table_are_refused(code, text):
    folder = code(pkg____init__="")
    (folder / "pyproject.toml").write_text(text)
    with pytest.raises(CodeError, match="is no table in"):
        listed(folder, "pkg")


def test_a_folder_is_no_entry(code):
    with pytest.raises(CodeError, match="space is a folder without __init__"):
        listed(code(space__main=""), "space")


def test_an_entry_that_is_not_there_says_where_was_looked(code, tmp_path):
    with pytest.raises(CodeError) as caught:
        listed(code(main=""), "nowhere.main")
    message = str(caught.value)
    assert f"there is no module nowhere.main here (looked in {tmp_path / 'code'})" in message
    assert "Start in the folder that holds it" in message


@pytest.mark.parametrize(
    ("data", "message"), [(b"def (", "module main, line 1, is no Python"), (b"\xff", "is no text that Python")]
)
def test_a_module_that_python_could_not_read_is_named(code, data, message):
    folder = code(main="")
    (folder / "main.py").write_bytes(data)
    with pytest.raises(CodeError) as caught:
        listed(folder, "main")
    assert message in str(caught.value)
    assert str(folder / "main.py") in str(caught.value)


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
    folder = code(main="import fast")
    binary = folder / f"fast{EXTENSION_SUFFIXES[0]}"
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


def test_two_stars_at_the_end_name_all_files_below_and_no_caches(tmp_path):
    (tmp_path / "src" / "deep" / "__pycache__").mkdir(parents=True)
    (tmp_path / "src" / "deep" / "__pycache__" / "a.cpython-311.pyc").write_text("")
    (tmp_path / "src" / "deep" / "a.py").write_text("")
    (tmp_path / "src" / "b.py").write_text("")
    assert command_digest(["src/**"], tmp_path) == command_digest(["src/b.py", "src/deep/a.py"], tmp_path)


def test_a_link_to_a_file_counts_as_the_file_and_folders_and_pipes_not_at_all(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.py").write_text("x = 1")
    before = command_digest(["one/*"], tmp_path)
    (tmp_path / "one" / "a.py").rename(tmp_path / "real.py")
    (tmp_path / "one" / "a.py").symlink_to(tmp_path / "real.py")
    (tmp_path / "one" / "folder").mkdir()
    os.mkfifo(tmp_path / "one" / "pipe")
    assert command_digest(["one/*"], tmp_path) == before


def test_folders_behind_links_are_not_searched(tmp_path):
    (tmp_path / "a.py").write_text("")
    before = command_digest(["**/*.py"], tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path)
    assert command_digest(["**/*.py"], tmp_path) == before


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    (tmp_path / "run.sh").symlink_to(tmp_path / "gone.sh")
    with pytest.raises(CodeError, match=r"names .*run\.sh, which cannot be read: No such file"):
        command_digest(["*.sh"], tmp_path)


def test_globs_that_name_nothing_or_lead_out_are_refused_together(tmp_path):
    globs = ["*.sh", "/etc/passwd", "../x", "", ".", "a/**b", "a\0"]
    with pytest.raises(CodeError) as caught:
        command_digest(globs, tmp_path)
    assert [fault.path for fault in caught.value.faults] == [f"spec.code[{i}]" for i in range(len(globs))]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything, so no file is unreadable for it")
def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "run.sh").write_text("")
    (tmp_path / "run.sh").chmod(0)
    with pytest.raises(CodeError, match="cannot be read"):
        command_digest(["*.sh"], tmp_path)
