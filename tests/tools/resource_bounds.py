"""Edits on both sides of every bound of every field, out of the CRD and of the reader's model.

So a new field is covered as soon as it is there, and a bound that only one of the two has is met.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from resource_change import SMALLEST, Change, Path, field, put

from runonce.experiment import spec_fields
from runonce.experiment.spec import ExperimentSpec
from runonce.kube.crd import custom_resource_definition

GOOD = {
    spec_fields.NAME: ("a", "a-1", "0", "a" * 63),
    spec_fields.SUBDOMAIN: ("a", "a.b-c.d", "0" * 253),
    spec_fields.ENTRY: ("m:C", "_a.b1:C.D_", "m:" + "C" * 251),
    spec_fields.ENV_NAME: ("A", "_a.b-c", "A" * 256),
    spec_fields.ENV_PREFIX: ("", "A_", "_" * 256),
    spec_fields.LABEL: ("disk", "a.b/c_d.E", "a" * 253 + "/" + "b" * 63),
    spec_fields.LABEL_VALUE: ("", "a", "A_b.c-d", "a" * 63),
    spec_fields.RESOURCE: ("nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "a/b_c", "a/" + "b" * 251),
    spec_fields.QUANTITY: ("2", "500m", "4Gi", "1.5", ".5", "1e3", 4, "1" * 32),
    spec_fields.PATH: ("/a", "/a/b.c", "/ä b", "/" + "a" * 252),
}
BAD = {
    spec_fields.NAME: ("-a", "a-", "A", "a.b", "", "ä", "a\n"),
    spec_fields.SUBDOMAIN: ("a..b", ".a", "a.", "A", "a_b", "", "a.-b"),
    spec_fields.ENTRY: ("m", ":C", "m:", "m.:C", "1m:C", "m:C:D", "m:C\n", "m :C", "ä:C"),
    spec_fields.ENV_NAME: ("1A", "-", "A B", "Ä", "A=", "A\n"),
    spec_fields.ENV_PREFIX: ("1", "A B", "=", "-"),
    spec_fields.LABEL: ("-a", "a-", "a/b/c", "/a", "A/b", "a b", ""),
    spec_fields.LABEL_VALUE: ("-", "a-", "a b", ".a", "ä"),
    spec_fields.RESOURCE: ("gpu", "/gpu", "a/", "A/b", "a/b/c"),
    spec_fields.QUANTITY: ("", "x", "-1", "1 Gi", "1gi", "1Ki2", "."),
    spec_fields.PATH: ("", "a", "/", "/a/", "/a:b", "//a", "a/b"),
}


def bounds() -> Iterator[Change]:
    version = custom_resource_definition()["spec"]["versions"][0]
    yield from _bounds(version["schema"]["openAPIV3Schema"]["properties"]["spec"], ())
    model = ExperimentSpec.model_json_schema(by_alias=True)
    yield from _of_the_model(_plain(model, model), ())


def _bounds(schema: dict[str, Any], path: Path) -> Iterator[Change]:
    """Just inside and just outside of every bound, and every other type."""
    label = ".".join(path)
    kind = schema.get("type")
    yield from _changes_around(schema, path)
    if path and kind is not None:
        for other in (None, True, 1, "x", 1.5, [], {}):
            if other is None or _is(kind, other) or (kind == "integer" and other == 1):
                continue
            found, wanted = _KINDS[type(other)], kind
            if kind == "integer":  # of numbers the server speaks as Go does, and finds no word for a mapping
                found, wanted = {"number": "float64", "object": ""}.get(found, found), "int"
            says = f'Invalid value: "{found}": ', f"must be of type {wanted}"
            yield Change(f"{label} type", False, put(path, other), says)
    if path and kind == "object" and "additionalProperties" not in schema and "properties" in schema:
        says = (f'unknown field "{field(label)}.unknownField"',)
        yield Change(f"{label} unknown", False, put((*path, "unknownField"), 1), says)
    for name, child in schema.get("properties", {}).items():
        yield from _bounds(child, (*path, name))
    if "items" in schema:
        yield from _bounds(schema["items"], (*path, "[]"))
    if "additionalProperties" in schema:
        yield from _bounds(schema["additionalProperties"], (*path, "{}"))


_KINDS = {str: "string", bool: "boolean", list: "array", dict: "object", int: "integer", float: "number"}


def _is(kind: str, value: Any) -> bool:
    return _KINDS[type(value)] == kind


def _changes_around(schema: dict[str, Any], path: Path) -> Iterator[Change]:
    for name, (within, beyond) in _around(schema):
        label = f"{'.'.join(path)} {name}"
        yield Change(label, True, put(path, within))
        yield Change(label, False, put(path, beyond), _says(name, schema[name], beyond))


def _says(name: str, bound: Any, value: Any) -> tuple[str, ...]:
    match name:
        case "minimum":
            return f"Invalid value: {value}: ", f"greater than or equal to {bound}"
        case "maximum":
            return f"Invalid value: {value}: ", f"less than or equal to {bound}"
        case "minLength":
            return f'Invalid value: "{value}": ', f"at least {bound} chars long"
        case "maxLength":
            return (f"Too long: may not be more than {bound} ",)
        case "minItems":
            return f"Invalid value: {len(value)}: ", f"at least {bound} items"
        case "enum":
            return f'Unsupported value: "{value}": ', ", ".join(f'"{one}"' for one in bound)
    return (f"Too many: {len(value)}: must have at most {bound} items",)


def _around(schema: dict[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    if "minimum" in schema:
        yield "minimum", (schema["minimum"], schema["minimum"] - 1)
    if "maximum" in schema:
        yield "maximum", (schema["maximum"], schema["maximum"] + 1)
    if "enum" in schema:
        yield "enum", (schema["enum"][-1], "other")
    free = "pattern" not in schema
    free = free and not any("matches" in rule["rule"] for rule in schema.get("x-kubernetes-validations", ()))
    if "minLength" in schema:
        yield "minLength", ("a" * schema["minLength"], "a" * (schema["minLength"] - 1))
    if "maxLength" in schema and free:
        # Characters count, not bytes.
        yield "maxLength", ("ä" * schema["maxLength"], "ä" * (schema["maxLength"] + 1))
    elif "maxLength" in schema:
        longest = _longest(schema["pattern"], schema["maxLength"]) if "pattern" in schema else _of_length(schema)
        yield "maxLength", _up_to(longest)
    for name, size in (("minItems", -1), ("maxItems", 1)):
        if name in schema:
            item = _item(schema["items"])
            within, beyond = (range(number) for number in (schema[name], schema[name] + size))
            yield name, ([_numbered(item, number) for number in within], [_numbered(item, number) for number in beyond])
    if "maxProperties" in schema:
        value = _item(schema.get("additionalProperties", {"type": "integer"}))
        limit = schema["maxProperties"]
        yield "maxProperties", ({f"N{n}": value for n in range(limit)}, {f"N{n}": value for n in range(limit + 1)})


def _up_to(longest: str) -> tuple[str, str]:
    """The longest text, and one more character in which no form finds a fault."""
    return longest, longest + longest[-1]


def _of_length(schema: dict[str, Any]) -> str:
    """The longest text that the rule of the place lets through."""
    rules = " ".join(rule["rule"] for rule in schema["x-kubernetes-validations"])
    limit: int = schema["maxLength"]
    if "source:" in rules:
        return "label:" + "a" * (limit - 6)
    known = [pattern for pattern in GOOD if f"r'{pattern}'" in rules]
    return "a" * limit if not known else max((g for g in GOOD[known[0]] if isinstance(g, str)), key=len)


def _item(schema: dict[str, Any]) -> Any:
    if schema.get("type") == "object":
        for smallest in SMALLEST.values():
            if schema.get("required", []) == ["mountPath", "name"]:
                return dict(SMALLEST["volumes"])
            if set(smallest) <= set(schema.get("properties", {})) and smallest:
                return dict(smallest)
    if "enum" in schema:
        return schema["enum"][0]
    return {"string": "a", "integer": 1}.get(schema.get("type", ""), 1)


def _numbered(item: Any, number: int) -> Any:
    """Entries of a list that have to differ do."""
    if isinstance(item, dict):
        return item | ({"name": f"v{number}", "mountPath": f"/v{number}"} if "mountPath" in item else {})
    return f"a{number}" if isinstance(item, str) else number % 90  # divided by the processes of every base


# --- what the model of the reader says ----------------------------------------------------------------------

# The names in it are the controller's to judge.
_NOT_LOOKED_INTO = ("hashAs",)


def _longest(pattern: str | None, limit: int) -> str:
    texts = [text for text in GOOD[pattern] if isinstance(text, str)] if pattern is not None else ["ä" * limit]
    longest = max(texts, key=len)
    assert len(longest) == limit, (pattern, limit)
    return longest


def _plain(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """A schema of pydantic's as one of a CRD is written: without references and null, and bounds by one name each."""
    if "$ref" in schema:
        return _plain(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    for option in schema.get("anyOf", ()):
        if option.get("type") != "null":
            return _plain(option, root)
    out = dict(schema)
    for name, bound, step in (
        ("ge", "minimum", 0),
        ("gt", "minimum", 1),
        ("exclusiveMinimum", "minimum", 1),
        ("le", "maximum", 0),
        ("lt", "maximum", -1),
        ("exclusiveMaximum", "maximum", -1),
    ):
        if name in schema:
            out[bound] = int(schema[name]) + step
    if "properties" in schema:
        out["properties"] = {name: _plain(child, root) for name, child in schema["properties"].items()}
    for pattern, value in schema.get("patternProperties", {}).items():
        out["additionalProperties"] = value
        out["propertyNames"] = {"pattern": pattern} | schema.get("propertyNames", {})
    for name in ("items", "additionalProperties"):
        if isinstance(out.get(name), dict):
            out[name] = _plain(out[name], root)
        else:
            out.pop(name, None)
    return out


def _of_the_model(schema: dict[str, Any], path: Path) -> Iterator[Change]:
    label = ".".join(path)
    yield from _changes_around(schema, path)
    if "pattern" in schema:
        for text in GOOD[schema["pattern"]]:
            yield Change(f"{label} form", True, put(path, text))
        for text in BAD[schema["pattern"]]:
            says = f"Invalid value: {json.dumps(text, ensure_ascii=False)}: ", spec_fields.FORMS[schema["pattern"]]
            yield Change(f"{label} form", False, put(path, text), says)
    names = schema.get("propertyNames", {})
    if "pattern" in names:
        for text in GOOD[names["pattern"]]:
            yield Change(f"{label} names", True, put((*path, text), "x"))
        for text in BAD[names["pattern"]]:
            # A message of a rule is one line, or another one.
            named = "" if "\n" in text else f"Invalid value: {text}: "
            yield Change(f"{label} names", False, put((*path, text), "x"), (named, spec_fields.FORMS[names["pattern"]]))
    if names and label not in _NOT_LOOKED_INTO:
        value = _item(schema["additionalProperties"])
        within, beyond = _up_to(_longest(names.get("pattern"), names["maxLength"]))
        yield Change(f"{label} name length", True, put((*path, within), value))
        for text in ("", beyond):
            says = f"{text[:60]}", f"a name has 1 to {names['maxLength']} characters here. Choose another one."
            yield Change(f"{label} name length", False, put((*path, text), value), says)
    for name, child in schema.get("properties", {}).items():
        yield from _of_the_model(child, (*path, name))
    for name, step in (("items", "[]"), ("additionalProperties", "{}")):
        if name in schema:
            yield from _of_the_model(schema[name], (*path, step))
