"""Transfers beside a computation: one after the other, until somebody waits for them."""

from __future__ import annotations

import threading


class Turns:
    """A context that one thread at a time is in, and any number once there is a hurry.

    Several transfers at a time take cores, and the interpreter, from a training loop beside them; one hardly does.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._hurried = False

    def hurry(self) -> None:
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._hurried or not self._inside)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify()
