"""Runs the processes of one Job on this machine: who starts when, and what follows when one ends.

A thread of the process that created the Job. When that dies, every guard sees the end of its lifeline.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from runonce.experiment.blame import ENDED_WITH_GROUP, OVERTIME, ordered, reason_of
from runonce.experiment.contract import (
    ATTEMPT,
    CONFIGURATION,
    DAMAGED_INPUT,
    INDEX,
    LIFELINE,
    MAX_STOPS,
    OUTPUT,
    SPEC_FILE,
    STOPPED,
)
from runonce.experiment.job import Failure, JobPlan, JobState
from runonce.local import guard

_FINAL = (CONFIGURATION, DAMAGED_INPUT)  # the same for every index, and at every try

POLL_S = 0.05
LOG_TAIL_BYTES = 2048
GROUP_GRACE_S = 2.0  # coupled ranks that lost a peer can save nothing; they may only say so


@dataclass
class Child:
    """One running process. ended_by: why it was told to end, empty where nobody told it. cut: it had no more grace."""

    guard: subprocess.Popen[bytes]
    lifeline: int
    output: Path
    started: float
    ended_by: str = ""
    kill_at: float = field(default=float("inf"))
    cut: bool = False

    def end(self, why: str, grace_s: float) -> None:
        if not self.ended_by:
            self.ended_by, self.kill_at = why, time.monotonic() + grace_s
            self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """The end of its lifeline ends the whole group, also where the guard is gone."""
        if not self.cut:
            self.cut = True
            os.close(self.lifeline)

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.guard.send_signal(number)


class Supervisor(threading.Thread):
    """folder: of this attempt. watch: what is wanted now (None: end at once). report: takes the state on."""

    def __init__(
        self,
        plan: JobPlan,
        state: JobState,
        *,
        folder: Path,
        lock: int,
        command: Sequence[str],
        workdir: Path,
        grace_s: float,
        watch: Callable[[], JobState | None],
        report: Callable[[JobState], None],
    ) -> None:
        super().__init__(name=f"supervisor of {plan.name}", daemon=True)
        self._plan, self._state, self._folder, self._lock = plan, state, folder, lock
        self._command, self._workdir, self._grace_s = command, workdir, grace_s
        self._watch, self._report = watch, report
        self._pending = list(range(plan.shape.completions))
        self._children: dict[int, Child] = {}
        self._tries: Counter[int] = Counter()  # starts of each index
        self._charged: Counter[int] = Counter()
        self._not_before: dict[int, float] = {}
        self._succeeded: set[int] = set()
        self._failures: dict[int, Failure] = {}
        self._failing = False
        self._hurry = False
        self._port = _free_port()

    @property
    def job_name(self) -> str:
        return self._plan.name

    def hurry(self) -> None:
        """No more grace for anyone."""
        self._hurry = True

    def run(self) -> None:
        try:
            while self._step():
                time.sleep(POLL_S)
        except Exception as error:  # whatever it is, no process may stay and the Job must end
            self._failures.setdefault(
                -1, Failure(index=-1, exit_code=None, reason="RunnerFailed", log_tail=repr(error))
            )
            raise
        finally:
            for child in self._children.values():
                child.kill()
                child.guard.wait()
            self._children.clear()
            done = len(self._succeeded) == self._plan.shape.completions
            self._tell(phase="complete" if done else "failed")
            shutil.rmtree(self._folder / "out", ignore_errors=True)
            os.close(self._lock)

    def _step(self) -> bool:
        """One look at everything; False when there is nothing left to do."""
        wanted = self._watch()
        if wanted is None:
            self._pending.clear()
            self._end_all("Left", self._grace_s)
        elif wanted.suspended:
            self._end_all("Suspended", self._grace_s)
        for index in [i for i, child in self._children.items() if child.guard.poll() is not None]:
            self._ended(index, self._children.pop(index))
        self._enforce()
        if wanted is not None and not wanted.suspended:
            self._start_pending()
        self._tell(phase="active")
        return bool(self._children or self._pending)

    def _start_pending(self) -> None:
        shape = self._plan.shape
        at_once = shape.parallelism if shape.coupled or shape.gpus else min(shape.parallelism, os.cpu_count() or 1)
        busy = {device for index in self._children for device in self._devices(index)}
        for index in list(self._pending):
            if len(self._children) >= at_once:
                return
            taken = not shape.coupled and busy & set(self._devices(index))
            if taken or self._not_before.get(index, 0.0) > time.monotonic():
                continue
            self._pending.remove(index)
            busy |= set(self._devices(index))
            self._children[index] = self._start(index)

    def _devices(self, index: int) -> tuple[int, ...]:
        slots = self._plan.shape.device_slots
        return slots[index] if slots else ()

    def _start(self, index: int) -> Child:
        output = self._folder / "out" / f"{index}-{self._tries[index]}"
        self._tries[index] += 1
        output.mkdir(parents=True)
        reading, writing = os.pipe()
        with (self._folder / "logs" / f"{index}.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - the worker
                [sys.executable, "-I", "-S", guard.__file__, str(reading), str(self._lock), *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._workdir,
                env={**self._env(index, output), LIFELINE: str(reading)},
                pass_fds=(reading, self._lock),
                start_new_session=True,
            )
        os.close(reading)
        return Child(process, writing, output, time.monotonic())

    def _env(self, index: int, output: Path) -> Mapping[str, str]:
        threads = max(1, (os.cpu_count() or 1) // max(1, min(self._plan.shape.parallelism, os.cpu_count() or 1)))
        env = {"OMP_NUM_THREADS": str(threads), **os.environ, **self._plan.env}
        env |= {
            "PYTHONUNBUFFERED": "1",
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, self._devices(index))),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self._port),
            INDEX: str(index),
            ATTEMPT: self._state.uid,
            OUTPUT: str(output),
            SPEC_FILE: str(self._folder / "spec.json"),
        }
        return env

    def _ended(self, index: int, child: Child) -> None:
        code, by_itself = child.guard.returncode, not child.cut
        child.kill()
        shutil.rmtree(child.output, ignore_errors=True)
        if code == 0:
            self._succeeded.add(index)
        elif child.ended_by == "Suspended":
            self._pending.append(index)
        elif child.ended_by:
            # A peer that ends by itself meanwhile may be the cause, and the one seen first its victim.
            own = child.ended_by == ENDED_WITH_GROUP and by_itself and code not in (-signal.SIGTERM, STOPPED)
            self._fail(index, code, _reason(code) if own else child.ended_by)
        elif self._plan.shape.coupled:
            self._fail(index, code, _reason(code))
            self._failing = True
            self._pending.clear()
            self._end_all(ENDED_WITH_GROUP, GROUP_GRACE_S)
        elif code == STOPPED and self._tries[index] <= MAX_STOPS:
            self._pending.append(index)
        elif code not in _FINAL and self._charged[index] < self._plan.retries:
            self._charged[index] += 1
            self._not_before[index] = time.monotonic() + min(0.5 * 2 ** self._charged[index], 30.0)
            self._pending.append(index)
        else:
            self._fail(index, code, _reason(code))
            if code in _FINAL:
                self._failing = True
                self._pending.clear()
                self._end_all(ENDED_WITH_GROUP, GROUP_GRACE_S)

    def _fail(self, index: int, code: int, reason: str) -> None:
        self._failures[index] = Failure(index=index, exit_code=code, reason=reason, log_tail=self._log_tail(index))

    def _end_all(self, why: str, grace_s: float) -> None:
        for child in self._children.values():
            child.end(why, grace_s)

    def _enforce(self) -> None:
        now = time.monotonic()
        limit = self._plan.active_deadline_s
        for child in self._children.values():
            if limit is not None and now - child.started > limit:
                child.end(OVERTIME, self._grace_s)
            if now > child.kill_at or (self._hurry and child.ended_by):
                child.kill()

    def _tell(self, phase: str) -> None:
        seen = sorted(self._failures.values(), key=lambda failure: failure.index)
        # Who hung is known once nobody of the group is left.
        failures = tuple(seen) if phase == "active" else ordered(seen)
        state = replace(
            self._state,
            phase=phase,  # type: ignore[arg-type]
            failing=self._failing and phase == "active",
            active=len(self._children),
            succeeded=tuple(sorted(self._succeeded)),
            failures=failures,
        )
        if state != self._state:
            self._state = state
            self._report(state)

    def _log_tail(self, index: int) -> str:
        with contextlib.suppress(OSError), (self._folder / "logs" / f"{index}.log").open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")
        return ""


def _reason(code: int) -> str:
    if code < 0:
        return f"Killed{signal.Signals(-code).name.removeprefix('SIG').title()}"
    return reason_of(code)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
