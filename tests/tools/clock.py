"""A controller's clock that a test moves: minutes of its queue and of its waiting pass when the test says so."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from runonce.controller import main, written
from runonce.controller.main import Controller
from runonce.controller.waits import Waits


class Clock:
    """Takes the place of `time.monotonic` in controllers that are made after `into`."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead_s

    def into(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(main, "WorkQueue", partial(main.WorkQueue, clock=self.monotonic))
        monkeypatch.setattr(main, "World", partial(main.World, waits=Waits(self.monotonic)))
        monkeypatch.setattr(written, "time", self)

    def go_on(self, controller: Controller, seconds: float) -> None:
        self._ahead_s += seconds
        with controller._queue._changed:  # who waits for a time to come looks at it anew
            controller._queue._changed.notify_all()
