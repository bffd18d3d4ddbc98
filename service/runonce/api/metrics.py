"""What a run logged: entries of `metrics.jsonl`, of one process or of all, as lines to draw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from runonce.experiment.metrics import METRICS, Entry, parse_metrics


@dataclass(frozen=True)
class Curve:
    """One metric of one process: finite values by step, in the order in which they were logged."""

    name: str
    index: int
    points: Sequence[tuple[float, float]]

    @property
    def last(self) -> float:
        return self.points[-1][1]


def read_running(outputs: Path, *, mode: str) -> list[Entry]:
    """Entries of the processes of a Job that runs here, of each its newest try, in the order of the processes.

    outputs: the folder of their output folders, `<index>-<try>`.
    """
    newest: dict[int, tuple[int, Path]] = {}
    for path in outputs.glob(f"*-*/{METRICS}"):
        index, try_ = (int(part) for part in path.parent.name.split("-"))
        newest[index] = max(newest.get(index, (-1, path)), (try_, path))
    found: list[Entry] = []
    for index, (_, path) in sorted(newest.items()):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            continue  # it has just ended
        found += parse_metrics(text, mode=mode, index=index)
    return found


def curves_of(entries: Iterable[Entry]) -> list[Curve]:
    """By metric, in the order of their first entries, then by process."""
    points: dict[str, dict[int, list[tuple[float, float]]]] = {}
    for entry in entries:
        if isfinite(entry["value"]):
            of_name = points.setdefault(entry["name"], {})
            of_name.setdefault(entry["index"], []).append((entry["step"], entry["value"]))
    return [Curve(name, index, of_name[index]) for name, of_name in points.items() for index in sorted(of_name)]


def thinned(points: Sequence[tuple[float, float]], limit: int) -> list[tuple[float, float]]:
    """At most about `limit` of the points: of each stretch the lowest and the highest, so that no peak is lost."""
    if len(points) <= limit:
        return list(points)
    size = -(-2 * len(points) // limit)
    kept = {0, len(points) - 1}
    for start in range(0, len(points), size):
        stretch = range(start, min(start + size, len(points)))
        low = min(stretch, key=lambda place: points[place][1])
        high = max(stretch, key=lambda place: points[place][1])
        kept |= {low, high}
    return [points[place] for place in sorted(kept)]
