"""What is seen while processes run: their output with a prefix, their newest metrics, on standard error."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from runonce.local.processes import LocalJobs

METRICS_EVERY_S = 1.0
METRICS = "metrics.jsonl"


class Progress:
    """Lines as they come; metrics at most once a second, on a terminal in one line that is written over."""

    def __init__(self, jobs: LocalJobs) -> None:
        self._jobs = jobs
        self._mode, self._job, self._uid = "", "", ""
        self._tails: dict[Path, IO[str]] = {}
        self._said = ""
        self._metrics: dict[str, Any] = {}
        self._shown_at = 0.0
        self._status: Any = None

    def begin(self, mode: str, job: str) -> None:
        self._flush()
        self._mode, self._job, self._uid, self._said, self._metrics = mode, job, "", "", {}

    def say(self, text: str) -> None:
        self._clear()
        click.echo(f"{self._mode}: {text}", err=True)

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
        self._clear()
        for file in self._tails.values():
            file.close()
        self._tails.clear()

    def _follow_logs(self) -> None:
        for path in sorted(self._jobs.logs(self._job, self._uid).glob("*.log"), key=lambda path: int(path.stem)):
            for line in self._lines(path):
                self._clear()
                click.echo(f"[{self._mode} {path.stem}] {line}", err=True)

    def _follow_metrics(self, *, now: bool = False) -> None:
        """Of process 0: all would be too many."""
        fresh = False
        for path in self._jobs.outputs(self._job, self._uid).glob(f"0-*/{METRICS}"):
            for line in self._lines(path):
                entry = json.loads(line)
                fresh = fresh or self._metrics.get(entry["name"]) != (entry["step"], entry["value"])
                self._metrics[entry["name"]] = entry["step"], entry["value"]
        if fresh and (now or time.monotonic() - self._shown_at >= METRICS_EVERY_S):
            self._shown_at = time.monotonic()
            step = max(step for step, _ in self._metrics.values())
            shown = "  ".join(f"{name} {_short(value)}" for name, (_, value) in self._metrics.items())
            self._show(f"{self._mode}: step {step}  {shown}")

    def _show(self, text: str) -> None:
        if not sys.stderr.isatty():
            click.echo(text, err=True)
            return
        if self._status is None:
            from rich.console import Console

            self._status = Console(stderr=True).status(text)
            self._status.start()
        self._status.update(text)

    def _clear(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

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


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
