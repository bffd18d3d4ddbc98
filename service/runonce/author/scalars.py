"""What kubectl takes a plain scalar of YAML for, as resolve.go of go-yaml v2 does; what it would change is refused."""

from __future__ import annotations

import re
from math import isinf
from typing import Any

from runonce.experiment.canonical import number


class RefusedScalar(Exception):
    """A scalar that cannot be: what was found, and how to fix it. Where is known further out."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what, fix)
        self.what, self.fix = what, fix


def _spellings(*words: str) -> list[str]:
    return [form for word in words for form in (word, word.capitalize(), word.upper())]


WORDS: dict[str, bool | None] = {
    **dict.fromkeys(_spellings("y", "yes", "true", "on"), True),
    **dict.fromkeys(_spellings("n", "no", "false", "off"), False),
    **dict.fromkeys(["", "~", *_spellings("null")], None),
}
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_INTEGER = re.compile(r"([-+]?)0(?:[bB]([01]+)|[oO]?([0-7]+)|[xX]([0-9a-fA-F]+))")
_BINARY = re.compile(r"0b([-+][01]+)")  # go-yaml lets the sign stand there, too
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_DOTTED = re.compile(r"\.[0-9](?:_?[0-9])*(?:[eE][-+]?[0-9](?:_?[0-9])*)?")


def resolve(text: str) -> str | bool | int | float | None:
    """What go-yaml v2 takes a plain scalar for. Raises RefusedScalar for a number that it would change."""
    if text in WORDS:
        return WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _NOT_FINITE.fullmatch(text):
        sign = "nan" if text[1] in "nN" else "-inf" if text[0] == "-" else "inf"
        raise RefusedScalar(f"is {text}, which JSON does not have", f'Write {{$float: "{sign}"}}.')
    if text[0] == ".":
        return real(text.replace("_", "")) if _DOTTED.fullmatch(text) else text
    plain = text.replace("_", "")
    if based := _INTEGER.fullmatch(plain):
        sign, *digits = based.groups()
        return next(_based(sign + part, base) for part, base in zip(digits, (2, 8, 16), strict=True) if part)
    if binary := _BINARY.fullmatch(plain):
        return _based(binary[1], 2)
    if _DECIMAL.fullmatch(plain):
        return decimal(plain)
    return real(plain) if _FLOAT.fullmatch(plain) else text


def _based(digits: str, base: int) -> int:
    value = int(digits, base)
    if not -(2**63) <= value < 2**63:
        raise RefusedScalar(f"is {short(str(value))}, which is too large for kubectl", f'Write {{$int: "{value}"}}.')
    return value


def decimal(literal: str) -> int | float:
    if len(literal) > 400:
        raise RefusedScalar(f"is {short(literal)}, which kubectl reads as a string", "Quote it.")
    value = int(literal)
    if -(2**63) <= value < 2**63:
        # 08 and 09 are no octal numbers: go-yaml makes floats of them
        return value
    nearest = real(literal)
    if int(nearest) != value:
        raise RefusedScalar(
            f"is {short(literal)}, of which {number(nearest)} would be left", f'Write {{$int: "{value}"}}.'
        )
    return nearest


def real(literal: str) -> float:
    value = float(literal)
    if isinf(value):
        raise RefusedScalar(
            f"is {short(literal)}, too large for a number: kubectl reads a string",
            'Write {$float: "inf"}, or quote it.',
        )
    if value == 0 and re.match(r"[^eE]*[1-9]", literal):
        raise RefusedScalar(f"is {short(literal)}, so small that it becomes 0", "Write 0.")
    return value


def settle(value: Any) -> Any:
    """Between go-yaml and the API server stands JSON: whole floats come back as the integers that their digits say."""
    return int(number(value)) if type(value) is float and value.is_integer() and abs(value) < 2**63 else value


def key_of(value: Any) -> str:
    """A key as sigs.k8s.io/yaml makes a string of it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        text = f"{value:.6g}"  # kubectl keeps 32 bits: 6 digits are sure
        if float(text) == value and (value == 0 or 1e-37 < abs(value) < 1e38):
            return text
        raise RefusedScalar(f"has the key {value!r}, which kubectl cuts to 32 bits", "Quote it.")
    kind = "null" if value is None else "a list" if isinstance(value, list) else "a mapping"
    raise RefusedScalar(f"has {kind} as a key, which JSON does not have", "Use a string.")


def short(text: str) -> str:
    return text if len(text) <= 60 else text[:50] + "…"
