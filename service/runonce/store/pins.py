"""Pins: labels that keep results whatever their age."""

from __future__ import annotations

import re
from collections.abc import Collection

from runonce.errors import Damaged, InputError
from runonce.experiment.seal import write_record
from runonce.store.backend import Backend, pin_name
from runonce.store.collect import check_record

_LABEL = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")


def pin(backend: Backend, label: str, cache_keys: Collection[str]) -> None:
    """From now on the label keeps the results of these keys, and of no others. Raises InputError for a bad label."""
    backend.put(_name(label), write_record("pin", cacheKeys=sorted(cache_keys)))


def unpin(backend: Backend, label: str) -> bool:
    """Whether there was such a label. Raises InputError for a bad one."""
    name = _name(label)
    found = backend.get(name) is not None
    backend.delete(name)
    return found


def read_pins(backend: Backend) -> dict[str, list[str]]:
    """Labels and their keys, in the order of labels. Raises Damaged, NewerFormat."""
    found = {}
    for entry in backend.list("p/"):
        answer = backend.get(entry.name)
        if answer is None:
            continue  # taken away meanwhile
        keys = check_record(answer[0], entry.name).get("cacheKeys")
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise Damaged(f"{entry.name} is damaged: it names no cacheKeys.")
        found[entry.name.removeprefix("p/")] = keys
    return found


def _name(label: str) -> str:
    if not _LABEL.fullmatch(label):
        raise InputError.of(
            "LABEL",
            f"{label!r} is no label.",
            "Give 1 to 63 of a-z, 0-9, '.', '_' and '-', with a letter or digit at both ends.",
        )
    return pin_name(label)
