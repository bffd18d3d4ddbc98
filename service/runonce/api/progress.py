"""What is seen while processes run: their output with a prefix, their newest metrics, on standard error."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from runonce.experiment.metrics import METRICS, parse_metrics

if TYPE_CHECKING:
    from runonce.local.processes import LocalJobs

METRICS_EVERY_S = 1.0


class Screen:
    """Standard error, shared by all that runs at once. On a terminal the newest line of each stays at the bottom."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._lines: dict[str, str] = {}
        self._status: Any = None

    def say(self, text: str) -> None:
        """A line that stays."""
        self._clear()
        if not self._quiet:
            click.echo(text, err=True)

    def show(self, who: str, text: str) -> None:
        """A line that the next one of `who` is written over, where that can be done."""
        if self._quiet:
            return
        if not sys.stderr.isatty():
            click.echo(text, err=True)
            return
        self._lines[who] = text
        if self._status is None:
            from rich.console import Console

            self._status = Console(stderr=True, markup=False, highlight=False).status("")
            self._status.start()
        self._status.update("\n".join(self._lines.values()))

    def forget(self, who: str) -> None:
        self._clear()
        self._lines.pop(who, None)

    def _clear(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


class Progress:
    """Of one experiment. Lines as they come; metrics at most once a second. name: leads each line; may be empty."""

    def __init__(self, jobs: LocalJobs, screen: Screen, name: str = "") -> None:
        self._jobs, self._screen, self._name = jobs, screen, name
        self._mode, self._job, self._uid = "", "", ""
        self._tails: dict[Path, IO[str]] = {}
        self._said = ""
        self._metrics: dict[str, tuple[int, float]] = {}
        self._shown_at = 0.0

    @property
    def _label(self) -> str:
        return " ".join(part for part in (self._name, self._mode) if part)

    def begin(self, mode: str, job: str) -> None:
        self._flush()
        self._mode, self._job, self._uid, self._said, self._metrics = mode, job, "", "", {}

    def say(self, text: str) -> None:
        self._screen.say(f"{self._label}: {text}")

    def fail(self, text: str) -> None:
        self._screen.say(f"error: {self._label}: {text}")

    def wait(self, reason: str) -> None:
        """Called again and again while nothing is to be done but to look."""
        state = self._jobs.get(self._job)
        if state is None:
            if reason != self._said:
                self.say(reason)
                self._said = reason
            return
        if state.uid != self._uid:
            self._flush()
            self._uid = state.uid
        self._follow_logs()
        self._follow_metrics()

    def close(self) -> None:
        self._flush()

    def _flush(self) -> None:
        """What came after the last look."""
        if self._uid:
            self._follow_logs()
            self._follow_metrics(now=True)
        self._screen.forget(self._label)
        for file in self._tails.values():
            file.close()
        self._tails.clear()

    def _follow_logs(self) -> None:
        for path in sorted(self._jobs.logs(self._job, self._uid).glob("*.log"), key=lambda path: int(path.stem)):
            for line in self._lines(path):
                self._screen.say(f"[{self._label} {path.stem}] {line}")

    def _follow_metrics(self, *, now: bool = False) -> None:
        """Of process 0: all would be too many."""
        fresh = False
        for path in self._jobs.outputs(self._job, self._uid).glob(f"0-*/{METRICS}"):
            for entry in parse_metrics("\n".join(self._lines(path)), mode=self._mode, index=0):
                fresh = fresh or self._metrics.get(entry["name"]) != (entry["step"], entry["value"])
                self._metrics[entry["name"]] = entry["step"], entry["value"]
        if fresh and (now or time.monotonic() - self._shown_at >= METRICS_EVERY_S):
            self._shown_at = time.monotonic()
            step = max(step for step, _ in self._metrics.values())
            shown = "  ".join(f"{name} {value:.4g}" for name, (_, value) in self._metrics.items())
            self._screen.show(self._label, f"{self._label}: step {step}  {shown}")

    def _lines(self, path: Path) -> list[str]:
        """Whole lines that are new; the rest of one stays for the next look."""
        try:
            file = self._tails.get(path) or self._tails.setdefault(path, path.open(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            return []
        lines: list[str] = []
        while True:
            start = file.tell()
            line = file.readline()
            if not line.endswith("\n"):
                file.seek(start)
                return lines
            lines.append(line.rstrip("\n"))
