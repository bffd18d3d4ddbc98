"""Sizes, values and tables as people read them in a terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from runonce.store.moved import size_text

__all__ = ["part_text", "size_text", "table", "value_text"]


def value_text(value: Any, limit: int = 60) -> str:
    """A parameter or a metric in few characters."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def part_text(name: str, value: Any, limit: int = 90) -> str:
    """A part of a key; of a code version that nobody has proved it is said that the user promised it."""
    text = value_text(value, limit)
    return f"{text}  (the user's promise)" if name == "codeVersion" and str(value).startswith("label:") else text


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows))
    return "\n".join(line.rstrip() for line in lines)
