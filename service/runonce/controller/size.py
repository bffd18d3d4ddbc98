"""What fits into a status: texts cut by the bytes that the API server stores."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from runonce.experiment.status import MAX_LOG_TAIL, MAX_MESSAGE, stored_bytes


def clip(text: str, limit: int = MAX_MESSAGE) -> str:
    """At most `limit` bytes of it, as they are stored; an ellipsis tells that there was more."""
    clean = _characters(text).strip()
    most = clean[: limit + 1]
    return most if stored_bytes(most) - 2 <= limit else most[: _fitting(most, limit - 3)] + "…"


def tail(text: str, limit: int = MAX_LOG_TAIL) -> str:
    """Its end, within `limit`."""
    most = _characters(text)[-limit:]
    return most[len(most) - _fitting(most[::-1], limit) :]


def _characters(text: str) -> str:
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def _fitting(text: str, limit: int) -> int:
    """How many of its characters take at most `limit` bytes."""
    return sum(taken <= limit for taken in accumulate(stored_bytes(character) - 2 for character in text))


def shortened(name: str, value: Any, limit: int) -> Any:
    """Only what is for people to read: messages, and the ends of logs."""
    if isinstance(value, dict):
        return {inner: shortened(inner, entry, limit) for inner, entry in value.items()}
    if isinstance(value, list):
        return [shortened(name, entry, limit) for entry in value]
    return clip(value, limit) if name == "message" else tail(value, limit) if name == "logTail" else value
