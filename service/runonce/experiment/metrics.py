"""`metrics.jsonl`: what a run logs, an entry a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any, TypedDict

METRICS = "metrics.jsonl"


class Entry(TypedDict):
    """One value of one metric. index: of the process. value: may be nan or infinite. time: seconds since 1970."""

    step: int
    mode: str
    index: int
    name: str
    value: float
    time: float


def _finite(text: str) -> float:
    """Infinity has a word of its own; a number that is too big for a float is none."""
    value = float(text)
    if not isfinite(value):
        raise ValueError(text)
    return value


_JSON = json.JSONDecoder(parse_float=_finite)


def parse_metrics(text: str, *, mode: str, index: int) -> list[Entry]:
    """Entries of one file. A program of any language may have written it, so what is no entry is passed over, and
    mode and index are taken from the place of the file where it does not name them.
    """
    found: list[Entry] = []
    for line in text.splitlines():
        try:
            value: Any = _JSON.decode(line)
            entry = Entry(
                step=int(value["step"]),
                mode=str(value.get("mode", mode)),
                index=int(value.get("index", index)),
                name=str(value["name"]),
                value=float(value["value"]),
                time=float(value.get("time", 0.0)),
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            continue
        found.append(entry)
    return found


def unreadable(text: str, entries: Sequence[Entry]) -> int:
    """How many lines of the text became none of its entries."""
    return sum(1 for line in text.splitlines() if line.strip()) - len(entries)


def last_values(entries: Iterable[Entry]) -> dict[str, float]:
    """The last finite value of each name."""
    return {entry["name"]: entry["value"] for entry in entries if isfinite(entry["value"])}
