"""Leases: one works, the others wait; who dies is replaced after one lease time; no clock is compared with another's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from file_systems import Mounted

from runonce.store import filesystem
from runonce.store.backend import lease_name
from runonce.store.folder import FolderBackend
from runonce.store.lease import Leases
from runonce.store.url import open_store

KEY = "ab" * 32


@pytest.fixture(params=["local", "shared", "s3"])
def store_url(request, tmp_path, monkeypatch) -> str:
    """A folder of this machine, one that machines share, and S3."""
    if request.param == "s3":
        return request.getfixturevalue("weed").url(f"t/{uuid.uuid4().hex}")
    if request.param == "shared":
        monkeypatch.setattr(filesystem, "SYSTEM", Mounted(tmp_path))
    return str(tmp_path / "store")


@pytest.fixture
def local(tmp_path) -> FolderBackend:
    backend = FolderBackend(tmp_path / "store")
    assert backend.is_local
    return backend


def until(condition, seconds: float = 20.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return value


def test_one_holds_and_the_others_hear_who(backend):
    one, other = Leases(backend, "one"), Leases(backend, "other")
    assert one.hold(KEY) is None
    assert one.hold(KEY) is None
    assert other.hold(KEY) == "one"
    one.release(KEY)
    assert backend.get(lease_name(KEY)) is None
    assert other.hold(KEY) is None
    other.close()


def test_a_lease_that_is_renewed_is_never_taken_over(backend):
    one, other = Leases(backend, "one", ttl_s=0.3), Leases(backend, "other", ttl_s=0.3)
    one.hold(KEY)
    seen = set()
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        assert other.hold(KEY) in ("one", "another one, since just now")
        seen.add(backend.get(lease_name(KEY))[1])
        time.sleep(0.02)
    assert len(seen) > 2
    one.close()


HOLDER = """
import sys, time
from runonce.store.lease import Leases
from runonce.store.url import open_store
if sys.argv[3:]:
    from pathlib import Path
    from runonce.store import filesystem
    filesystem.SYSTEM = type("Mounted", (), {"kind": lambda self, path: "nfs"})()
leases = Leases(open_store(sys.argv[1]), "dead", ttl_s=0.5)
assert leases.hold(sys.argv[2]) is None
print("held", flush=True)
while not leases._held[sys.argv[2]].lost:
    time.sleep(0.02)
