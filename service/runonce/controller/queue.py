"""What is to be looked at: each key once, one worker a key, later and later where it fails."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections import deque
from collections.abc import Callable

MIN_BACKOFF_S, MAX_BACKOFF_S = 1.0, 300.0


class WorkQueue:
    """Keys that wait for a worker. A key that is added while it is worked on comes again after that."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._ready: deque[str] = deque()
        self._waiting: dict[str, float] = {}  # keys in `_ready`, since when
        self._active: dict[str, float] = {}  # keys that a worker has, since when
        self._again: set[str] = set()
        self._later: list[tuple[float, str]] = []
        self._due: dict[str, float] = {}  # the earliest time of a key in `_later`; other entries of it are void
        self._failures: dict[str, int] = {}
        self._closed = False

    def add(self, key: str) -> None:
        with self._changed:
            if key in self._active:
                self._again.add(key)
            elif key not in self._waiting:
                self._waiting[key] = self._clock()
                self._ready.append(key)
                self._changed.notify()

    def add_after(self, key: str, seconds: float) -> None:
        with self._changed:
            due = self._clock() + seconds
            if due < self._due.get(key, float("inf")):
                self._due[key] = due
                heapq.heappush(self._later, (due, key))
                self._changed.notify()

    def get(self) -> str | None:
        """The next key, when there is one; None once the queue is closed."""
        with self._changed:
            while True:
                self._promote()
                if self._closed:
                    return None
                if self._ready:
                    key = self._ready.popleft()
                    del self._waiting[key]
                    self._active[key] = self._clock()
                    return key
                self._changed.wait(self._later[0][0] - self._clock() if self._later else None)

    def done(self, key: str) -> None:
        """The worker is finished with it, and all is well."""
        with self._changed:
            self._failures.pop(key, None)
            self._finish(key)

    def failed(self, key: str, *, at_least_s: float = 0.0) -> None:
        """The worker is finished with it, and it has to be tried again, each time after a longer while."""
        with self._changed:
            count = self._failures[key] = self._failures.get(key, 0) + 1
            wait_s = min(MIN_BACKOFF_S * 2 ** min(count - 1, 20), MAX_BACKOFF_S)
            self._finish(key)
        self.add_after(key, max(at_least_s, wait_s * random.uniform(0.5, 1.0)))  # noqa: S311 - jitter

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def depth(self) -> int:
        return len(self._ready)

    def age_s(self) -> float:
        """How long the first key has been waiting for a worker."""
        with self._changed:
            return self._clock() - self._waiting[self._ready[0]] if self._ready else 0.0

    def is_busy(self) -> bool:
        """Whether a worker has a key, or one waits for it."""
        with self._changed:
            return bool(self._active or self._ready)

    def slow(self, seconds: float) -> list[str]:
        """Keys that a worker has had for longer."""
        with self._changed:
            now = self._clock()
            return [key for key, since in self._active.items() if now - since > seconds]

    def _finish(self, key: str) -> None:
        self._active.pop(key, None)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _promote(self) -> None:
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            due, key = heapq.heappop(self._later)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)
