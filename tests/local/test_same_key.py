"""One experiment has one key: as a class, as a file, after kubectl, from another folder, from a wheel, for another user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


def keys(done) -> dict[str, str]:
    assert done.code == 0, done.err
    return {mode: entry["cacheKey"] for mode, entry in done.json["modes"].items()}


@pytest.fixture
def packaged(place):
    """The tiny experiment as a package with a module beside it."""
    code = (place.folder / "tiny.py").read_text()
    place.write("pack/__init__.py", "")
    place.write("pack/inner/__init__.py", "")
    place.write("pack/inner/tiny.py", "from ..beside import FACTOR\n" + code.replace("* 2}", "* FACTOR}"))
    place.write("pack/beside.py", "FACTOR = 2\n")
    return place


TARGET = "pack.inner.tiny:Tiny"


def test_the_class_and_its_rendered_file(packaged):
    here = keys(packaged.runonce("key", TARGET, "-o", "json"))
    packaged.write("rendered.yaml", packaged.runonce("render", TARGET).out)
    assert keys(packaged.runonce("key", "rendered.yaml", "-o", "json")) == here
    assert len(set(here.values())) == 2


def test_the_file_after_kubectl_has_had_it(packaged):
    kubectl = shutil.which("kubectl", path=str(Path(sys.executable).parent)) or shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl here; make setup installs it")
    rendered = packaged.write("rendered.yaml", packaged.runonce("render", TARGET).out)
    for form in ("yaml", "json"):
        command = [kubectl, "annotate", "--local", "-f", str(rendered), "a=b", "-o", form]
        annotated = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "a: b" in annotated or '"a": "b"' in annotated
        packaged.write("annotated.yaml", annotated)
        here = keys(packaged.runonce("key", TARGET, "-o", "json"))
        assert keys(packaged.runonce("key", "annotated.yaml", "-o", "json")) == here


def test_from_another_folder_and_after_the_code_has_moved(packaged, tmp_path):
    here = keys(packaged.runonce("key", TARGET, "-o", "json"))
    packaged.write("rendered.yaml", packaged.runonce("render", TARGET).out)
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    assert keys(packaged.runonce("key", "../work/rendered.yaml", "-o", "json", cwd=elsewhere)) == here
    shutil.copytree(packaged.folder / "pack", elsewhere / "pack")
    assert keys(packaged.runonce("key", TARGET, "-o", "json", cwd=elsewhere)) == here


def test_from_an_installed_wheel(packaged, tmp_path):
    here = keys(packaged.runonce("key", TARGET, "-o", "json"))
    packaged.write("rendered.yaml", packaged.runonce("render", TARGET).out)
    packaged.write(
        "pyproject.toml",
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "pack"\nversion = "1"\n[tool.hatch.build.targets.wheel]\npackages = ["pack"]\n',
    )
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=packaged.folder, check=True, capture_output=True)
    site = tmp_path / "lib" / "site-packages"
    with zipfile.ZipFile(next((tmp_path / "dist").glob("*.whl"))) as wheel:
        wheel.extractall(site)
    away = tmp_path / "away"
    away.mkdir()
    rendered = shutil.copy(packaged.folder / "rendered.yaml", away)
    installed = {"PYTHONPATH": str(site), "cwd": away}
    assert keys(packaged.runonce("key", TARGET, "-o", "json", **installed)) == here
    assert keys(packaged.runonce("key", "rendered.yaml", "-o", "json", **installed)) == here
    assert packaged.runonce("run", str(rendered), **installed).code == 0  # the worker proves it too


@pytest.mark.parametrize("seed", ["1", "2"])
def test_under_another_hash_seed(packaged, seed):
    here = keys(packaged.runonce("key", TARGET, "-o", "json", PYTHONHASHSEED="0"))
    assert keys(packaged.runonce("key", TARGET, "-o", "json", PYTHONHASHSEED=seed)) == here


def test_under_another_user(packaged, tmp_path):
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become another user here")
    if subprocess.run([*nobody, sys.executable, "-c", "import runonce"], capture_output=True).returncode:
        pytest.skip("another user may not read this Python")
    os.chmod(tmp_path, 0o755)
    for parent in tmp_path.parents[:3]:
        if parent != Path("/tmp"):
            os.chmod(parent, 0o755)
    here = keys(packaged.runonce("key", TARGET, "-o", "json"))
    command = [*nobody, *packaged.command("key", TARGET, "-o", "json")]
    env = packaged.env(RUNONCE_HOME=str(tmp_path / "nobodys"), HOME="/nonexistent")
    done = subprocess.run(command, cwd=packaged.folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    import json

    assert {mode: entry["cacheKey"] for mode, entry in json.loads(done.stdout)["modes"].items()} == here
