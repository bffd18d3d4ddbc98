"""The work queue: each key once, one worker a key, later and later where it fails."""

from __future__ import annotations

import threading

from runonce.controller.queue import MAX_BACKOFF_S, WorkQueue


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def taken(queue: WorkQueue) -> list[str]:
    """All keys that are ready; each is left with its worker."""
    out = []
    while queue.depth():
        out.append(queue.get())
    return out


def test_a_key_that_is_added_often_comes_once():
    queue = WorkQueue()
    for key in ("a", "b", "a"):
        queue.add(key)
    assert taken(queue) == ["a", "b"]


def test_a_key_is_with_one_worker_at_a_time_and_comes_again_when_it_was_added_meanwhile():
    queue = WorkQueue()
    queue.add("a")
    assert queue.get() == "a"
    queue.add("a")
    assert queue.depth() == 0
    queue.done("a")
    assert taken(queue) == ["a"]


def test_what_fails_comes_later_and_later_and_at_once_again_after_a_success():
    clock = Clock()
    queue = WorkQueue(clock=clock)
    queue.add("a")
    waits = []
    for _ in range(12):
        assert queue.get() == "a"
        queue.failed("a")
        before = clock.now
        while not queue.depth():
            clock.now += 0.25
            queue._promote()
        waits.append(clock.now - before)
    assert waits[0] <= 1.25
    assert waits[4] >= 8
    assert max(waits) <= MAX_BACKOFF_S + 1
    queue.get()
    queue.done("a")
    queue.add("a")
    queue.get()
    queue.failed("a")
    clock.now += 1.25
    queue._promote()
    assert queue.depth() == 1


def test_of_several_times_the_earliest_counts():
    clock = Clock()
    queue = WorkQueue(clock=clock)
    queue.add_after("a", 10)
    queue.add_after("a", 5)
    queue.add_after("a", 20)
    clock.now = 6
    queue._promote()
    assert taken(queue) == ["a"]
    queue.done("a")
    clock.now = 30
    queue._promote()
    assert queue.depth() == 0


def test_the_age_is_that_of_the_first_key():
    clock = Clock()
    queue = WorkQueue(clock=clock)
    queue.add("a")
    clock.now = 7
    assert queue.age_s() == 7


def test_a_worker_that_waits_ends_when_the_queue_is_closed():
    queue = WorkQueue()
    got = []
    thread = threading.Thread(target=lambda: got.append(queue.get()))
    thread.start()
    queue.close()
    thread.join(20)
    assert got == [None]


def test_a_key_that_a_worker_has_had_for_long_is_named_until_it_is_done_with():
    clock = Clock()
    queue = WorkQueue(clock=clock)
    queue.add("a")
    queue.get()
    clock.now = 10.0
    assert queue.slow(9.0) == ["a"]
    assert queue.slow(10.0) == []
    queue.done("a")
    assert queue.slow(9.0) == []
