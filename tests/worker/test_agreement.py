"""How often coupled processes speak with each other."""

from __future__ import annotations

from itertools import pairwise

import pytest

from runonce.worker import agreement
from runonce.worker.agreement import INTERVAL_S, MOST_CALLS, Agreement


class Steps:
    """A clock that a loop moves on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("step_s", [0.001, 0.005, 0.3, 20.0])
def test_they_ask_about_twice_a_second_and_at_the_latest_at_every_64th_call(monkeypatch, step_s):
    asked: list[float] = []
    clock = Steps()
    monkeypatch.setattr(agreement, "maxima", lambda values: asked.append(clock.now) or list(values))
    ask = Agreement(coupled=True, clock=clock)
    for _ in range(1000):
        clock.now += step_s
        ask.ask(False, lambda: False)
    gaps = [later - earlier for earlier, later in pairwise(asked)][-5:]
    assert all(gap <= max(INTERVAL_S, step_s) + 1e-6 for gap in gaps)
    assert all(gap >= min(INTERVAL_S / 2, MOST_CALLS * step_s) - step_s - 1e-6 for gap in gaps)


def test_a_process_that_is_alone_hears_at_once():
    assert Agreement(coupled=False).ask(True, lambda: False) == (True, False)
    assert Agreement(coupled=False).ask(False, lambda: True) == (False, True)
