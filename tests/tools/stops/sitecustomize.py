"""Put first on PYTHONPATH, it makes a Python process tell of every write below RUNONCE_HOME, and wait before one of them.

RUNONCE_STOPS: a folder. Writes are told in its file `trace`: role, number from 0, path. Before the one that RUNONCE_STOP_AT
names (`role number`) the process makes the file `reached` and waits for the file `go`; from outside anything can be done to
it meanwhile. Roles: `run`, and `<mode> <index>` of each process of a Job.
"""

from __future__ import annotations

import os
import sys
import threading
import time

WRITES = ("os.link", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.utime", "os.chmod", "os.truncate")

LOCKS = ("/alive", "/mutex", "/lock")  # opened again and again by who only looks


class Stops:
    def __init__(self, folder: str, home: str) -> None:
        self._folder, self._home, self._stop_at = folder, home, os.environ.get("RUNONCE_STOP_AT", "")
        mode, index = os.environ.get("RUNONCE_MODE"), os.environ.get("JOB_COMPLETION_INDEX")
        self._role = f"{mode}-{index}" if mode else "run"
        self._trace = os.open(f"{folder}/trace", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._number, self._lock = 0, threading.Lock()

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            flags = arguments[2]
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event not in WRITES:
            return
        paths = [os.fsdecode(a) for a in arguments[:2] if isinstance(a, str | bytes | os.PathLike)]
        if any(path.startswith(self._home) and not path.endswith(LOCKS) for path in paths):
            self._count(paths[-1])

    def _count(self, path: str) -> None:
        with self._lock:
            number, self._number = self._number, self._number + 1
        os.write(self._trace, f"{self._role} {number} {path.removeprefix(self._home)}\n".encode())
        if f"{self._role} {number}" == self._stop_at:
            os.close(os.open(f"{self._folder}/reached", os.O_WRONLY | os.O_CREAT, 0o600))
            while not os.path.exists(f"{self._folder}/go"):
                time.sleep(0.01)


if os.environ.get("RUNONCE_STOPS"):
    sys.addaudithook(Stops(os.environ["RUNONCE_STOPS"], os.environ["RUNONCE_HOME"]).hear)
