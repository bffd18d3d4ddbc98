"""Results side by side: what of their parameters and keys differs, and what they measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runonce.api.results import Result
from runonce.errors import InputError, near
from runonce.experiment.canonical import canonical

# Parts of a key that say nothing of their own: the parameters stand in columns, inputs follow from other parts.
_LEFT_OUT = ("format", "mode", "params", "inputs")


@dataclass(frozen=True, kw_only=True)
class Row:
    """inputs: parameters by dotted name, and the parts of the key. metrics: final values."""

    result: Result
    inputs: Mapping[str, Any]
    metrics: Mapping[str, float]

    @property
    def name(self) -> str:
        return self.result.name

    @property
    def mode(self) -> str:
        return self.result.mode

    @property
    def cache_key(self) -> str:
        return self.result.cache_key

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "mode": self.mode,
            "cacheKey": self.cache_key,
            "created": self.result.created.isoformat(),
            "params": dict(self.result.params),
            "parts": dict(self.result.parts),
            "metrics": dict(self.metrics),
        }


def compare_rows(results: Sequence[Result]) -> list[Row]:
    """A row for each, in the order given. Raises Damaged where the store has lost one."""
    return [Row(result=result, inputs=dict(_inputs(result)), metrics=result.final) for result in results]


def differing(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names that have not one value in all of them, in the order of their first appearance."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if len({canonical(row[name]) if name in row else None for row in rows}) > 1]


def sorted_by(rows: Sequence[Row], column: str | None) -> list[Row]:
    """By a metric, an input, or name; `-column` the other way round. What lacks the value comes last.

    Raises InputError for a column that no row has.
    """
    if column is None:
        return list(rows)
    name = column.removeprefix("-")
    values = {row.cache_key: {**row.inputs, "name": row.name, **row.metrics} for row in rows}
    if not any(name in known for known in values.values()):
        columns = dict.fromkeys(known for row in values.values() for known in row)
        raise InputError.of("--sort", f"is {name}, which no result has.", near(name, columns))
    there = [row for row in rows if name in values[row.cache_key]]
    there.sort(key=lambda row: _order(values[row.cache_key][name]), reverse=column.startswith("-"))
    return there + [row for row in rows if name not in values[row.cache_key]]


def flat(form: Any, name: str) -> Iterator[tuple[str, Any]]:
    """`{"optimizer": {"lr": 0.1}}` as `optimizer.lr`; lists and tagged values stay whole."""
    if isinstance(form, Mapping) and form and not any(key.startswith("$") for key in form):
        for key, value in form.items():
            yield from flat(value, f"{name}.{key}" if name else key)
    elif isinstance(form, Mapping) and set(form) == {"$type", "value"} and isinstance(form["value"], Mapping):
        yield f"{name}.$type", form["$type"]
        yield from flat(form["value"], name)
    else:
        yield name, form


def _inputs(result: Result) -> Iterator[tuple[str, Any]]:
    yield from flat(result.params, "")
    for name, part in result.parts.items():
        if name not in _LEFT_OUT:
            yield from ((f"{name}.{key}", value) for key, value in part.items()) if name == "env" else [(name, part)]


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers before text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 0, float(value), ""
    return 1, 0.0, value if isinstance(value, str) else canonical(value).decode()
