"""How much of a transfer is done and how fast it goes, as people read it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

Tell = Callable[[int], None]  # bytes that have been moved since the last call, from any thread


def nobody(size: int) -> None:
    """For those who do not ask."""


class Moved:
    """Call it with bytes as they are moved: it says `what: 1.2 of 10.4 GB, 250 MB/s`, at most once in `every_s`."""

    def __init__(self, what: str, total: int, say: Callable[[str], None], *, every_s: float) -> None:
        self._what, self._total, self._say, self._every_s = what, total, say, every_s
        self._lock = threading.Lock()
        self._done, self._start = 0, time.monotonic()
        self._next = self._start + every_s

    def __call__(self, size: int) -> None:
        with self._lock:
            self._done += size
            now = time.monotonic()
            if now < self._next:
                return
            self._next = now + self._every_s
            text = self.text(now - self._start)
        self._say(text)

    def text(self, seconds: float) -> str:
        rate = self._done / seconds if seconds > 0 else 0.0
        return f"{self._what}: {size_text(self._done)} of {size_text(self._total)}, {size_text(int(rate))}/s"


def size_text(size: int) -> str:
    """`512 B`, `1.2 MB`: decimal units."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
