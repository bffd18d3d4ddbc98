"""Leases: one works, the others wait; who dies is replaced after one lease time; no clock is compared with another's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

from runonce.store.backend import lease_name
from runonce.store.lease import Leases
from runonce.store.url import open_store

KEY = "ab" * 32


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
leases = Leases(open_store(sys.argv[1]), "dead", ttl_s=0.5)
assert leases.hold(sys.argv[2]) is None
print("held", flush=True)
time.sleep(600)
"""


def test_who_was_killed_is_replaced_after_one_lease_time_and_not_before(backend):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, backend.url, KEY], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
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


def test_a_holder_that_wakes_late_neither_renews_nor_removes_anothers_lease(backend):
    late, next_ = Leases(backend, "late", ttl_s=1000), Leases(backend, "next", ttl_s=0.1)
    late.hold(KEY)
    until(lambda: next_.hold(KEY) is None)
    late.release(KEY)
    assert b'"next"' in backend.get(lease_name(KEY))[0]
    next_.close()
