"""The tables of fields in docs/resource.md: name, type, bounds and default are made from the model and its schema, in the
model's order. What a field means stands in the page and is kept; a new field has an empty cell there, which a test refuses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from runonce.experiment import spec as resource
from runonce.experiment import spec_fields
from runonce.experiment.key import MODES
from runonce.kube.crd import custom_resource_definition

PAGE = Path(__file__).parents[2] / "docs" / "resource.md"

Schema = dict[str, Any]

_SPEC: Schema = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]

# Heading to the model and to its place in the schema.
SECTIONS: dict[str, tuple[type[BaseModel], Schema]] = {
    "Fields": (resource.ExperimentSpec, _SPEC),
    "`machineParams.<mode>`": (resource.MachineBlock, _SPEC["properties"]["machineParams"]["properties"]["train"]),
    "`resources`": (resource.Resources, _SPEC["properties"]["resources"]),
    "`tolerations[]`": (resource.Toleration, _SPEC["properties"]["tolerations"]["items"]),
    "`envFrom[]`": (resource.EnvFrom, _SPEC["properties"]["envFrom"]["items"]),
    "`volumes[]`": (resource.Volume, _SPEC["properties"]["volumes"]["items"]),
}

# What a text of each form is called; its length is part of the form.
_CALLED = {
    spec_fields.NAME: "name",
    spec_fields.SUBDOMAIN: "name",
    spec_fields.ENTRY: "`module:Class`",
    spec_fields.ENV_PREFIX: "prefix",
    spec_fields.LABEL: "name of a label or taint",
    spec_fields.LABEL_VALUE: "value of a label",
    spec_fields.RESOURCE: "name with its maker, as `amd.com/gpu`",
    spec_fields.QUANTITY: "quantity, as `2`, `500m` or `4Gi`",
    spec_fields.PATH: "whole path",
}


# Where the fields of a section stand in the schema of the spec.
_PLACES: dict[str, list[tuple[str, ...]]] = {
    "Fields": [()],
    "`machineParams.<mode>`": [("machineParams", mode) for mode in MODES],
    **{title: [(title.strip("`[]"),)] for title in ("`resources`", "`tolerations[]`", "`envFrom[]`", "`volumes[]`")},
}


def describe(spec: Schema) -> None:
    """Give each field what the page says it means."""
    text = PAGE.read_text(encoding="utf-8")
    for title, places in _PLACES.items():
        rows = [_cells(row) for row in _rows(text.partition(f"\n## {title}\n")[2]).splitlines()[2:]]
        for place in places:
            schema = spec
            for name in place:
                schema = schema["properties"][name]
            fields = schema.get("items", schema)["properties"]
            for name, *_, meaning in rows:
                described = {"description": _plain(meaning), **fields[name.strip("`")]}
                fields[name.strip("`")].clear()
                fields[name.strip("`")].update(described)


def _plain(markdown: str) -> str:
    """Without marks and links; one in brackets only points."""
    markdown = re.sub(r" \(\[[^]]*\]\([^)]*\)\)", "", markdown)
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", markdown).replace("`", "").replace("\\|", "|")


def page() -> str:
    text = PAGE.read_text(encoding="utf-8")
    for title, (model, schema) in SECTIONS.items():
        before, heading, rest = text.partition(f"\n## {title}\n")
        assert heading, f"docs/resource.md has no heading {title}"
        table = _rows(rest)
        assert table, f"docs/resource.md has no table below {title}"
        start, end = rest.index(table), rest.index(table) + len(table)
        text = before + heading + rest[:start] + _table(table, model, schema) + rest[end:]
    return text


def _rows(text: str) -> str:
    """The first table of fields, with its head."""
    found = re.search(r"^\| Field .*\n\|[-|]+\n(?:\|.*\n)+", text, re.MULTILINE)
    return "" if found is None else found[0]


def _table(old: str, model: type[BaseModel], schema: Schema) -> str:
    head, line, *rows = old.splitlines()
    kept = {cells[0]: cells[3:] for cells in map(_cells, rows)}
    width = len(_cells(head)) - 3
    made = []
    for name, default in _defaults(model):
        required = ", required" if name in schema.get("required", ()) else ""
        kind = called(schema["properties"][name], name) + required
        made.append([f"`{name}`", kind, default, *kept.get(f"`{name}`", [""] * width)])
    return "".join(
        f"{row}\n" for row in (head, line, *(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in made))
    )


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def _defaults(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            default = default.model_dump(exclude_defaults=True)
        yield field.alias or name, "" if default is None else f"`{json.dumps(default)}`"


def called(schema: Schema, name: str, *, many: bool = False) -> str:
    """The type of a value in words, with its bounds."""
    if "enum" in schema:
        *first, last = schema["enum"]
        return f"{', '.join(first)} or {last}"
    kind = schema.get("type", "quantity")
    if kind == "integer":
        return _plural("whole number", many) + _range(schema)
    if kind == "boolean":
        return "true or false"
    if kind == "array":
        low = f"{schema['minItems']} to " if "minItems" in schema else "at most "
        if "properties" in schema["items"]:
            return f"list of {low}{schema['maxItems']:,} [entries](#{name.lower()})"
        return f"list of {low}{schema['maxItems']:,} {called(schema['items'], name, many=True)}"
    if kind == "object":
        return _mapping(schema, name)
    form = _form(schema)
    if form is not None:
        return _plural(form, many)
    length = schema["maxLength"]
    return _plural("text", many) + (
        f" of {schema.get('minLength', 0) or 'at most'} ".replace(" 1 ", " 1 to ") + f"{length:,} characters"
    )


def _mapping(schema: Schema, name: str) -> str:
    if "properties" in schema:
        anchor = "machineparamsmode" if name == "machineParams" else name.lower()
        inner = f"mapping of {', '.join(schema['properties'])}"
        return f"[{inner}](#{anchor})"
    values = schema.get("additionalProperties")
    return f"mapping of at most {schema['maxProperties']:,} names to " + (
        "values" if values is None else called(values, name, many=True)
    )


def _range(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if high is None:
        return f" from {low:,} on"
    power = (high + 1).bit_length() - 1
    return f" from {low:,} to " + (f"below 2^{power}" if high + 1 == 2**power and power > 20 else f"{high:,}")


def _form(schema: Schema) -> str | None:
    stated = [rule.get("message", "") for rule in schema.get("x-kubernetes-validations", ())]
    forms = (pattern for pattern, words in spec_fields.FORMS.items() if f"{words}." in stated)
    return next((_CALLED[pattern] for pattern in forms), None)


def _plural(word: str, many: bool) -> str:
    if not many:
        return word
    first, *rest = word.split(" of ")
    return " of ".join([first + "s", *rest])
