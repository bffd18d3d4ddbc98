"""One edit of an Experiment's spec."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Path = tuple[str, ...]
Spec = dict[str, Any]

# Of each group a place has only one.
_RIVALS = (
    {"nprocesses", "nprocessesPerDevice"},
    {"configMap", "secret", "persistentVolumeClaim", "hostPath"},
)

# What a place has to have so that a field below it can be looked at.
SMALLEST: dict[str, Any] = {
    "volumes": {"name": "v", "mountPath": "/v", "configMap": "c"},
    "envFrom": {"secret": "s"},
    "tolerations": {"key": "k"},
    "train": {"nprocesses": 2},
    "valid": {"nprocesses": 2},
    "test": {"nprocesses": 2},
}


@dataclass(frozen=True)
class Change:
    """One edit of a spec. label: the bound or rule that it is about. good: whether it stays within, when it is alone.
    says: what the API server's answer has to contain where it does not: the value, and the bound or the way out.
    """

    label: str
    good: bool
    edit: Callable[[Spec], None]
    says: tuple[str, ...] = ()


def field(label: str) -> str:
    """What the server calls the field that a change of a bound is about."""
    return "spec." + label.partition(" ")[0].replace(".[]", "[0]").replace(".{}", ".N")


def put(path: Path, value: Any) -> Callable[[Spec], None]:
    """Sets a field; `[]` is the first entry of a list, `{}` the value of one name of a mapping."""

    def edit(spec: Spec) -> None:
        here: Any = spec
        for position, step in enumerate(path[:-1]):
            following = path[position + 1]
            if step == "[]":
                here = here[0]
            elif step == "{}":
                here = here["N"]
            else:
                empty: Any = [copy.deepcopy(SMALLEST.get(step, {}))] if following == "[]" else {}
                if following not in ("[]", "{}"):
                    empty = copy.deepcopy(SMALLEST.get(step, {}))
                _give_way(here, step)
                if not here.get(step):
                    here[step] = empty
                here = here[step]
        last = {"[]": 0, "{}": "N"}.get(path[-1], path[-1])
        _give_way(here, last)
        if last == "tolerationSeconds":
            here["effect"] = "NoExecute"
        own = copy.deepcopy(value)  # a later edit of the spec may change it
        if last == 0 and not here:
            here.append(own)
        else:
            here[last] = own

    return edit


def _give_way(here: Any, name: str | int) -> None:
    for rival in (rival for group in _RIVALS if name in group for rival in group - {name}):
        here.pop(rival, None)