leases.release(sys.argv[2])
print("lost and given back", flush=True)
"""


def start_a_holder(url: str, *options: str) -> subprocess.Popen[str]:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, url, KEY, *options], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    return holder


def kill_a_holder(url: str, *options: str) -> None:
    holder = start_a_holder(url, *options)
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()


def test_who_was_killed_on_this_machine_is_replaced_at_once(local):
    kill_a_holder(local.url)
    assert b'"flock":true' in local.get(lease_name(KEY))[0]
    waiting = Leases(local, "next", ttl_s=1000)
    assert waiting.hold(KEY) is None
    waiting.close()
    assert list((local.root / "locks").iterdir()) == []


def test_who_lives_on_this_machine_is_not_replaced_however_long_it_sleeps(local):
    """Its renewals are far apart, as of a process that is stopped; the lock of the kernel says that it lives."""
    one, other = Leases(local, "one", ttl_s=1000), Leases(local, "other", ttl_s=0.0)
    one.hold(KEY)
    assert [other.hold(KEY) for _ in range(3)] == ["one"] * 3
    one.close()
    assert other.hold(KEY) is None
    other.close()


def test_a_holder_that_came_through_a_mount_runs_out_on_the_machine_of_the_disk_too(local, monkeypatch):
    monkeypatch.setattr(filesystem, "SYSTEM", Mounted(local.root))
    through_mount = Leases(FolderBackend(local.root), "mount", ttl_s=1000)
    assert through_mount.hold(KEY) is None
    monkeypatch.undo()
    next_ = Leases(local, "next", ttl_s=0.3)
    started = time.monotonic()
    assert next_.hold(KEY) == "mount"
    until(lambda: next_.hold(KEY) is None)
    assert time.monotonic() - started >= 0.3
    next_.close()


@pytest.mark.parametrize("store_url", ["shared", "s3"], indirect=True)
def test_who_was_killed_is_replaced_after_one_lease_time_and_not_before(backend):
    kill_a_holder(backend.url, *(["shared"] if isinstance(backend, FolderBackend) else []))
    waiting = Leases(backend, "next", ttl_s=0.5)
    started = time.monotonic()
    assert waiting.hold(KEY) == "dead"
    until(lambda: waiting.hold(KEY) is None)
    assert time.monotonic() - started >= 0.5
    waiting.close()


def test_those_who_see_the_same_jobs_do_not_wait_for_each_others_lease(backend):
    first, second = Leases(backend, "place"), Leases(backend, "place")
    assert first.hold(KEY) is None
    assert second.hold(KEY) is None
    first.release(KEY)
    assert backend.get(lease_name(KEY)) is not None
    second.close()


def test_of_two_threads_that_want_one_key_at_once_both_have_it(backend):
    """Two owners of one key in one controller: who comes second joins the Job of the first."""
    leases = Leases(backend, "one")
    for number in range(20):
        key = f"{number:02x}" * 32
        together = threading.Barrier(4)

        def hold(key: str = key, together: threading.Barrier = together) -> str | None:
            together.wait()
            return leases.hold(key)

        with ThreadPoolExecutor(4) as pool:
            assert [done.result() for done in [pool.submit(hold) for _ in range(4)]] == [None] * 4
    leases.close()


def test_of_six_contenders_the_work_is_done_by_one_at_a_time(backend):
    working, most, rounds = [0], [0], []

    def contend(name: str) -> None:
        leases = Leases(open_store(backend.url), name, ttl_s=5)
        until(lambda: leases.hold(KEY) is None)
        working[0] += 1
        most[0] = max(most[0], working[0])
        time.sleep(0.02)
        rounds.append(name)
        working[0] -= 1
        leases.release(KEY)

    threads = [threading.Thread(target=contend, args=(f"{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most[0], sorted(rounds)) == (1, ["0", "1", "2", "3", "4", "5"])


def test_a_damaged_lease_runs_out_like_any_other(backend):
    backend.put(lease_name(KEY), b"{")
    leases = Leases(backend, "one", ttl_s=0.2)
    assert leases.hold(KEY) == "a damaged record"
    until(lambda: leases.hold(KEY) is None)
    leases.close()


@pytest.mark.parametrize("store_url", ["shared", "s3"], indirect=True)
def test_a_process_that_was_frozen_and_wakes_leaves_the_lease_to_who_took_it_over(backend):
    holder = start_a_holder(backend.url, *(["shared"] if isinstance(backend, FolderBackend) else []))
    try:
        os.kill(holder.pid, signal.SIGSTOP)
        next_ = Leases(backend, "next", ttl_s=0.5)
        until(lambda: next_.hold(KEY) is None, seconds=60)
        os.kill(holder.pid, signal.SIGCONT)
        assert holder.communicate(timeout=60)[0] == "lost and given back\n"
        assert b'"next"' in backend.get(lease_name(KEY))[0]
        next_.close()
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.parametrize("store_url", ["shared", "s3"], indirect=True)
def test_a_holder_that_wakes_late_neither_renews_nor_removes_anothers_lease(backend):
    late, next_ = Leases(backend, "late", ttl_s=1000), Leases(backend, "next", ttl_s=0.1)
    late.hold(KEY)
    until(lambda: next_.hold(KEY) is None)
    late.release(KEY)
    assert b'"next"' in backend.get(lease_name(KEY))[0]
    next_.close()


def test_a_lease_whose_work_outlives_its_process_stays_for_the_next_of_the_holder(store_url):
    store = open_store(store_url)
    one = Leases(store, "north", ttl_s=300, outlives=True)
    assert one.hold("k" * 64) is None
    one.close()
    other = Leases(store, "south", ttl_s=300, outlives=True)
    assert other.hold("k" * 64) == "north"
    again = Leases(store, "north", ttl_s=300, outlives=True)
    assert again.hold("k" * 64) is None
    again.release("k" * 64)
    assert other.hold("k" * 64) is None
    other.release("k" * 64)
    for leases in (other, again):
        leases.close()
