"""Entries that were null in the file that was applied, and are lost in what the API server stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runonce.errors import Fault

MAX_LEVELS = 128  # of a whole resource: each level of params may take two, one of them for its tag


def is_deeper(value: Any, levels: int) -> bool:
    """Level by level, since a walk into the depth would end at Python's own limit."""
    level = [value]
    for _ in range(levels):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def deep_path(value: Any, levels: int, most: int = 6) -> tuple[str | int, ...]:
    """The first steps on the way to what is nested more than so many levels deep."""
    path: tuple[str | int, ...] = ()
    while len(path) < most:
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        name, value = next(entry for entry in entries if is_deeper(entry[1], levels - len(path) - 1))
        path = (*path, name)
    return path


def lost_nulls(annotation: str, params: Mapping[str, Any]) -> list[Fault]:
    """Client-side apply drops null entries silently; what it kept in its annotation shows it."""
    import json

    try:
        applied = json.loads(annotation)["spec"]["params"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    if is_deeper(applied, MAX_LEVELS):
        return []
    lost = list(_nulls(applied, ("spec", "params")))
    if not lost or _without_nulls(applied) != params:
        return []
    fix = "Write {$none: true}, or leave the field out where None is its default."
    return [Fault("", "was null in the applied file, and kubectl apply dropped it.", fix).under(*path) for path in lost]


def _nulls(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if value is None:
        yield path
    elif isinstance(value, dict):
        for name, entry in value.items():
            yield from _nulls(entry, (*path, name))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _nulls(entry, (*path, index))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(entry) for name, entry in value.items() if entry is not None}
    return [_without_nulls(entry) for entry in value] if isinstance(value, list) else value
