"""Experiments for the differential test of the CRD: each edit by itself, and in random company."""

from __future__ import annotations

import contextlib
import copy
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from resource_bounds import bounds
from resource_change import Change, Spec
from resource_ties import ties

from runonce.errors import Fault, InputError
from runonce.experiment.spec import parse_experiment

BASES: tuple[Spec, ...] = (
    {
        "config": "m:C",
        "codeVersion": "label:x",
        "machineParams": {"train": {"nprocesses": 2}, "test": {"nprocesses": 1}},
    },
    {"command": ["./run"], "code": ["*.sh"], "machineParams": {"valid": {"nprocesses": 3}}},
)


def changes() -> list[Change]:
    return [*bounds(), *ties()]


def cases(seed: int, count: int) -> Iterator[tuple[Spec, list[Change], bool]]:
    """Every change by itself. Then in random company, where three in ten companies have one that goes too far. The last of
    the three says whether it is alone."""
    draw = random.Random(seed)
    all_changes = changes()
    good = [change for change in all_changes if change.good]
    bad = [change for change in all_changes if not change.good]
    for change in all_changes:
        yield alone(change), [change], True
    for _ in range(count - len(all_changes)):
        chosen = draw.sample(good, draw.randint(0, 3))
        if draw.random() < 0.3:
            chosen.insert(draw.randint(0, len(chosen)), draw.choice(bad))
        yield _edited(draw.choice(BASES), chosen), chosen, False


def resource(spec: Spec, name: str = "x") -> dict[str, Any]:
    return {"apiVersion": "runonce.dev/v1alpha1", "kind": "Experiment", "metadata": {"name": name}, "spec": spec}


def read(spec: Spec) -> list[Fault]:
    """What the Python reader finds wrong with a resource for a cluster; where a profile is named, machines are its."""
    try:
        parsed = parse_experiment(resource(spec)).spec
        for mode in parsed.modes():
            parsed.shape(mode, local=parsed.profile is not None)
    except InputError as error:
        return list(error.faults)
    return []


def words(fault: Fault) -> str:
    """What the API server says too, beside the field and the value."""
    return re.sub(r"^is .*?[;:] ", "", f"{fault.what} {fault.fix}".strip(), count=1, flags=re.DOTALL)


def alone(change: Change) -> Spec:
    """A spec with this one edit."""
    return _edited(BASES[re.match(r"(command|code)\b", change.label) is not None], [change])


def _edited(base: Spec, chosen: list[Change]) -> Spec:
    spec = copy.deepcopy(base)
    for change in chosen:
        with contextlib.suppress(AttributeError, TypeError, KeyError):  # an earlier edit has left nothing to edit there
            change.edit(spec)
    return spec


def table(hits: Counter[tuple[str, str]]) -> str:
    """Rows of docs/refusals.md: each rule that ties fields together, then each kind of bound over all places that have it.

    Of a kind the fewest hits of any place are told.
    """
    rules = {change.label for change in ties()}
    kinds: dict[str, set[str]] = defaultdict(set)
    for change in changes():
        if change.label not in rules:
            kinds[change.label.rpartition(" ")[2]].add(change.label)
    sides = {(change.label, "accepted" if change.good else "refused") for change in changes()}

    def least(labels: set[str], side: str) -> str:
        met = [hits[label, side] for label in labels if (label, side) in sides]
        return str(min(met)) if met else "-"

    rows = [(label, 1, {label}) for label in sorted(rules)]
    rows += [(kind, len(labels), labels) for kind, labels in sorted(kinds.items())]
    lines = (f"| {what} | {count} | {least(of, 'accepted')} | {least(of, 'refused')} |" for what, count, of in rows)
    return "\n".join(["| What | Places | Accepted, at least | Refused, at least |", "|---|---|---|---|", *lines])
