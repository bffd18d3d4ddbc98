"""`Run` as a process of a Job gives it to a training loop."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from runonce.errors import Damaged
from runonce.experiment.config import ExperimentConfig
from runonce.experiment.metrics import METRICS
from runonce.experiment.params import ExperimentParameters
from runonce.experiment.run import Checkpoint, Run

if TYPE_CHECKING:
    from runonce.worker.checkpoint import Checkpoints, Step

FLUSH_S = 1.0  # who follows a run sees an entry after about so long

Loaded = TypeVar("Loaded")


class StopRequest:
    """Set by SIGTERM; seen by the loop when it asks.

    alone: no supervisor signals the whole process group, as in a pod, so a program that was started has to be told.
    """

    def __init__(self, *, alone: bool = False) -> None:
        self.woken, self._waker = os.pipe()  # readable after SIGTERM, also while the loop hears of no signal
        self.asked = False  # by the machine
        self.asked_at = 0.0  # Unix time
        self.told = False  # to the loop, which then ends early
        self._alone = alone
        self._program: subprocess.Popen[bytes] | None = None

    def listen(self) -> None:
        os.set_blocking(self._waker, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # its signals are not ours
        signal.signal(signal.SIGTERM, self._stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # `runonce worker` has kept one that came early

    def wake(self) -> None:
        """Whoever listens on `woken` has a look, though no signal came."""
        with contextlib.suppress(BlockingIOError):  # it is full: readable
            os.write(self._waker, b"\0")

    def pass_to(self, program: subprocess.Popen[bytes]) -> None:
        self._program = program
        if self.asked and self._alone:
            program.terminate()

    def _stop(self, _: int, __: FrameType | None) -> None:
        self.asked, self.asked_at = True, self.asked_at or time.time()
        if self._program is not None and self._alone:
            self._program.terminate()


class WorkerRun(Run):
    """base_seed: that of the experiment. coupled: whether the processes form one group. quick: as in the contract.

    beat: called whenever the loop goes on. checkpoint_s: seconds between checkpoints of the engine.
    sums: metrics of an evaluation as (sum, count).
    """

    def __init__(
        self,
        *,
        mode: str,
        params: ExperimentParameters,
        process_ind: int,
        total_processes: int,
        coupled: bool,
        device: Any,
        base_seed: int,
        seeds: Sequence[int],
        output: Path,
        inputs: Mapping[str, Path],
        checkpoints: Checkpoints,
        scratch: Path,
        stop: StopRequest,
        beat: Callable[[], None],
        checkpoint_s: float = 60.0,
        quick: int = 0,
    ) -> None:
        from runonce.worker.agreement import Agreement
        from runonce.worker.saving import Saver

        self.mode = mode
        self.params = params
        self.process_ind = process_ind
        self.total_processes = total_processes
        self.device = device
        self.base_seed = base_seed
        self.seeds = list(seeds)
        self.seed = self.seeds[process_ind]
        self.output = output
        self.inputs = inputs
        self.quick = quick
        self.beat = beat
        self.coupled = coupled and total_processes > 1
        self.checkpoints = checkpoints
        self.metrics: dict[str, float] = {}  # the last value of each name
        self.sums: dict[str, tuple[float, int]] = {}
        self._scratch = scratch
        self._stop = stop
        self._checkpoint_s = checkpoint_s
        self._saver = Saver(checkpoints, log=output / METRICS, scratch=scratch)
        self._agreement = Agreement(coupled=self.coupled)
        self._log = (output / METRICS).open("a", encoding="utf-8")
        self._log_restored = False
        self._flushed_at = self._saved_at = self._boundary_at = time.monotonic()

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        self.beat()
        now = time.time()
        for name, value in metrics.items():
            number = float(value)
            # nan and inf are no JSON; their names are.
            shown = number if isfinite(number) else str(number)
            line = {
                "step": step,
                "mode": self.mode,
                "index": self.process_ind,
                "name": name,
                "value": shown,
                "time": now,
            }
            self._log.write(json.dumps(line) + "\n")
            if isfinite(number):
                self.metrics[name] = number
        if time.monotonic() - self._flushed_at >= FLUSH_S:
            self._flush()

    def save_checkpoint(self, state: Mapping[str, Any], *, step: int) -> None:
        self.save_parts({"state": state}, step=step)

    def latest_checkpoint(self) -> Checkpoint | None:
        for step in self.checkpoints.newest():
            state = self.load_agreed(step, partial(self.checkpoints.load, step, "state"))
            if state is not None:
                return Checkpoint(step=step.step, state=state)
        others = self.checkpoints.totals()
        if others and self.total_processes not in others and self.process_ind == 0:
            print(
                f"{self.mode}: begins anew: there are checkpoints of {others} processes, and of this loop only as many "
                "can go on from them.",
                file=sys.stderr,
                flush=True,
            )
        return None

    def should_stop(self) -> bool:
        return self._ask(lambda: False)[0]

    def default_loop(self, config: ExperimentConfig) -> None:
        from runonce.worker.engine import default_loop

        default_loop(self, config)

    # --- for the engine ---------------------------------------------------------------------------------------

    def agree(self) -> tuple[bool, bool]:
        """Of all processes at this step: (whether the machine asked to stop, whether a checkpoint is due)."""
        return self._ask(lambda: self._is_due(self._saved_at))

    def boundary_is_due(self) -> bool:
        """Of all processes: whether the end of this epoch is to be saved."""
        due = self._is_due(self._boundary_at)
        if not self.coupled:
            return due
        from runonce.worker.group import any_rank

        return not any_rank(not due)

    def save_parts(self, parts: Mapping[str, Mapping[str, Any]], *, step: int, boundary: bool = False) -> None:
        """Save this process's states in the background; as `save_checkpoint`. boundary: as in `Checkpoints`."""
        self.beat()
        self._flush()
        self._saver.save(parts, step=step, boundary=boundary)
        self._saved_at = time.monotonic()
        if boundary:
            self._boundary_at = self._saved_at

    def load_agreed(self, step: Step, load: Callable[[], Loaded | None]) -> Loaded | None:
        """What `load` reads of a checkpoint, and its metrics.jsonl, or None on all processes."""
        loaded, log = None, self._scratch / "restored.jsonl"
        try:
            loaded = load()
            index = min(self.process_ind, step.total - 1)
            if index == self.process_ind:
                self.checkpoints.fetch(step, METRICS, log)
        except Damaged as error:
            print(f"warning: a checkpoint of step {step.step} is passed over: {error}", file=sys.stderr, flush=True)
            loaded = None
        if self.coupled:
            from runonce.worker.group import any_rank

            if any_rank(loaded is None):
                return None
        if loaded is not None and log.exists():
            self._restore_log(log)
        log.unlink(missing_ok=True)
        return loaded

    def _restore_log(self, restored: Path) -> None:
        """What was logged up to the checkpoint comes before what is logged now."""
        if self._log_restored:
            return
        self._log_restored = True
        self._log.close()
        path = self.output / METRICS
        text, since = restored.read_text(encoding="utf-8"), path.read_text(encoding="utf-8")
        path.write_text(text + since, encoding="utf-8")
        self._log = path.open("a", encoding="utf-8")
        for line in text.splitlines():
            entry = json.loads(line)
            if not isinstance(entry["value"], str):
                self.metrics[entry["name"]] = entry["value"]

    def close(self) -> None:
        """Wait for the last checkpoint, which a process that was told to stop needs; raises what the store raised."""
        self._flush()
        self._log.close()
        self._saver.close(needed=self._stop.told)

    def _ask(self, ready: Callable[[], bool]) -> tuple[bool, bool]:
        self.beat()
        stop, is_ready = self._agreement.ask(self._stop.asked, ready)
        self._stop.told = self._stop.told or stop
        return stop, is_ready

    def _is_due(self, since: float) -> bool:
        return time.monotonic() - since >= self._checkpoint_s and not self._saver.busy

    def _flush(self) -> None:
        self._log.flush()
        self._flushed_at = time.monotonic()
