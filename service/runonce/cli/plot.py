"""Curves in the terminal, drawn by plotext."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from runonce.api.metrics import Curve, thinned
from runonce.errors import InputError

MAX_LINES = 8  # processes in one chart
MAX_POINTS = 2000  # of a line; a terminal has a few hundred columns
HEIGHT, MAX_WIDTH = 15, 120


def can_plot() -> bool:
    return find_spec("plotext") is not None


def plot(curves: Sequence[Curve]) -> str:
    """One chart a metric, a line for each process (the first eight). Raises InputError where plotext is missing."""
    if not can_plot():
        raise InputError.of("", "curves are drawn by plotext, which is not installed.", 'pip install "runonce[plot]"')
    return "\n\n".join(_chart([c for c in curves if c.name == name]) for name in dict.fromkeys(c.name for c in curves))


def _chart(curves: Sequence[Curve]) -> str:
    from plotext import figure

    figure.clear()
    # The legend stands in the chart, two rows a line.
    height = HEIGHT if len(curves) < MAX_LINES // 2 else HEIGHT + MAX_LINES
    figure.plot_size(min(shutil.get_terminal_size().columns, MAX_WIDTH), height)
    more = f" (processes 0 to {MAX_LINES - 1} of {len(curves)})" if len(curves) > MAX_LINES else ""
    figure.title(f"{curves[0].name}{more}")
    for curve in curves[:MAX_LINES]:
        points = thinned(curve.points, MAX_POINTS)
        signal = figure.signal([x for x, _ in points], [y for _, y in points]).lines()
        if len(curves) > 1:
            signal.label(f"process {curve.index}")
        figure.draw(signal)
    figure.label("step")
    text: str = figure.build().string(colorless=not sys.stdout.isatty())
    return text.rstrip()
