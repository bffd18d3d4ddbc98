"""A worker that counts its calls to the world outside, and kills itself and its group by SIGKILL before the one of a number.

A call is a piece of a request to a store (head and body apart), a write in a folder store, a rendezvous, a collective, a
program started. To die before call k+1 is to die after call k, so these moments are all there are. What a worker does
beside its loop is done in the loop here: else call k would not be the same one each time.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crash import is_write

LIVES = -1


@dataclass(frozen=True)
class Doom:
    """trace: file to which each call adds a line, its part of the work. folder: of a folder store, else empty."""

    die_at: int
    trace: str
    folder: str = ""

    def parts(self) -> list[str]:
        """The part of the work that each call belonged to; none of a process that was ended while it still started."""
        trace = Path(self.trace)
        return trace.read_text().split() if trace.exists() else []


class _Gate:
    def __init__(self, doom: Doom) -> None:
        self._doom, self._number, self._part = doom, 0, "facts"
        self._lock = threading.Lock()
        self._trace = os.open(doom.trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def call(self) -> None:
        with self._lock:
            if self._number == self._doom.die_at:
                os.killpg(os.getpgrp(), signal.SIGKILL)  # as of a pod: nothing that it started goes on
            self._number += 1
            os.write(self._trace, f"{self._part}\n".encode())

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        folder = self._doom.folder
        # Which of two processes makes a folder is a race, and an empty one is nothing.
        written = folder and event != "os.mkdir" and is_write(event, arguments, folder)
        if written or event in ("http.client.send", "subprocess.Popen"):
            self.call()

    def counted(self, owner: Any, name: str) -> None:
        call = getattr(owner, name)

        def counting(*given: Any, **named: Any) -> Any:
            self.call()
            return call(*given, **named)

        setattr(owner, name, counting)

    def named(self, owner: Any, name: str, part: str) -> None:
        call: Callable[..., Any] = getattr(owner, name)

        def naming(*given: Any, **named: Any) -> Any:
            before, self._part = self._part, part
            try:
                return call(*given, **named)
            finally:
                self._part = before

        setattr(owner, name, naming)


def doom(given: Doom) -> None:
    """Of this process, once its modules are imported and before it works."""
    import torch.distributed as dist

    from runonce.store.folder import FolderBackend
    from runonce.store.s3 import S3Backend
    from runonce.worker import agreement, engine, group, loop, run, saving
    from runonce.worker.checkpoint import Checkpoints

    gate = _Gate(given)
    for backend in (FolderBackend, S3Backend):
        backend.threads = 1
    agreement.INTERVAL_S = 0.0  # asked at every step, whatever the clock says
    save = saving.Saver.save

    def saved_at_once(self: Any, *given: Any, **named: Any) -> None:
        save(self, *given, **named)
        self._wait()

    forget = Checkpoints._forget

    def forget_together(self: Any) -> None:
        """Which steps are old depends on what the other has written by then: so both have."""
        group.any_rank(False)
        forget(self)

    saving.Saver.save = saved_at_once  # type: ignore[method-assign]
    Checkpoints._forget = forget_together  # type: ignore[method-assign]
    for name in ("init_process_group", "all_reduce", "all_gather", "destroy_process_group"):
        gate.counted(dist, name)
    gate.named(run, "republish", "take-over")
    gate.named(run, "restore_inputs", "restore")
    gate.named(run, "_run_config", "train")
    gate.named(run, "run_command", "command")
    gate.named(group, "join", "rendezvous")
    gate.named(engine.Trainer, "_resume", "restore")
    gate.named(loop.WorkerRun, "latest_checkpoint", "restore")
    gate.named(Checkpoints, "save", "checkpoint")
    gate.named(run, "publish", "publish")
    sys.addaudithook(gate.hear)
