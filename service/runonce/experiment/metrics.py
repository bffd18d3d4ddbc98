"""`metrics.jsonl`: what a run logs, an entry a line."""

from __future__ import annotations

import json
from collections.abc import Iterable
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


def parse_metrics(text: str, *, mode: str, index: int) -> list[Entry]:
    """Entries of one file. A program of any language may have written it, so what is no entry is passed over, and
    mode and index are taken from the place of the file where it does not name them.
    """
    found: list[Entry] = []
    for line in text.splitlines():
        try:
            value: Any = json.loads(line)
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


def last_values(entries: Iterable[Entry]) -> dict[str, float]:
    """The last finite value of each name."""
    return {entry["name"]: entry["value"] for entry in entries if isfinite(entry["value"])}
