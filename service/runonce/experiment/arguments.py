"""The parameters of a program: as any language reads them, and in the place of `$(params.name)` in its arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runonce.errors import Fault, SpecError, near
from runonce.experiment.form import JSON, tag_of

MAX_FAULTS = 10
_NONE = object()
_REFERENCE = re.compile(r"\$\(params\.([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)\)")


def unknown(arguments: Sequence[str], params: Mapping[str, Any]) -> list[Fault]:
    """A fault for each `$(params.name)` that params, decoded, does not have; at most MAX_FAULTS of them."""
    found: dict[str, int] = {}
    for position, argument in enumerate(arguments):
        for match in _REFERENCE.finditer(argument):
            if match[1] not in found and _value(params, match[1]) is _NONE:
                found[match[1]] = position
    names = list(dotted_names(params)) if found else []
    return [
        Fault("", f"names $(params.{name}), which params does not have.", near(name, names)).under(
            "spec", "command", position
        )
        for name, position in list(found.items())[:MAX_FAULTS]
    ]


def expand(arguments: Sequence[str], params: Mapping[str, Any]) -> list[str]:
    """Put parameters, which are decoded, in the place of `$(params.name)`. Raises SpecError where one is unknown."""
    if faults := unknown(arguments, params):
        raise SpecError(*faults)

    def text(match: re.Match[str]) -> str:
        value = _value(params, match[1])
        return value if isinstance(value, str) else json.dumps(value)

    return [_REFERENCE.sub(text, argument) for argument in arguments]


def _value(params: Mapping[str, Any], name: str) -> Any:
    """_NONE where there is none."""
    value: Any = params
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _NONE
        value = value[part]
    return value


def dotted_names(params: Mapping[str, Any]) -> Iterator[str]:
    """Of all parameters, and of those within them: what `$(params.name)` and `-p name=value` may name."""
    for name, value in params.items():
        yield name
        if isinstance(value, Mapping):
            yield from (f"{name}.{inner}" for inner in dotted_names(value))


def decoded(form: JSON) -> Any:
    """Params as any language reads them: tags become what JSON has for them, `$none` null."""
    if isinstance(form, list):
        return [decoded(entry) for entry in form]
    if not isinstance(form, dict):
        return form
    tag = tag_of(form)
    if tag is None:
        return {name: decoded(entry) for name, entry in form.items()}
    if tag == "$none":
        return None
    if tag == "$int":
        return int(form["$int"])
    if tag == "$float":
        text = form["$float"]
        return text if text in ("nan", "inf", "-inf") else float(text)
    if tag == "$type":
        return decoded(form["value"])
    return decoded(form[tag])
