"""Kills programs when whoever started them is gone, however that came about.

Run as a script by the bare interpreter, with a pipe as standard input whose writing end the starter alone holds:

    python -I -S reaper.py FOLDER

`+PID` adds a program, `-PID` tells that it has been waited for. At end-of-file those left are killed and FOLDER goes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time


def main() -> None:
    left: set[int] = set()
    for line in sys.stdin:
        (left.add if line.startswith("+") else left.discard)(int(line[1:]))
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for _ in range(50):  # a program that is being killed may still make files
        shutil.rmtree(sys.argv[1], ignore_errors=True)
        if not os.path.exists(sys.argv[1]):
            return
        time.sleep(0.1)


if __name__ == "__main__":
    main()
