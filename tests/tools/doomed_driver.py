"""Drives `doomed.py`: controllers of a place that kill themselves before a given write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from control_plane import CONTROLLER
from place import Place

TOOL = Path(__file__).with_name("doomed.py")


class Doomed:
    def __init__(self, place: Place, folder: Path, *, workers: int = 1) -> None:
        self._trace = folder / "trace"
        config = folder / "cluster.json"
        config.write_text(place.cluster().model_copy(update={"workers": workers}).model_dump_json())
        arguments = [str(place.plane.kubeconfig(CONTROLLER)), str(config), place.namespace]
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(TOOL), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _say(self, line: str) -> str:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def start(self, die_at: int) -> None:
        self._trace.write_text("")
        self._say(f"start {die_at} {self._trace}")

    def died(self) -> bool:
        return self._say("look") == "killed 9"

    def end(self) -> None:
        self._say("end")

    def writes(self) -> list[str]:
        return self._trace.read_text().splitlines()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
