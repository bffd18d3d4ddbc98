"""`show --follow`: what a run on this machine measures, while it measures it."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from runonce.api.look_up import Finder, Found
from runonce.api.metrics import curves_of, read_running
from runonce.cli.text import value_text
from runonce.errors import RunonceError
from runonce.experiment.metrics import Entry

POLL_S = 0.5
REDRAW_S = 2.0
GONE_S = 10.0  # after a Job has ended, until its result or its next attempt has to be there


def follow_to_end(one: Found, finder: Finder) -> Found:
    """The mode as it stands when nothing of it runs any more. Raises RunonceError where it ended without a result."""
    seen: Found | None = None
    deadline = 0.0
    with _Live(finder) as live:
        while True:
            if one.is_running:
                seen, deadline = one, time.monotonic() + GONE_S
                live.look(one)
            elif seen is None or _is_of(one, seen):
                return one
            elif time.monotonic() > deadline:
                raise RunonceError(f"{one.name} {one.mode} ended without a result{_why(seen, finder)}.")
            time.sleep(POLL_S)
            one = finder.again(one)


def _is_of(one: Found, seen: Found) -> bool:
    """Whether the result is that of the Job that was seen, and not the one from before an overwrite."""
    return one.result is not None and seen.job is not None and one.result.commit.attempt == seen.job.uid


def _why(seen: Found, finder: Finder) -> str:
    job = finder.jobs.get(seen.job.name) if seen.job is not None else None
    return f": {job.failures[0].reason}" if job is not None and job.failures else ""


class _Live:
    """Curves, drawn over the last ones on a terminal; elsewhere, or without plotext, a line for each new entry."""

    def __init__(self, finder: Finder) -> None:
        self._finder = finder
        self._live: Any = None
        self._drawn_at = 0.0
        self._uid, self._told = "", 0

    def __enter__(self) -> _Live:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def look(self, one: Found) -> None:
        from runonce.cli.plot import can_plot

        if one.job is None:
            return
        entries = read_running(self._finder.jobs.outputs(one.job.name, one.job.uid), mode=one.mode)
        if sys.stdout.isatty() and can_plot():
            self._draw(one, entries)
        else:
            self._tell(one, one.job.uid, [entry for entry in entries if entry["index"] == 0])

    def _draw(self, one: Found, entries: list[Entry]) -> None:
        if time.monotonic() - self._drawn_at < REDRAW_S:
            return
        self._drawn_at = time.monotonic()
        from rich.live import Live
        from rich.text import Text

        from runonce.cli.plot import plot

        if self._live is None:
            self._live = Live(auto_refresh=False, vertical_overflow="visible", transient=True)
            self._live.start()
        curves = [curve for curve in curves_of(entries) if len(curve.points) > 1]
        steps = f"step {max(entry['step'] for entry in entries)}" if entries else "nothing measured yet"
        self._live.update(Text.from_ansi(f"{one.name}  {one.mode}  {steps}\n{plot(curves)}"), refresh=True)

    def _tell(self, one: Found, uid: str, entries: list[Entry]) -> None:
        """Of process 0: all would be too many."""
        if uid != self._uid:
            self._uid, self._told = uid, 0
        for entry in entries[self._told :]:
            click.echo(f"{one.mode}: step {entry['step']}  {entry['name']} {value_text(entry['value'])}", err=True)
        self._told = len(entries)
