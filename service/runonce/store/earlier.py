"""Why was this a miss: the nearest result that an experiment of this name had before."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runonce.errors import StoreError
from runonce.experiment.key import Difference, differences
from runonce.store.backend import Backend
from runonce.store.commit import probe
from runonce.store.restore import read_manifest

LOOK_AT = 3

_DIGITS = re.compile(r"-[0-9a-f]{8}$")


@dataclass(frozen=True)
class Earlier:
    """cache_key: of the earlier result. found: what differs, by JSON Pointer into parts, or /params/… into params."""

    cache_key: str
    name: str
    found: list[Difference]

    def __str__(self) -> str:
        shown = "; ".join(map(shown_difference, self.found[:3]))
        more = f"; and {len(self.found) - 3} more" if len(self.found) > 3 else ""
        return f"nearest earlier result {self.cache_key[:12]}: {shown}{more}"


def stem_of(name: str) -> str:
    """`digits` of `digits-3f9a12bc`; a name without such digits is its own."""
    return _DIGITS.sub("", name)


def nearest_earlier(
    backend: Backend, name: str, parts: Mapping[str, Any], params: Mapping[str, Any], *, cache_key: str
) -> Earlier | None:
    """Of the newest results of this name (or of its stem, where the name ends in digits of a hash) the one that
    differs least; None if there is none. It only explains, so a record that cannot be read is passed over.
    """
    stem = _DIGITS.sub("-", name)
    markers = backend.list(f"n/{stem}" if stem != name else f"n/{name}/")
    newest = sorted(markers, key=lambda entry: entry.modified, reverse=True)
    looked_at: list[Earlier] = []
    for entry in newest:
        key = entry.name.rpartition("/")[2]
        if key == cache_key:
            continue
        try:
            found = probe(backend, key)
            if found is None:
                continue
            if found[0].mode != parts["mode"]:
                continue
            manifest = read_manifest(backend, found[0].manifest)
        except StoreError:
            continue
        looked_at.append(Earlier(key, manifest.name, compare(manifest.parts, manifest.params, parts, params)))
        if len(looked_at) == LOOK_AT:
            break
    return min(looked_at, key=lambda earlier: len(earlier.found), default=None)


def compare(
    parts: Mapping[str, Any], params: Mapping[str, Any], other_parts: Mapping[str, Any], other_params: Mapping[str, Any]
) -> list[Difference]:
    """Differences of two keys, with the fields behind two differing `params_hash`."""
    found = [d for d in differences(dict(parts), dict(other_parts)) if d.path != "params"]
    inside = differences({"params": dict(params)}, {"params": dict(other_params)})
    if parts["params"] != other_parts["params"] and not inside:
        found.append(Difference("params", parts["params"], other_parts["params"]))  # a pin, or code that reads more
    return [*inside, *found]


def shown_difference(difference: Difference) -> str:
    first, second = (
        "nothing"
        if value is None
        else text
        if len(text := json.dumps(value, ensure_ascii=False)) <= 60
        else text[:57] + "…"
        for value in (difference.first, difference.second)
    )
    return f"{difference.path.removeprefix('/').replace('/', '.')} was {first}, is {second}"
