"""`runonce worker`: what a pod starts. The worker is another program, which nobody imports."""

from __future__ import annotations

import os
import signal
import sys

import click


@click.command(hidden=True)
def worker() -> None:
    """One process of a Job, as its pod's environment describes it."""
    # The first process of a pod never sees a SIGTERM that comes before its handler is there. Blocked, it waits for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    os.execv(sys.executable, [sys.executable, "-m", "runonce.worker"])  # noqa: S606 - the very same interpreter
