"""Arrays of numpy, which is never imported here for writing: who holds an array has it."""

from __future__ import annotations

import base64
import sys
from typing import Any

from runonce.experiment.form import ARRAY_TYPES, JSON, MAX_ARRAY_BYTES, decode_base64
from runonce.experiment.render.codec import REPRESENT, Pass, fault, misfit


def is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray


def render_array(value: Any, walk: Pass) -> JSON:
    dtype = value.dtype.newbyteorder("<").str
    if dtype not in ARRAY_TYPES:
        raise fault(f"is an array of dtype {value.dtype}, which has no form.", REPRESENT)
    data = value.astype(dtype, order="C", copy=False).tobytes()
    shape = list(value.shape)
    if len(data) <= MAX_ARRAY_BYTES:
        return {"$array": {"dtype": dtype, "shape": shape, "data": base64.b64encode(data).decode()}}
    import hashlib

    # Enough for a key; nobody can load it, and `check_form` refuses it in a resource.
    return {"$array": {"dtype": dtype, "shape": shape, "sha256": hashlib.sha256(data).hexdigest()}}


def load_array(value: JSON) -> Any:
    array = value["$array"]
    if "sha256" in array:
        raise misfit(f"is an array of more than {MAX_ARRAY_BYTES:,} bytes: it can be hashed, not written.", REPRESENT)
    try:
        import numpy
    except ImportError as error:
        raise misfit("is an array, and numpy is not installed here.", "Install numpy.") from error
    data = decode_base64(array["data"]) or b""
    return numpy.frombuffer(data, dtype=array["dtype"]).reshape(array["shape"]).copy()
