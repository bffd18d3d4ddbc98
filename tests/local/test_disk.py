"""Disks that are full or read-only, and folders of another user: told by name, nothing lost, done when it is put right."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

FILE = """
apiVersion: runonce.dev/v1alpha1
kind: Experiment
metadata: {name: big}
spec:
  command: [sh, run.sh, "$(params.size)"]
  code: [run.sh]
  params: {size: 3000000}
  retries: 0
  machineParams:
    train: {nprocesses: 1}
"""
SCRIPT = 'head -c "$1" /dev/zero > "$RUNONCE_OUTPUT/big"\n'
NOBODY = 65534

# What it needs is imported as root, whose Python another user may not be allowed to read.
AS_NOBODY = f"""
import ctypes, difflib, importlib, os, pkgutil, sqlite3, sys
import runonce
for part in ("api", "author", "cli", "local", "store"):
    package = importlib.import_module(f"runonce.{{part}}")
    for module in pkgutil.iter_modules(package.__path__, f"runonce.{{part}}."):
        importlib.import_module(module.name)
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
from runonce.cli import main
sys.exit(main())
"""


@pytest.fixture
def big(place):
    place.write("big.yaml", FILE)
    place.write("run.sh", SCRIPT)
    return place


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that every user may enter, as those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="runonce-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def mount(*words: object) -> None:
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of its own with room for 2 MB."""
    if os.geteuid() != 0 or sys.platform != "linux" or shutil.which("mount") is None:
        pytest.skip("only root of a Linux machine can mount a small disk")
    folder = tmp_path / "small"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=2m", "none", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill_up(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


def more_room(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=32m", folder], check=True)


def test_a_store_on_a_full_disk_is_told_and_what_was_made_is_published_when_there_is_room(big, small_disk):
    store = small_disk / "store"
    assert big.runonce("run", "big.yaml", "-p", "size=1000", "--store", str(store)).code == 0
    done = big.runonce("run", "big.yaml", "--store", str(store))
    assert done.code == 1, done.err
    assert "No space left on device. Free some space, then run again." in done.err
    assert "Traceback" not in done.err
    assert list((store / "tmp").iterdir()) == []
    assert big.runonce("verify", "--store", str(store)).out == "nothing is damaged\n"
    kept = big.runonce("run", "big.yaml", "-p", "size=1000", "--store", str(store), "-o", "json")
    assert kept.json["modes"]["train"]["cacheHit"] is True
    more_room(small_disk)
    assert big.runonce("run", "big.yaml", "--store", str(store)).code == 0


def test_a_home_on_a_full_disk_is_told_and_gone_on_from_when_there_is_room(big, small_disk, tmp_path):
    home = {"RUNONCE_HOME": str(small_disk / "home")}
    fill_up(small_disk / "fill")
    done = big.runonce("run", "big.yaml", "--store", str(tmp_path / "store"), **home)
    assert done.code == 1, (done.out, done.err)
    assert "No space left on device" in done.err
    assert "Traceback" not in done.err
    more_room(small_disk)
    assert big.runonce("run", "big.yaml", "--store", str(tmp_path / "store"), **home).code == 0


def test_results_of_a_store_that_is_read_only_are_hits_and_new_ones_are_refused(big, tmp_path):
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("only root of a Linux machine can mount a folder read-only")
    store = tmp_path / "store"
    assert big.runonce("run", "big.yaml", "--store", str(store)).code == 0
    mount("--bind", store, store)
    try:
        mount("-o", "remount,ro,bind", store)
        hit = big.runonce("run", "big.yaml", "--store", str(store), "-o", "json")
        assert (hit.code, hit.json["modes"]["train"]["cacheHit"]) == (0, True), hit.err
        assert big.runonce("verify", "--store", str(store)).code == 0
        for words in (["run", "big.yaml", "-p", "size=1"], ["rm", "big", "--yes"], ["gc", "--delete"]):
            done = big.runonce(*words, "--store", str(store))
            assert (done.code, "Read-only file system" in done.err) == (1, True), (words, done.err)
            assert "Traceback" not in done.err
    finally:
        subprocess.run(["umount", "-l", store], check=True)
    assert big.runonce("run", "big.yaml", "-p", "size=1", "--store", str(store)).code == 0


def test_a_store_of_another_user_is_told_by_name_and_left_as_it_is(new_place, open_folder):
    """As nobody, where this is root, since root may do everything."""
    big = new_place(open_folder)
    big.write("big.yaml", FILE)
    big.write("run.sh", SCRIPT)
    store, home = open_folder / "store", open_folder / "nobodys"
    assert big.runonce("run", "big.yaml", "--store", str(store)).code == 0
    home.mkdir()
    if os.geteuid() == 0:
        os.chown(home, NOBODY, NOBODY)
        command = [sys.executable, "-c", AS_NOBODY]
    else:
        command = big.command()
        for folder in (store, *(path for path in store.rglob("*") if path.is_dir())):
            folder.chmod(0o500)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        env = big.env(RUNONCE_HOME=str(home), HOME=str(home))
        line = [*command, *words, "--store", str(store)]
        return subprocess.run(line, cwd=big.folder, env=env, capture_output=True, text=True)

    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    assert " hit " in run("run", "big.yaml").stdout
    for words in (("run", "big.yaml", "-p", "size=1"), ("rm", "big", "--yes"), ("gc", "--delete")):
        done = run(*words)
        assert (done.returncode, "Permission denied" in done.stderr) == (1, True), (words, done.stderr)
        assert "Traceback" not in done.stderr
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before
    for path in (store, *store.rglob("*")):
        path.chmod(0o700)
