"""`Run` as a process of a Job gives it to a training loop."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from runonce.errors import EntryError, Fault
from runonce.experiment.config import ExperimentConfig
from runonce.experiment.params import ExperimentParameters
from runonce.experiment.run import Checkpoint, Run

if TYPE_CHECKING:
    from runonce.worker.checkpoint import Checkpoints

METRICS = "metrics.jsonl"


class StopRequest:
    """Set by SIGTERM; seen by the loop when it asks.

    alone: no supervisor signals the whole process group, as in a pod, so a program that was started has to be told.
    """

    def __init__(self, *, alone: bool = False) -> None:
        self.asked = False  # by the machine
        self.told = False  # to the loop, which then ends early
        self._alone = alone
        self._program: subprocess.Popen[bytes] | None = None

    def listen(self) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # `runonce worker` has kept one that came early

    def pass_to(self, program: subprocess.Popen[bytes]) -> None:
        self._program = program
        if self.asked and self._alone:
            program.terminate()

    def _stop(self, _: int, __: FrameType | None) -> None:
        self.asked = True
        if self._program is not None and self._alone:
            self._program.terminate()


class WorkerRun(Run):
    def __init__(
        self,
        *,
        mode: str,
        params: ExperimentParameters,
        process_ind: int,
        total_processes: int,
        coupled: bool,
        device: Any,
        seeds: Sequence[int],
        output: Path,
        inputs: Mapping[str, Path],
        checkpoints: Checkpoints,
        stop: StopRequest,
    ) -> None:
        self.mode = mode
        self.params = params
        self.process_ind = process_ind
        self.total_processes = total_processes
        self.device = device
        self.seeds = list(seeds)
        self.seed = self.seeds[process_ind]
        self.output = output
        self.inputs = inputs
        self.metrics: dict[str, float] = {}  # the last value of each name
        self._coupled = coupled and total_processes > 1
        self._checkpoints = checkpoints
        self._stop = stop
        self._log = (output / METRICS).open("a", encoding="utf-8")

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
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
        self._log.flush()

    def save_checkpoint(self, state: Mapping[str, Any], *, step: int) -> None:
        from runonce.worker.group import wait_for_all

        self._checkpoints.save(state, step=step)
        if self._coupled:
            wait_for_all()  # a step counts when all have written it

    def latest_checkpoint(self) -> Checkpoint | None:
        return self._checkpoints.latest()

    def should_stop(self) -> bool:
        asked = self._stop.asked
        if self._coupled:
            from runonce.worker.group import any_rank

            asked = any_rank(asked, self.device)
        self._stop.told = self._stop.told or asked
        return asked

    def default_loop(self, config: ExperimentConfig) -> None:
        raise EntryError(
            Fault(
                f"{type(config).__qualname__}.{self.mode}",
                "is not overridden, and this release has no default engine for it.",
                f"Define def {self.mode}(self, run) in the class: a plain torch loop.",
            )
        )

    def close(self) -> None:
        self._log.close()
