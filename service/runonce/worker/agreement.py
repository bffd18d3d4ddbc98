"""What coupled processes decide together while they train: to stop, and when to save a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable

from runonce.worker.group import maxima

INTERVAL_S = 0.5  # about how often they ask each other
MOST_CALLS = 64  # between two times; steps that become slow must not keep a stop waiting


class Agreement:
    """The same answer on every rank at the same call, without a collective at every call.

    Ranks call equally often. They ask each other about every half second, and at the latest at every 64th call; the
    distance follows from the slowest rank's time, which all of them know, so it is the same everywhere.
    """

    def __init__(self, *, coupled: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._coupled, self._clock = coupled, clock
        self._every, self._calls = 1, 0
        self._asked_at = clock()

    def ask(self, stop: bool, ready: Callable[[], bool]) -> tuple[bool, bool]:
        """(whether any rank is to stop, whether every rank is ready for what it waits for)."""
        if not self._coupled:
            return stop, ready()
        self._calls += 1
        if self._calls < self._every:
            return False, False
        elapsed = self._clock() - self._asked_at
        any_stop, unready, slowest = maxima([float(stop), float(not ready()), elapsed])
        fitting = int(self._every * INTERVAL_S / max(slowest, 1e-6))
        self._every = max(1, min(fitting, 2 * self._every, MOST_CALLS))
        self._calls, self._asked_at = 0, self._clock()
        return bool(any_stop), not unready
