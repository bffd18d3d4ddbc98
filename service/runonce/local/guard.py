"""Starts one program in a process group of its own and sees to it that nothing of the group outlives the supervisor.

Run as a script by the bare interpreter, so only the standard library is here:

    python -I -S guard.py LIFELINE LOCK PROGRAM ARGUMENT…

LIFELINE is the reading end of a pipe whose writing end the supervisor alone holds; the program watches it too. LOCK is
the Job's, kept by guard and program, so that it is free only when none is left. The exit code is the program's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from types import FrameType


def main() -> None:
    lifeline, lock = int(sys.argv[1]), int(sys.argv[2])
    child: subprocess.Popen[bytes] | None = None
    asked = False

    def stop(_: int, __: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if child is not None:
            _signal_group(child.pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(  # noqa: S603 - the program that the supervisor names
        sys.argv[3:], pass_fds=(lifeline, lock), process_group=0
    )
    if asked:
        _signal_group(child.pid, signal.SIGTERM)
    threading.Thread(target=_watch, args=(lifeline, child.pid), daemon=True).start()
    code = child.wait()
    _signal_group(child.pid, signal.SIGKILL)  # what the program left behind
    if code < 0:
        with contextlib.suppress(OSError, ValueError):  # SIGKILL has no handler to reset
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _watch(lifeline: int, group: int) -> None:
    os.read(lifeline, 1)  # nobody ever writes: this returns at end-of-file
    _signal_group(group, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says EPERM of a group of zombies
        os.killpg(group, number)


if __name__ == "__main__":
    main()
