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
    """Standard error, shared by all that runs at once. On a terminal a bar for each stays below the lines."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._quiet:
            return
        if self._bars is not None:
            self._bars.console.out(text, highlight=False)
        else:
            click.echo(text, err=True)

    def tell(self, text: str) -> None:
        """A line where no bar can say it."""
        if not self._quiet and not sys.stderr.isatty():
            click.echo(text, err=True)

    def bar(self, who: str, detail: str, done: int, total: int) -> None:
        """How far `who` is, where there is a terminal. Of one piece of work only that it goes on can be seen."""
        if self._quiet or not sys.stderr.isatty():
            return
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
        if who not in self._tasks:
            self._tasks[who] = self._bars.add_task(who, detail="", counts="")
        counts = f"{done} of {total}" if total > 1 else ""
        known = total if total > 1 else None
        self._bars.update(self._tasks[who], completed=done, total=known, detail=detail, counts=counts)

    def forget(self, who: str) -> None:
        if who in self._tasks:
            self._bars.remove_task(self._tasks.pop(who))
        if not self._tasks:
            self.close()

    def close(self) -> None:
        """Take the bars away; lines stay."""
        if self._bars is not None:
            self._bars.stop()
        self._bars = None
        self._tasks.clear()


def _bars() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    def text(name: str) -> TextColumn:
        return TextColumn(name, markup=False)

    console = Console(stderr=True, markup=False, highlight=False)
    columns = text("{task.description}"), BarColumn(20), text("{task.fields[counts]}"), TimeElapsedColumn()
    return Progress(*columns, text("{task.fields[detail]}"), console=console, transient=True)


class Progress:
    """Of one experiment. Lines as they come; metrics at most once a second. name: leads each line; may be empty."""

    def __init__(self, jobs: LocalJobs, screen: Screen, name: str = "") -> None:
        self._jobs, self._screen, self._name = jobs, screen, name
        self._mode, self._job, self._uid = "", "", ""
        self._tails: dict[Path, IO[str]] = {}
        self._said = ""
        self._metrics: dict[str, tuple[int, float]] = {}
        self._shown_at = 0.0
        self._detail = ""

    @property
    def _label(self) -> str:
        return " ".join(part for part in (self._name, self._mode) if part)

    def begin(self, mode: str, job: str) -> None:
        self._flush()
        self._mode, self._job, self._uid, self._said, self._metrics = mode, job, "", "", {}
        self._detail = ""

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
        self._screen.bar(self._label, self._detail, len(state.succeeded), state.completions)

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
            self._detail = f"step {step}  {shown}"
            self._screen.tell(f"{self._label}: {self._detail}")

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
