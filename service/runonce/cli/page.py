"""`show --html`: results as one page that needs nothing else. It is built as a tree, so all text in it is escaped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from runonce import __version__
from runonce.api.shown import Shown
from runonce.cli.chart import COLOURS, chart
from runonce.cli.text import part_text, size_text

MAX_LINES = 16  # processes in one chart

# What no document may hold, not even escaped.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def page(modes: Sequence[Shown]) -> str:
    """The whole document. Script and style are the files beside this one; everything else is text."""
    title = ", ".join(dict.fromkeys(shown.name for shown in modes))
    html = Element("html", {"lang": "en"})
    head = SubElement(html, "head")
    SubElement(head, "meta", {"charset": "utf-8"})
    SubElement(head, "meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"})
    SubElement(head, "meta", {"name": "color-scheme", "content": "light dark"})
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": policy})
    _text(SubElement(head, "title"), f"{title} · Runonce")
    SubElement(head, "style").text = _own("page.css")
    body = SubElement(html, "body")
    main = SubElement(body, "main")
    for shown in modes:
        _section(main, shown)
    _text(SubElement(main, "footer"), f"Runonce {__version__}")
    SubElement(body, "script").text = _own("page.js")
    return "<!DOCTYPE html>\n" + tostring(html, encoding="unicode", method="html") + "\n"


def _section(main: Element, shown: Shown) -> None:
    section = SubElement(main, "section")
    header = SubElement(section, "header")
    heading = SubElement(header, "h1")
    _text(heading, shown.name)
    _text(SubElement(heading, "span", {"class": "mode"}), shown.mode)
    _text(SubElement(heading, "span", {"class": f"phase {shown.phase.lower()}"}), shown.phase)
    made = f"made {shown.created[:19].replace('T', ' ')} UTC · " if shown.created else ""
    n = shown.processes
    line = SubElement(header, "p", {"class": "under"})
    _text(line, f"{made}{n} process{'' if n == 1 else 'es'} · key ")
    _text(SubElement(line, "code"), shown.cache_key)
    if shown.final:
        tiles = SubElement(section, "div", {"class": "tiles"})
        for name, value in shown.final.items():
            tile = SubElement(tiles, "div", {"class": "tile"})
            _text(SubElement(tile, "span"), name)
            _text(SubElement(tile, "b"), f"{value:.6g}")
    _curves(section, shown)
    columns = SubElement(section, "div", {"class": "columns"})
    _table(columns, "Parameters", _flat(shown.params), note=_defaults(shown.missing))
    _table(columns, "Key", _flat({name: _part(name, part) for name, part in shown.parts.items() if name != "format"}))
    files = [(path, size_text(size)) for path, size, _ in shown.files]
    total = size_text(sum(size for _, size, _ in shown.files))
    _table(columns, "Files", files, note=f"{len(files)} files, {total}" if files else "")
    _table(columns, "Process 0" if n > 1 else "Process", shown.surroundings.items())
    _table(columns, "Versions", shown.versions.items())


def _curves(section: Element, shown: Shown) -> None:
    charts = SubElement(section, "div", {"class": "charts"})
    for name in dict.fromkeys(curve.name for curve in shown.curves):
        curves = [curve for curve in shown.curves if curve.name == name]
        figure = SubElement(charts, "figure")
        caption = SubElement(figure, "figcaption")
        _text(caption, name)
        figure.append(chart(curves[:MAX_LINES], title=_clean(f"{name} by step")))
        if len(curves) > 1:
            legend = SubElement(figure, "p", {"class": "legend"})
            for number, curve in enumerate(curves[:MAX_LINES]):
                _text(SubElement(legend, "span", {"class": f"c{number % COLOURS}"}), f"process {curve.index}")
            if len(curves) > MAX_LINES:
                _text(SubElement(legend, "em"), f"and {len(curves) - MAX_LINES} more")


def _part(name: str, part: Any) -> Any:
    return part_text(name, part) if name == "codeVersion" else part


def _table(parent: Element, title: str, rows: Iterable[tuple[str, str]], *, note: str = "") -> None:
    listed = list(rows)
    if not listed:
        return
    block = SubElement(parent, "details", {"open": "", "class": "block"})
    _text(SubElement(block, "summary"), title)
    scroll = SubElement(block, "div", {"class": "scroll"})
    body = SubElement(SubElement(scroll, "table"), "tbody")
    for name, value in listed:
        row = SubElement(body, "tr")
        _text(SubElement(row, "th", {"scope": "row"}), name)
        _text(SubElement(row, "td"), value)
    if note:
        _text(SubElement(block, "p", {"class": "note"}), note)


def _defaults(missing: Sequence[str]) -> str:
    return f"Left to the code's defaults: {', '.join(missing)}" if missing else ""


def _flat(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        rows.append((name, text))
    return rows


def _text(element: Element, text: str) -> None:
    element.text = (element.text or "") + _clean(text)


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)


def _own(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
