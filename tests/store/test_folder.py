"""What is particular to a store in a folder: other things in the way, no space, no permission, newer formats."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from runonce.errors import InputError, NewerFormat, StoreError
from runonce.store.backend import blob_name
from runonce.store.folder import MARKER, FolderBackend
from runonce.store.url import open_store
from runonce.store.verify import discard, verify


def test_looking_makes_no_folder(tmp_path):
    backend = FolderBackend(tmp_path / "store")
    assert backend.get("c/x") is None
    assert not (tmp_path / "store").exists()


def test_a_folder_with_other_things_is_neither_read_nor_written(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    backend = FolderBackend(tmp_path)
    for call in (lambda: backend.get("c/x"), lambda: backend.put("c/x", b""), lambda: list(backend.list("c/"))):
        with pytest.raises(StoreError, match="is a folder with other things in it, and no store"):
            call()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_store_of_a_newer_format_is_refused_by_name(tmp_path):
    FolderBackend(tmp_path / "store").put("c/x", b"")
    (tmp_path / "store" / MARKER).write_text(json.dumps({"format": 2}))
    with pytest.raises(NewerFormat, match="is a store of format 2; this release knows up to 1"):
        FolderBackend(tmp_path / "store").get("c/x")


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"format": 1'])
def test_a_damaged_or_lost_marker_is_found_and_made_anew_by_the_next_write(tmp_path, text):
    name = "f/" + "ab" * 32 + "/x"
    FolderBackend(tmp_path / "store").put(name, b'{"format":1}')
    FolderBackend(tmp_path / "store").put("c/ab/" + "ab" * 32, b"")
    marker = tmp_path / "store" / MARKER
    marker.unlink() if text is None else marker.write_text(text)
    backend = FolderBackend(tmp_path / "store")
    assert backend.get(name)[0] == b'{"format":1}'
    (damage,) = [damage for damage in verify(backend) if damage.name == MARKER]
    assert damage.what == f"{marker} is {'lost' if text is None else 'damaged'}."
    backend.put("f/" + "ab" * 32 + "/y", b'{"format":1}')
    assert json.loads(marker.read_text()) == {"format": 1, "kind": "store"}
    assert FolderBackend(tmp_path / "store").marker_fault() is None


def test_verify_makes_a_damaged_marker_anew(tmp_path):
    FolderBackend(tmp_path / "store").put("b/ab/" + hashlib.sha256(b"").hexdigest(), b"")
    (tmp_path / "store" / MARKER).write_text("")
    backend = FolderBackend(tmp_path / "store")
    for damage in list(verify(backend)):
        discard(backend, damage)
    assert list(verify(FolderBackend(tmp_path / "store"))) == []


def test_half_a_marker_of_a_newer_format_is_still_refused(tmp_path):
    FolderBackend(tmp_path / "store").put("c/x", b"")
    (tmp_path / "store" / MARKER).write_text('{"format": 2, "ki')
    with pytest.raises(NewerFormat, match="is a store of format 2"):
        FolderBackend(tmp_path / "store").put("c/y", b"")


@pytest.mark.parametrize("others", [["results/x"], ["b/x", "mine.txt"], ["tmp/x", "results/y"], ["c"]])
def test_folders_that_only_look_a_little_like_a_store_are_none(tmp_path, others):
    for name in others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    with pytest.raises(StoreError, match="is a folder with other things in it, and no store"):
        FolderBackend(tmp_path).put("c/x", b"")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        others
    )


def test_a_file_is_no_store(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file; a store is a folder"):
        open_store(str(tmp_path / "file"))


def test_what_other_programs_leave_between_the_objects_is_no_object(tmp_path):
    backend = FolderBackend(tmp_path / "store")
    backend.put("c/ab/x", b"")
    for name in (".DS_Store", "x~", "a b"):
        (tmp_path / "store" / "c" / "ab" / name).write_text("")
    assert [entry.name for entry in backend.list("c/")] == ["c/ab/x"]


def test_a_write_beside_one_who_removes_empty_folders_is_done(tmp_path):
    backend = FolderBackend(tmp_path / "store")
    backend.put("c/0", b"")
    done = threading.Event()

    def clear() -> None:
        while not done.is_set():
            backend.remove_empty_folders()

    clearing = threading.Thread(target=clear)
    clearing.start()
    try:
        for i in range(300):
            backend.put(f"w/{i}/deep/er", b"", create=True)
            backend.delete(f"w/{i}/deep/er")
    finally:
        done.set()
        clearing.join()
    backend.remove_empty_folders()
    assert not (tmp_path / "store" / "w").exists()


def test_something_else_under_a_name_is_an_error_and_no_miss(tmp_path):
    backend = FolderBackend(tmp_path / "store")
    backend.put("c/x/y", b"")
    with pytest.raises(StoreError, match="cannot read c/x in"):
        backend.get("c/x")
    with pytest.raises(StoreError, match="cannot read c/x/y/z in"):
        backend.get("c/x/y/z")


def test_a_write_that_never_finished_is_cleared_after_a_day_and_not_before(tmp_path):
    FolderBackend(tmp_path / "store").put("c/x", b"")
    old, young = tmp_path / "store" / "tmp" / "old", tmp_path / "store" / "tmp" / "young"
    for path in (old, young):
        path.write_text("")
    os.utime(old, (time.time() - 100_000,) * 2)
    FolderBackend(tmp_path / "store").put("c/y", b"")
    assert (old.exists(), young.exists()) == (False, True)


def test_a_damaged_blob_is_healed_when_its_file_is_stored_again(tmp_path):
    backend = FolderBackend(tmp_path / "store")
    (tmp_path / "in").write_bytes(b"right")
    digest = hashlib.sha256(b"right").hexdigest()
    backend.put_file(blob_name(digest), tmp_path / "in", sha256=digest)
    stored = tmp_path / "store" / blob_name(digest)
    stored.chmod(0o644)
    stored.write_bytes(b"wrong")
    backend.put_file(blob_name(digest), tmp_path / "in", sha256=digest)
    assert stored.read_bytes() == b"right"


FULL = """
import resource, sys, pathlib
from runonce.errors import StoreError
from runonce.store.folder import FolderBackend
backend = FolderBackend(pathlib.Path(sys.argv[1]))
backend.put("c/before", b"x")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    backend.put("c/x", b"y" * 5000)
except StoreError as error:
    print(error)
