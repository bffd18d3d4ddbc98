"""Values as YAML that every reader takes alike."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runonce.author.scalars import WORDS
from runonce.experiment.canonical import number

_QUOTED = (("spec", "params"), ("spec", "env"), ("spec", "hashAs"))  # here only the user knows what a word means
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9._/-]*")
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def write_documents(values: Sequence[Mapping[str, Any]]) -> str:
    """YAML that every reader takes alike, keys in the order given. Only JSON values; no nan, no infinity."""
    return "---\n".join("".join(f"{line}\n" for line in _lines(value, ())) for value in values)


def _lines(value: Any, path: tuple[str, ...]) -> Iterator[str]:
    """The lines of a mapping or list that is not empty, from column 0 on."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            label = _string(key, path)
            if len(label) > 1000:  # readers look no further for the colon
                yield f"? {label}"
                label = ""
            inner = (*path, key)
            if _inline(item):
                yield f"{label}: {_flow(item, inner)}"
            else:
                yield f"{label}:"
                yield from (f"  {line}" for line in _lines(item, inner))
    else:
        for item in value:
            if _inline(item):
                yield f"- {_flow(item, path)}"
            else:
                first, *others = _lines(item, path)
                yield f"- {first}"
                yield from (f"  {line}" for line in others)


def _inline(value: Any) -> bool:
    if isinstance(value, Mapping):
        return not value
    return not isinstance(value, list) or not any(isinstance(item, Mapping | list) and item for item in value)


def _flow(value: Any, path: tuple[str, ...]) -> str:
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, list):
        return f"[{', '.join(_flow(item, path) for item in value)}]"
    if isinstance(value, str):
        return _string(value, path)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _number(value)


def _string(text: str, path: tuple[str, ...]) -> str:
    if path[:2] not in _QUOTED and _WORD.fullmatch(text) and text.lower() not in _RESERVED:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)


_RESERVED = {word.lower() for word in WORDS}


def _number(value: int | float) -> str:
    if isinstance(value, int):
        return str(value)
    mantissa, e, exponent = number(value).partition("e")
    # YAML 1.1 knows no float without a point
    return f"{mantissa}{'' if '.' in mantissa else '.0'}{e}{exponent}" if e else mantissa
