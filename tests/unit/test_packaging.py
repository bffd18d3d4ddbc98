"""What a user installs: the wheel, the declared ranges, the locked versions."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONSTRAINTS = (ROOT / "constraints.txt").read_text()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_package_the_licence_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "runonce/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert all(name.startswith(("runonce/", "runonce-")) and "__pycache__" not in name for name in names)


def test_the_wheel_has_the_same_key_as_the_working_copy(wheel, tmp_path):
    """`runonce key` from an installed wheel, in another folder: nothing of the place is in the key."""
    (tmp_path / "tiny.yaml").write_text(
        "apiVersion: runonce.dev/v1alpha1\nkind: Experiment\nmetadata: {name: tiny}\n"
        "spec: {config: 'm:C', params: {a: 1}, codeVersion: label:x, machineParams: {train: {nprocesses: 1}}}\n"
    )
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    keys = []
    for path in (site, ROOT / "service"):
        program = f"import sys; sys.path.insert(0, {str(path)!r}); import runonce.cli; runonce.cli.main()"
        done = subprocess.run(
            [sys.executable, "-c", program, "key", "tiny.yaml", "-o", "json"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        keys.append(done.stdout)
    assert keys[0] == keys[1]


def test_every_locked_package_has_hashes_and_no_line_names_a_host():
    assert not re.search(r"https?://|index-url", CONSTRAINTS)
    blocks = re.split(r"\n(?=[a-z0-9])", CONSTRAINTS.strip())
    assert len(blocks) > 50
    assert all("--hash=sha256:" in block for block in blocks if not block.startswith("#"))


def test_what_is_declared_is_locked():
    locked = {match[1] for match in re.finditer(r"^([a-z0-9][a-z0-9.-]*)==", CONSTRAINTS, re.MULTILINE)}
    declared = [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["dev"]]
    for extra in PROJECT["project"]["optional-dependencies"].values():
        declared += extra
    names = {re.split(r"[\[<>=!; ]", text)[0].lower().replace("_", "-") for text in declared} - {"runonce"}
    assert names <= locked, names - locked


def test_a_release_of_kubernetes_that_cannot_be_used_is_excluded():
    assert "kubernetes>=37.0.1,<38,!=37.0.2" in PROJECT["project"]["optional-dependencies"]["controller"]


def test_the_declared_ranges_resolve_from_scratch(tmp_path):
    """Highest and lowest versions of what a user asks for; asks the package index, and says so where there is none."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed here; make setup installs it")
    for resolution in ("highest", "lowest-direct"):
        command = [
            uv, "pip", "compile", str(ROOT / "pyproject.toml"), "--all-extras", "--resolution", resolution,
            "--python-version", "3.11", "-q", "-o", str(tmp_path / resolution),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        if done.returncode and re.search(r"(?i)dns|connect|timed out|offline|unreachable", done.stderr):
            pytest.skip("no package index can be reached from here")
        assert done.returncode == 0, done.stderr
        found = (tmp_path / resolution).read_text()
        assert "kubernetes==37.0.2" not in found
        assert re.search(r"^torch==", found, re.MULTILINE)


def test_the_version_is_one():
    import runonce

    assert PROJECT["project"]["version"] == runonce.__version__
    assert f"## {runonce.__version__}" in (ROOT / "CHANGELOG.md").read_text()
