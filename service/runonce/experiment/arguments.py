"""The parameters of a program: as any language reads them, and in the place of `$(params.name)` in its arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runonce.errors import Fault, SpecError, near
from runonce.experiment.form import JSON, tag_of

_REFERENCE = re.compile(r"\$\(params\.([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)\)")


def expand(arguments: Sequence[str], params: Mapping[str, Any]) -> list[str]:
    """Put parameters, which are decoded, in the place of `$(params.name)`. Raises SpecError with every name that there
    is not.
    """
    faults: list[Fault] = []

    def text_of(match: re.Match[str], position: int) -> str:
        value: Any = params
        for part in match[1].split("."):
            if not isinstance(value, Mapping) or part not in value:
                what = f"names {match[0]}, which params does not have."
                faults.append(Fault("", what, near(match[1], dotted_names(params))).under("spec", "command", position))
                return ""
            value = value[part]
        return value if isinstance(value, str) else json.dumps(value)

    out = [
        _REFERENCE.sub(lambda match, at=position: text_of(match, at), argument)  # type: ignore[misc]
        for position, argument in enumerate(arguments)
    ]
    if faults:
        raise SpecError(*faults)
    return out


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
