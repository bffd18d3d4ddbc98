"""Many experiments: those that are in the store at once, the others one after another or some at a time."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import TYPE_CHECKING, Any

from runonce.api.outcome import STOPPED_MESSAGE, Context, Ended, Outcome, Outcomes, cached
from runonce.api.progress import Screen
from runonce.api.target import Located, prove_all
from runonce.experiment.contract import STOPPED
from runonce.experiment.phase import Phase

if TYPE_CHECKING:
    from runonce.api.session import Session

POLL_S = 0.1
PROBES = 8  # threads that ask the store whether it has a result


def run_all(found: Sequence[Located], context: Context, screen: Screen) -> list[Ended]:
    """Run every experiment, in order; all are checked before one is run, and one that fails does not end the others.

    After an interrupt (SIGINT, SIGTERM) those that run have saved a checkpoint, and the rest is not begun: what is
    not done has exit code 75. Raises InputError.
    """
    prove_all(found, context.settings.sources)
    asked = [_asked(located, context) for located in found]
    there = _from_store(found, asked, context)
    missing = [place for place in range(len(found)) if place not in there]
    sessions: dict[int, Session] = {}
    if missing:
        from runonce.api.session import Session

        several = len(found) > 1
        sessions = {place: Session(found[place], asked[place], context, screen, several=several) for place in missing}
        _Runner(sessions, context, screen, done=len(there)).run()
    outcomes = {place: session.outcomes for place, session in sessions.items()} | there
    return [
        Ended(
            name=located.name,
            point=located.point,
            outcomes=outcomes[place] or {mode: _not_begun(located, mode) for mode in asked[place]},
        )
        for place, located in enumerate(found)
    ]


def _asked(located: Located, context: Context) -> list[str]:
    return context.asked(located.name, {mode: tuple(parts.inputs) for mode, (parts, _) in located.keys.items()})


def _from_store(found: Sequence[Located], asked: Sequence[Sequence[str]], context: Context) -> dict[int, Outcomes]:
    """Those that need nothing to be run, by their place."""

    def look(place: int) -> Outcomes | None:
        located = found[place]
        if context.overwrite or located.spec.overwrite:
            return None
        keys = {mode: (located.keys[mode][1], tuple(located.keys[mode][0].inputs)) for mode in asked[place]}
        totals = {mode: located.spec.shape(mode, local=True).completions for mode in located.spec.modes()}
        outcomes = cached(located.name, keys, totals, context)
        return outcomes if len(outcomes) == len(keys) else None

    with ThreadPoolExecutor(PROBES) as pool:
        looked = enumerate(pool.map(look, range(len(found))))
        return {place: outcomes for place, outcomes in looked if outcomes is not None}


def _not_begun(located: Located, mode: str) -> Outcome:
    key = located.keys[mode][1]
    return Outcome(cache_key=key, phase=Phase.PENDING, message=STOPPED_MESSAGE, exit_code=STOPPED)


class _Runner:
    """Takes the sessions on, `at_once` of them at a time, all in this thread."""

    def __init__(self, sessions: dict[int, Session], context: Context, screen: Screen, *, done: int) -> None:
        self._waiting = deque(sessions.values())
        self._running: list[tuple[Session, Generator[None]]] = []
        self._at_once, self._screen = context.at_once, screen
        self._hits, self._total, self._made, self._failed = done, done + len(sessions), 0, 0

    def run(self) -> None:
        with _Interruptible() as interrupt:
            try:
                while self._waiting or self._running:
                    self._step()
            except KeyboardInterrupt:
                self._stop(interrupt)
            finally:
                for session, _ in self._running:
                    session.close()
                self._screen.close()

    def _step(self) -> None:
        while self._waiting and len(self._running) < self._at_once:
            session = self._waiting.popleft()
            self._running.append((session, session.steps()))
        for entry in list(self._running):
            session, steps = entry
            if next(steps, _END) is _END:
                self._running.remove(entry)
                session.close()
                self._count(session.outcomes)
        if self._running:
            time.sleep(POLL_S)

    def _count(self, outcomes: Outcomes) -> None:
        failed = any(outcome.exit_code for outcome in outcomes.values())
        self._failed += failed
        self._made += not failed
        if self._total > 1:
            done = self._hits + self._made + self._failed
            text = f"{done} of {self._total} done: {self._hits} cached, {self._made} made, {self._failed} failed"
            self._screen.tell(text)
            self._screen.bar("all", text, done, self._total)

    def _stop(self, interrupt: _Interruptible) -> None:
        """Let the processes save a checkpoint; a second interrupt ends them at once."""
        self._waiting.clear()
        for session, _ in self._running:
            session.say("stopping after a checkpoint; once more to stop at once")
        threads = [threading.Thread(target=session.stop) for session, _ in self._running]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            interrupt.ignore()
            for session, _ in self._running:
                session.close()
            for thread in threads:
                thread.join()


_END = object()


class _Interruptible:
    """SIGTERM as Ctrl-C: whoever stops a run wants its checkpoint. Signals belong to the main thread alone."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> _Interruptible:
        if threading.current_thread() is threading.main_thread():
            self._set(signal.SIGTERM, _interrupt)
        return self

    def ignore(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._set(signal.SIGINT, signal.SIG_IGN)
            self._set(signal.SIGTERM, signal.SIG_IGN)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _set(self, number: signal.Signals, handler: Any) -> None:
        before = signal.signal(number, handler)
        self._before.setdefault(number, before)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt
