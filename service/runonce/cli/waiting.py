"""What a long piece of work is at, on standard error: nothing for a second, then one line that is written over."""

from __future__ import annotations

import sys
import time
from types import TracebackType

import click

from runonce.store.moved import Moved

AFTER_S = 1.0
EVERY_S = 0.2
EVERY_PLAIN_S = 10.0  # where no terminal overwrites a line, few of them


class Waiting:
    """Call it with what is being done and how much of it is done, as often as you like."""

    def __init__(self) -> None:
        self._next = time.monotonic() + AFTER_S
        self._terminal = sys.stderr.isatty()
        self._every_s = EVERY_S if self._terminal else EVERY_PLAIN_S
        self._shown = False

    def __enter__(self) -> Waiting:
        return self

    def __call__(self, what: str, number: int) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._every_s
            self._say(f"{what}: {number}")

    def moving(self, what: str, size: int) -> Moved:
        """To be called with bytes as they are moved, of `size` in all."""
        return Moved(what, size, self._say, every_s=self._every_s)

    def _say(self, text: str) -> None:
        if self._terminal:
            click.echo(f"\r\x1b[K{text}", err=True, nl=False)
            self._shown = True
        else:
            click.echo(text, err=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)
