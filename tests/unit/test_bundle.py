"""Code that travels: what is packed in one place has the same digest, and runs the same, where it is unpacked."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from runonce.author.bundle import MAX_BYTES, pack, unpack
from runonce.author.version import source_version
from runonce.errors import CodeError, Damaged
from runonce.experiment.spec import parse_experiment


def spec_of(**fields):
    return parse_experiment(
        {
            "apiVersion": "runonce.dev/v1alpha1",
            "kind": "Experiment",
            "metadata": {"name": "x"},
            "spec": {"machineParams": {"train": {"nprocesses": 1}}, **fields},
        }
    ).spec


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A src layout with data beside the code and beside the project, a generated version, and a library of its own."""

    def write(name: str, text: str) -> None:
        path = tmp_path / "repo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    write("src/lab/__init__.py", "from lab._version import VERSION\n")
    write("src/lab/_version.py", "VERSION = '1'\n")
    write(
        "src/lab/config.py",
        "import shared.tools\nfrom pathlib import Path\nTEXT = (Path(__file__).parent / 'words.txt').read_text()\n",
    )
    write("src/lab/words.txt", "words")
    write("libs/shared/tools.py", "import lab.unused_here\n")
    write("src/lab/unused_here.py", "X = 1\n")
    write("src/lab/not_reached.py", "raise SystemError\n")
    write(
        "pyproject.toml",
        '[project]\nname = "lab"\n[tool.runonce.code]\ndata = ["src/lab/*.txt", "extra/*.json"]\nexclude = ["lab.never"]\n',
    )
    write("extra/a.json", "{}")
    monkeypatch.syspath_prepend(str(tmp_path / "repo" / "libs"))
    monkeypatch.syspath_prepend(str(tmp_path / "repo" / "src"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "repo"


def pinned(spec, folder: Path):
    return spec.model_copy(update={"code_version": source_version(spec, folder)[0]})


def test_what_is_unpacked_has_the_digest_that_was_packed(project, tmp_path):
    spec = pinned(spec_of(config="lab.config:Lab", codePackages=["lab", "shared"]), project)
    digest, data = pack(spec, project)
    unpacked = unpack(data, tmp_path / "elsewhere", name="archive")
    program = (
        "import sys, json; sys.path[:0] = json.loads(sys.argv[1])\n"
        "from runonce.author.version import source_list\n"
        "print(source_list('lab.config:Lab', {}, packages=('lab', 'shared')).digest())\n"
        "import lab.config; print(lab.config.TEXT, lab.VERSION)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(unpacked.path)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.split() == [digest, "words", "1"], done.stderr


def test_an_archive_holds_what_counts_and_what_that_imports_and_nothing_else(project):
    spec = pinned(spec_of(config="lab.config:Lab", codePackages=["lab", "shared"]), project)
    with zipfile.ZipFile(io.BytesIO(pack(spec, project)[1])) as archive:
        assert sorted(archive.namelist()) == [
            "extra/a.json",
            "libs/shared/tools.py",
            "pyproject.toml",
            "runonce-code.json",
            "src/lab/__init__.py",
            "src/lab/_version.py",
            "src/lab/config.py",
            "src/lab/unused_here.py",
            "src/lab/words.txt",
        ]
        assert json.loads(archive.read("runonce-code.json"))["path"] == ["libs", "src"]


def test_the_same_code_is_the_same_archive_whenever_it_is_packed(project):
    spec = pinned(spec_of(config="lab.config:Lab", codePackages=["lab", "shared"]), project)
    first = pack(spec, project)
    (project / "src" / "lab" / "config.py").touch()
    assert pack(spec, project) == first


def test_a_commands_files_keep_their_places_and_whether_they_can_be_run(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "run.sh").chmod(0o755)
    (tmp_path / "data.txt").write_text("x")
    spec = pinned(spec_of(command=["bin/run.sh"], code=["bin/*", "*.txt"]), tmp_path)
    _, data = pack(spec, tmp_path)
    unpacked = unpack(data, tmp_path / "there", name="archive")
    assert source_version(spec, unpacked.folder)[0] == spec.code_version
    assert (unpacked.folder / "bin" / "run.sh").stat().st_mode & 0o111
    assert not (unpacked.folder / "data.txt").stat().st_mode & 0o111
    assert unpacked.path == ()


def test_only_the_code_that_the_spec_pins_can_be_packed(project):
    spec = pinned(spec_of(config="lab.config:Lab", codePackages=["lab", "shared"]), project)
    (project / "src" / "lab" / "config.py").write_text("X = 2\n")
    with pytest.raises(CodeError, match="but the code here is source:"):
        pack(spec, project)
    with pytest.raises(CodeError, match="only code of a source: version can be sent"):
        pack(spec.model_copy(update={"code_version": "label:x"}), project)


def test_code_that_is_too_large_is_refused(tmp_path):
    (tmp_path / "big.bin").write_bytes(b"0" * (MAX_BYTES + 1))
    spec = pinned(spec_of(command=["./x"], code=["big.bin"]), tmp_path)
    with pytest.raises(CodeError, match="code of at most 64 MiB can be sent"):
        pack(spec, tmp_path)


def archive(**files: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, text in files.items():
            made.writestr(name, text)
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not an archive",
        archive(),
        archive(**{"runonce-code.json": "[]"}),
        archive(**{"runonce-code.json": '{"path": ["/etc"]}'}),
        archive(**{"runonce-code.json": '{"path": []}', "../out.py": ""}),
        archive(**{"runonce-code.json": '{"path": []}', "/out.py": ""}),
        archive(**{"runonce-code.json": '{"path": []}', "a/../../out.py": ""}),
    ],
)
def test_an_archive_that_leads_out_of_its_folder_or_is_none_is_refused(data, tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(Damaged):
        unpack(data, tmp_path / "in", name="archive")
    assert [path.name for path in tmp_path.rglob("out.py")] == []
