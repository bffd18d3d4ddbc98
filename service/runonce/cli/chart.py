"""Curves as SVG elements for the page: axes, a line for each process, and the values for whoever points at them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element, SubElement

from runonce.api.metrics import Curve, thinned

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 34
MAX_POINTS = 1200  # of a line: twice the pixels
COLOURS = 8  # classes c0 to c7 of the style sheet


def chart(curves: Sequence[Curve], *, title: str) -> Element:
    """One metric; a line for each process. curves: at least one, of at least one point each."""
    drawn = [thinned(curve.points, MAX_POINTS) for curve in curves]
    x = _Axis([step for points in drawn for step, _ in points], LEFT, WIDTH - RIGHT)
    y = _Axis([value for points in drawn for _, value in points], HEIGHT - BOTTOM, TOP)
    svg = Element("svg", {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-label": title, "class": "chart"})
    _draw_axes(svg, x, y)
    for number, (curve, points) in enumerate(zip(curves, drawn, strict=True)):
        group = SubElement(svg, "g", {"class": f"line c{number % COLOURS}"})
        group.set("data-label", f"process {curve.index}" if len(curves) > 1 else "")
        group.set("data-points", " ".join(f"{step:g},{value:.6g}" for step, value in points))
        places = [(x.place(step), y.place(value)) for step, value in points]
        group.set("data-places", " ".join(f"{across:.1f},{down:.1f}" for across, down in places))
        if len(places) == 1:
            SubElement(group, "circle", {"cx": f"{places[0][0]:.1f}", "cy": f"{places[0][1]:.1f}", "r": "3"})
        else:
            SubElement(group, "polyline", {"points": group.get("data-places", "")})
    return svg


class _Axis:
    """Values onto places, with a little air and ticks at round numbers."""

    def __init__(self, values: Iterable[float], start: float, end: float) -> None:
        known = list(values)
        low, high = min(known), max(known)
        if low == high:
            low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
        self._low, self._high, self._start, self._end = low, high, start, end

    def place(self, value: float) -> float:
        span = self._high - self._low
        if math.isfinite(span):
            share = (value - self._low) / span
        else:  # of two huge values: by halves
            share = (value / 2 - self._low / 2) / (self._high / 2 - self._low / 2)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        """About five, at 1, 2 or 5 times a power of ten."""
        raw = (self._high / 5) - (self._low / 5)
        power = 10.0 ** math.floor(math.log10(raw)) if raw > 0 else 0.0
        step = next((power * factor for factor in (1, 2, 5, 10) if power * factor >= raw), 0.0)
        first, last = (self._low / step, self._high / step) if step else (math.inf, 0)
        if not (math.isfinite(first) and math.isfinite(last)):
            return [self._low, self._high]  # closer together than floats tell apart
        return [number * step for number in range(math.ceil(first), math.floor(last) + 1)]


def _draw_axes(svg: Element, x: _Axis, y: _Axis) -> None:
    grid = SubElement(svg, "g", {"class": "grid"})
    for value in y.ticks():
        place = f"{y.place(value):.1f}"
        SubElement(grid, "line", {"x1": str(LEFT), "x2": str(WIDTH - RIGHT), "y1": place, "y2": place})
        SubElement(grid, "text", {"x": str(LEFT - 8), "y": place, "class": "y"}).text = f"{value:.4g}"
    for value in x.ticks():
        place = f"{x.place(value):.1f}"
        SubElement(grid, "text", {"x": place, "y": str(HEIGHT - BOTTOM + 18), "class": "x"}).text = f"{value:g}"
    bottom = str(HEIGHT - BOTTOM)
    SubElement(grid, "line", {"x1": str(LEFT), "x2": str(WIDTH - RIGHT), "y1": bottom, "y2": bottom, "class": "axis"})
