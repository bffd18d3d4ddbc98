"""One leader: the record of a Lease, a clock that cannot jump, and a holder that knows when it is late."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from conftest_kube import says

from runonce.errors import Unreachable
from runonce.kube.lease import Election


class Record:
    """The API server's one Lease, with versions as it keeps them."""

    def __init__(self, server) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        server.script("get", lambda handler: (says(404) if self.lease is None else says(200, self.lease))(handler))
        server.script("post", lambda handler: self.write(handler, server.asked[-1].body))
        server.script("put", lambda handler: self.write(handler, server.asked[-1].body))

    def write(self, handler, body) -> None:
        given = body["metadata"].get("resourceVersion")
        if given != (self.lease and self.lease["metadata"]["resourceVersion"]):
            return says(409)(handler)
        self.version += 1
        self.lease = body | {"metadata": {"name": "l", "resourceVersion": str(self.version)}}
        return says(200, self.lease)(handler)

    @property
    def holder(self) -> str:
        return self.lease["spec"]["holderIdentity"]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def record(server):
    return Record(server)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def elect(api, clock):
    def make(identity: str, lost=lambda: None, **options) -> Election:
        return Election(api, "n", "l", identity, lost=lost, clock=clock, **options)

    return make


def test_the_first_leads_and_the_second_waits_until_nothing_was_renewed_for_the_whole_time(record, elect, clock):
    one, two = elect("one"), elect("two")
    one.step()
    two.step()
    assert (one.leads(), two.leads(), record.holder) == (True, False, "one")
    clock.now += 14
    one.step()
    two.step()
    clock.now += 14
    two.step()
    assert (record.holder, two.leads()) == ("one", False)
    clock.now += 2
    two.step()
    assert (record.holder, two.leads()) == ("two", True)
    assert record.lease["spec"]["leaseTransitions"] == 1


def test_a_leader_that_was_frozen_does_not_write_when_it_wakes(record, elect, clock):
    """SIGSTOP, a paused machine, a server that hangs: it asks itself, not the server."""
    one, two = elect("one"), elect("two")
    one.step()
    two.step()
    clock.now += 16
    two.step()
    assert (one.leads(), two.leads()) == (False, True)
    one.step()
    assert not one.leads()


def test_at_no_moment_do_two_lead_whatever_the_clocks_of_the_machines_say(record, elect, clock, monkeypatch):
    """The wall clock is only written, never read."""
    import runonce.kube.lease as module

    class Jumping(module.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(1999, 1, 1, tzinfo=tz)

    one, two = elect("one"), elect("two")
    one.step()
    monkeypatch.setattr(module, "datetime", Jumping)
    for _ in range(40):
        clock.now += 1
        one.step()
        two.step()
        assert (one.leads(), two.leads()) == (True, False)


def test_a_leader_whose_server_does_not_answer_stops_before_another_can_begin(server, record, elect, clock):
    one = elect("one")
    one.step()
    server.script("get", says(503))
    with pytest.raises(Unreachable):
        one.step()
    clock.now += 9
    assert one.leads()
    clock.now += 2
    assert not one.leads()


def test_the_thread_says_that_leadership_is_lost_once(server, record, elect, clock):
    calls = []
    done = threading.Event()
    one = elect("one", lost=lambda: (calls.append(1), done.set()), retry_s=0.01)
    one.start()
    assert one.leading.wait(20)
    server.script("get", says(503))
    clock.now += 11
    assert done.wait(20)
    one.stop()
    assert (calls, one.leads()) == ([1], False)


def test_of_two_that_write_at_once_one_wins(server, record, elect):
    one, two = elect("one"), elect("two")
    one.step()
    record.lease["spec"]["holderIdentity"] = ""
    stale = dict(record.lease)
    two.step()
    server.script("get", says(200, stale))
    one.step()
    assert record.holder == "two"


def test_an_orderly_end_lets_the_next_one_in_at_once(record, elect):
    one, two = elect("one", retry_s=0.01), elect("two")
    one.start()
    assert one.leading.wait(20)
    one.stop()
    assert record.holder == ""
    two.step()
    assert two.leads()


def test_who_lost_a_race_for_the_first_record_is_no_leader(server, record, elect):
    server.script("get", says(404))
    one = elect("one")
    record.lease = {"metadata": {"resourceVersion": "9"}, "spec": {"holderIdentity": "other"}}
    one.step()
    assert not one.leads()
