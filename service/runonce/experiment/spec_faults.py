"""What pydantic finds wrong with a value, in our words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from runonce.errors import Fault, near, shown
from runonce.experiment.spec_fields import FORMS

_WORDS = {
    "int_type": "a whole number is meant",
    "int_from_float": "a whole number is meant",
    "string_type": "text is meant",
    "bool_type": "true or false is meant",
    "dict_type": "a mapping is meant",
    "model_type": "a mapping is meant",
    "model_attributes_type": "a mapping is meant",
    "tuple_type": "a list is meant",
    "list_type": "a list is meant",
}


def spec_faults(error: ValidationError, root: type[BaseModel]) -> Iterator[Fault]:
    """pydantic's errors in our words; `root` is the model that was to be validated."""
    entries = error.errors(include_url=False, include_context=True)
    for entry in entries:
        if entry["type"] == "too_short" and any(len(other["loc"]) > len(entry["loc"]) for other in entries):
            continue  # pydantic counts the items that it found valid
        path = [segment for segment in entry["loc"] if segment != "[key]"]
        kind, given = entry["type"], entry["input"]
        if kind == "extra_forbidden":
            yield Fault("", "is no field here.", _suggest(path, root)).under(*path)
        elif kind == "missing":
            yield Fault("", "is missing.", "Give it.").under(*path)
        elif given is None:
            yield Fault("", "is null.", "Leave it out, or give a value.").under(*path)
        elif kind == "value_error":
            yield Fault("", str(entry["ctx"]["error"])).under(*path)
        elif kind in _WORDS:
            yield Fault("", f"is {shown(given)}; {_WORDS[kind]}.").under(*path)
        elif kind == "string_pattern_mismatch":
            pattern = entry["ctx"]["pattern"]
            words = FORMS.get(pattern, f"the form {pattern} is meant")
            yield Fault("", f"is {shown(given)}; {words}.").under(*path)
        else:
            message = entry["msg"][0].lower() + entry["msg"][1:]
            yield Fault("", f"is {shown(given)}; {message}.").under(*path)


def _suggest(path: list[int | str], root: type[BaseModel]) -> str:
    model: Any = root
    for segment in path[:-1]:
        field = next((f for n, f in model.model_fields.items() if segment in (n, f.alias)), None)
        if field is None:
            continue
        classes = [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = [kind for kind in classes if isinstance(kind, type) and issubclass(kind, BaseModel)]
        model = inner[0] if inner else model
    return near(str(path[-1]), [field.alias or name for name, field in model.model_fields.items()])
