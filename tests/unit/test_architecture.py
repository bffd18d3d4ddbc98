"""The house: who imports whom stands in pyproject.toml (make check); here is what a tool cannot see there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "service" / "runonce"
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(program: str) -> set[str]:
    text = f"{program}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_runonce_imports_none_of_the_heavy_packages():
    heavy = {"torch", "numpy", "boto3", "kubernetes", "pydantic", "yaml", "click", "rich"}
    assert not heavy & imported("import runonce")
    assert not heavy & imported(
        "from runonce import ExperimentConfig, ExperimentParameters, MachineParams, BatchSampler, Run"
    )


def test_every_public_name_is_there_and_no_other():
    import runonce

    for name in runonce.__all__:
        assert getattr(runonce, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = runonce.nothing


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_says_what_it_is(path):
    text = path.read_text()
    assert text.startswith('"""') or path.name == "py.typed"
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", text)


def test_there_are_no_catch_all_modules():
    assert not {path.stem for path in MODULES} & {"utils", "util", "helpers", "common", "misc", "base", "core"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nobody_but_the_settings_the_contract_and_processes_reads_the_environment(path):
    readers = {
        "settings.py",
        "worker/run.py",
        "worker/command.py",
        "worker/ranks.py",
        "local/supervisor.py",
        "api/session.py",
    }
    if str(path.relative_to(PACKAGE)) not in readers:
        assert "os.environ" not in path.read_text()
