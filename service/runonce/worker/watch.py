"""Sees that a loop goes on, and says where it is when it does not, or does not hear that it is to end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from types import FrameType

from runonce.experiment.blame import error_line
from runonce.experiment.contract import STALL_SECONDS, STALLED, STOPPED
from runonce.worker.loop import StopRequest

POLL_S = 0.25
DEAF_S = 1.0  # after SIGTERM; what saves a checkpoint has been told by then

# Where a coupled process waits for others: who hangs is another one.
_PEERS = ("/torch/distributed/", "/torch/nn/parallel/", "/torch/autograd/graph.py")
# Where any waits for the store, which has limits of its own.
_STORE = ("/runonce/worker/saving.py", "/runonce/store/")
_STDLIB = sysconfig.get_path("stdlib")


class Watch:
    """A thread beside a loop. name: of the process, for messages. limit_s: seconds without `beat`, 0 for no limit."""

    def __init__(self, name: str, stop: StopRequest, *, limit_s: float, coupled: bool) -> None:
        self._name, self._stop, self._limit_s, self._coupled = name, stop, limit_s, coupled
        self._loop = threading.get_ident()
        self._beaten = time.monotonic()
        self._told_at: float | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def beat(self) -> None:
        """The loop goes on."""
        self._beaten = time.monotonic()

    def close(self) -> None:
        self._closing.set()
        self._stop.wake()
        self._thread.join()

    def _run(self) -> None:
        said = False
        while self._listen():
            now = time.monotonic()
            if not said and self._told_at is not None and now - self._told_at > DEAF_S and not self._stop.told:
                said = True
                _say(f"{self._name}: was told to stop, and is still {self._place()}")
            if self._limit_s and now - self._beaten > self._limit_s and not self._waits():
                text = (
                    f"{self._name}: has not gone on for {self._limit_s:g} s ({STALL_SECONDS}), and is {self._place()}"
                )
                _say(error_line("Stalled", text))
                os._exit(STALLED)

    def _listen(self) -> bool:
        """For a signal, also while the loop is in code that is not Python's and hears of none; False at the end."""
        woken, _, _ = select.select([self._stop.woken], [], [], POLL_S)
        if woken and signal.SIGTERM in os.read(self._stop.woken, 64) and self._told_at is None:
            self._told_at = time.monotonic()
        return not self._closing.is_set()

    def _waits(self) -> bool:
        frame = sys._current_frames().get(self._loop)
        if self._coupled and frame is not None and _lies_in(frame, _PEERS):
            return True
        while frame is not None and not _lies_in(frame, _STORE):
            frame = frame.f_back
        return frame is not None

    def _place(self) -> str:
        """The innermost line of the author's code, or of any."""
        innermost = frame = sys._current_frames().get(self._loop)
        while frame is not None and _is_inner(frame):
            frame = frame.f_back
        frame = frame or innermost
        if frame is None:
            return "nowhere"
        return f"at {frame.f_code.co_filename}, line {frame.f_lineno}, in {frame.f_code.co_name}"


@contextlib.contextmanager
def ending_at_once(stop: StopRequest) -> Iterator[None]:
    """Meanwhile SIGTERM ends the process: who waits for others to come hears of no signal, and has nothing to save."""
    over = threading.Event()

    def listen() -> None:
        while not over.is_set():
            select.select([stop.woken], [], [])
            if not over.is_set() and signal.SIGTERM in os.read(stop.woken, 64):
                _say("was told to stop before the processes of its group had met")
                os._exit(STOPPED)

    thread = threading.Thread(target=listen, name="until they have met", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        stop.wake()
        thread.join()


def _lies_in(frame: FrameType, parts: tuple[str, ...]) -> bool:
    return any(part in frame.f_code.co_filename for part in parts)


def _is_inner(frame: FrameType) -> bool:
    path = frame.f_code.co_filename
    in_python = path.startswith((_STDLIB, "<")) and "site-packages" not in path
    return in_python or _lies_in(frame, ("/torch/", "/runonce/worker/"))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
