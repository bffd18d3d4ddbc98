"""Records of a store, with their digest at their own end: a bit that flipped anywhere is found by whoever reads it.

It guards against damage alone; who may forge a record is the affair of its signature.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from runonce.experiment.canonical import canonical, parse

FORMAT = 1
SEAL = "check"

_END = re.compile(rb',"check":"([0-9a-f]{64})"\}\Z')


def write_record(kind: str, **fields: Any) -> bytes:
    return sealed(canonical({"format": FORMAT, "kind": kind, **fields}))


def read_record(data: bytes) -> Any:
    """The value, whatever it is. Raises ValueError for what is no JSON, or not what was written."""
    return parse(unsealed(data))


def sealed(record: bytes) -> bytes:
    """record: a JSON object with at least one field, and no seal."""
    digest = hashlib.sha256(record).hexdigest()
    return record[:-1] + f',"{SEAL}":"{digest}"}}'.encode()


def unsealed(data: bytes) -> bytes:
    """The record without its seal; as it is where it has none. Raises ValueError where it is not what was sealed."""
    found = _END.search(data, max(0, len(data) - 80))
    if found is None:
        return data
    record = data[: found.start()] + b"}"
    if hashlib.sha256(record).hexdigest().encode() != found[1]:
        raise ValueError("it does not have the digest that it was written with")
    return record
