"""A process that hangs is ended or named, with the line at which it hangs; one that is slow goes on."""

from __future__ import annotations

import re
import threading
import time

import pytest

from runonce.worker import watch
from runonce.worker.loop import StopRequest


@pytest.fixture
def hanging(job, tmp_path):
    """Two coupled processes, of which the second hangs in its loss."""

    def start(**env: str):
        (tmp_path / "marks").mkdir()
        given = {"HOW": "hangs", "MARKS": str(tmp_path / "marks"), **env}
        return job("Hanging", processes=2, env=given).start()

    return start


AT = r"at \S+trainings\.py, line \d+, in square"


def test_a_process_that_hangs_ends_itself_and_names_the_line_while_its_peers_only_lose_it(hanging):
    """Both have not gone on for equally long; who waits for another is not the one that hangs."""
    started = hanging(RUNONCE_STALL_S="6", RUNONCE_PEER_TIMEOUT_S="60")
    assert started.wait() == [76, 79], started.log(0)
    said = r"error \(Stalled\): train, process 1 of 2: has not gone on for 6 s \(RUNONCE_STALL_S\), and is " + AT
    assert re.search(said, started.log(1)), started.log(1)
    assert "error (LostPeer): train, process 0 of 2" in started.log(0)


def test_a_process_that_does_not_hear_of_its_end_says_where_it_is(hanging):
    """Its peers lose it; the Job then ends it, and the end of its log is all that is left."""
    started = hanging(RUNONCE_PEER_TIMEOUT_S="10")
    started.started[0].join(180)
    started.started[1].terminate()
    said = "train, process 1 of 2: was told to stop, and is still " + AT
    deadline = time.monotonic() + 180
    while not re.search(said, started.log(1)):
        assert time.monotonic() < deadline, started.log(1)
        time.sleep(0.05)
    started.kill()


def test_a_process_that_is_slow_and_goes_on_is_left_alone(job):
    job(pause=0.4, epochs=2, env={"RUNONCE_STALL_S": "20"}).run()


def test_a_process_that_is_told_to_stop_and_hears_says_nothing_of_it(job):
    started = job(pause=0.05, epochs=2000).start()
    deadline = time.monotonic() + 180
    while "lr" not in (path.read_text() if (path := started.output(0) / "metrics.jsonl").exists() else ""):
        assert time.monotonic() < deadline, started.log(0)
        time.sleep(0.05)
    started.started[0].terminate()
    assert started.wait() == [75]
    assert started.log(0) == ""


@pytest.mark.parametrize("text", ["soon", "-1", "nan"])
def test_a_limit_that_is_no_number_of_seconds_is_refused(job, text):
    started = job(env={"RUNONCE_STALL_S": text}).start()
    assert started.wait() == [78]
    assert f"env.RUNONCE_STALL_S: is '{text}'; it is a number of seconds." in started.log(0)


def test_what_watches_ends_with_what_it_watched(monkeypatch):
    """Every process pays for a wait in it, before its first step and after its last."""
    monkeypatch.setattr(watch, "POLL_S", 3600.0)
    stop = StopRequest()

    def work() -> None:
        with watch.ending_at_once(stop):
            pass
        watch.Watch("train", stop, limit_s=0, coupled=False).close()

    working = threading.Thread(target=work, daemon=True)
    working.start()
    working.join(60)
    assert not working.is_alive()
