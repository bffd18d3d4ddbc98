"""Where a folder lies, and the locks that hold there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from file_systems import Mounted

from runonce.errors import PreconditionFailed
from runonce.store import locks
from runonce.store.filesystem import FileSystems, is_local
from runonce.store.folder import FolderBackend
from runonce.store.locks import Flocks, Turn, in_turn


@pytest.fixture(params=["system", "double"])
def systems(request, tmp_path) -> FileSystems:
    """The door, and the double that stands in it."""
    return FileSystems() if request.param == "system" else Mounted(tmp_path / "mounted")


def test_a_folder_and_what_will_be_in_it_lie_on_one_file_system(systems, tmp_path):
    assert systems.kind(tmp_path) == systems.kind(tmp_path / "not" / "yet")
    assert is_local(tmp_path, systems)
    assert isinstance(systems.kind(tmp_path / "mounted" / "x"), str)


def test_what_is_not_known_to_be_local_is_not(systems):
    if not os.path.exists("/proc/self"):
        pytest.skip("there is no /proc here")
    assert systems.kind(Path("/proc")) == "0x9fa0"
    assert not is_local(Path("/proc"), systems)


def test_statfs_and_the_system_agree(tmp_path):
    stat = shutil.which("stat")
    if stat is None or sys.platform != "linux":
        pytest.skip("there is no stat(1) of GNU here")
    named = subprocess.run([stat, "-f", "-c", "%t", tmp_path], capture_output=True, text=True, check=True).stdout
    kinds = {"ef53": "ext4", "1021994": "tmpfs", "58465342": "xfs", "9123683e": "btrfs", "794c7630": "overlayfs"}
    assert FileSystems().kind(tmp_path) == kinds.get(named.strip(), f"0x{named.strip()}")


def test_a_mounted_folder_is_shared(tmp_path):
    assert not is_local(tmp_path / "store", Mounted(tmp_path))
    assert is_local(tmp_path, Mounted(tmp_path / "elsewhere"))


@pytest.mark.parametrize("local", [True, False])
def test_only_one_is_inside_at_a_time(tmp_path, local):
    inside, most = [0], [0]

    def work(_: Turn) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.0005)
        inside[0] -= 1

    def enter() -> None:
        for _ in range(30):
            in_turn(tmp_path, work, local=local)

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert not (tmp_path / "held").exists()


DIE_INSIDE = """
import os, signal, sys
from pathlib import Path
from runonce.store.locks import in_turn
in_turn(Path(sys.argv[1]), lambda _: os.kill(os.getpid(), signal.SIGKILL), local=False)
"""


def die_inside(root: Path) -> None:
    subprocess.run([sys.executable, "-c", DIE_INSIDE, root])
    assert len(os.listdir(root / "held")) == 1


def test_who_died_inside_delays_the_next_by_no_more_than_its_time(tmp_path, monkeypatch):
    die_inside(tmp_path)
    monkeypatch.setattr(locks, "HELD_S", 0.3)
    started = time.monotonic()
    assert in_turn(tmp_path, lambda _: time.monotonic() - started, local=False) >= 0.3
    assert not (tmp_path / "held").exists()
    assert os.listdir(tmp_path / "tmp") == []


def test_a_mounted_store_compares_and_writes_in_one_step(tmp_path, monkeypatch):
    monkeypatch.setattr("runonce.store.filesystem.SYSTEM", Mounted(tmp_path))
    backend = FolderBackend(tmp_path / "store")
    assert not backend.is_local
    backend.put("c/count", b"0")

    def count() -> None:
        done = 0
        while done < 20:
            value, etag = backend.get("c/count")
            try:
                backend.put("c/count", b"%d" % (int(value) + 1), if_match=etag)
            except PreconditionFailed:
                continue
            done += 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert backend.get("c/count")[0] == b"80"


def test_a_lock_for_a_key_is_one_holders_until_it_is_freed(tmp_path):
    one, other = Flocks(tmp_path / "locks"), Flocks(tmp_path / "locks")
    assert one.take("k")
    assert not other.take("k")
    one.free("k")
    assert not (tmp_path / "locks" / "k").exists()
    assert other.take("k")
    other.free("k")