"""


def test_a_write_that_finds_no_room_leaves_nothing_and_says_so(tmp_path):
    """A limit on the size of files stands for the full disk: the write fails half-way."""
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path / "store"], capture_output=True, text=True)
    assert done.stdout.startswith("cannot write c/x in"), done.stderr
    assert FolderBackend(tmp_path / "store").get("c/x") is None
    assert list((tmp_path / "store" / "tmp").iterdir()) == []


DENIED = """
import os, sys, pathlib
from runonce.errors import StoreError
from runonce.store.folder import FolderBackend
if os.geteuid() == 0:
    os.setuid(65534)  # root may write everywhere
try:
    FolderBackend(pathlib.Path(sys.argv[1])).put("c/x", b"")
except StoreError as error:
    print(error)
"""


def test_a_folder_without_permission_is_named():
    with tempfile.TemporaryDirectory(prefix="runonce-test-") as name:
        Path(name).chmod(0o555)
        done = subprocess.run([sys.executable, "-c", DENIED, name], capture_output=True, text=True)
    assert done.stdout.startswith("cannot write c/x in"), done.stderr
    assert "Permission denied" in done.stdout


def test_many_files_do_not_stay_open(tmp_path):
    backend = FolderBackend(tmp_path / "store")
    before = len(os.listdir("/dev/fd"))
    for i in range(50):
        backend.put(f"c/{i}", b"x")
        backend.get(f"c/{i}")
    assert len(os.listdir("/dev/fd")) == before
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 0
