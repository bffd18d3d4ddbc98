"""Experiments for the differential test of the CRD: what the models bound, from both sides, and what rules tie together.

Every bound of every field is found in the CRD and in the reader's model, so that a new field is covered as soon as it is
there, and one that only one of them has is met.
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from runonce.errors import Fault, InputError
from runonce.experiment import spec_fields
from runonce.experiment.spec import ExperimentSpec, parse_experiment
from runonce.kube.crd import custom_resource_definition

Path = tuple[str, ...]
Spec = dict[str, Any]

BASES: tuple[Spec, ...] = (
    {
        "config": "m:C",
        "codeVersion": "label:x",
        "machineParams": {"train": {"nprocesses": 2}, "test": {"nprocesses": 1}},
    },
    {"command": ["./run"], "code": ["*.sh"], "machineParams": {"valid": {"nprocesses": 3}}},
)

# Of each group a place has only one.
_RIVALS = (
    {"nprocesses", "nprocessesPerDevice"},
    {"configMap", "secret", "persistentVolumeClaim", "hostPath"},
)

# What a place has to have so that a field below it can be looked at.
_SMALLEST: dict[str, Any] = {
    "volumes": {"name": "v", "mountPath": "/v", "configMap": "c"},
    "envFrom": {"secret": "s"},
    "tolerations": {"key": "k"},
    "train": {"nprocesses": 2},
    "valid": {"nprocesses": 2},
    "test": {"nprocesses": 2},
}

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


@dataclass(frozen=True)
class Change:
    """One edit of a spec. label: the bound or rule that it is about. good: whether it stays within, when it is alone.
    says: what the API server's answer has to contain where it does not: the value, and the bound or the way out.
    """

    label: str
    good: bool
    edit: Callable[[Spec], None]
    says: tuple[str, ...] = ()


def changes() -> list[Change]:
    version = custom_resource_definition()["spec"]["versions"][0]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    model = ExperimentSpec.model_json_schema(by_alias=True)
    return [*_bounds(spec, ()), *_of_the_model(_plain(model, model), ()), *ties()]


def cases(seed: int, count: int) -> Iterator[tuple[Spec, list[Change], bool]]:
    """Every change by itself. Then in random company, where three in ten companies have one that goes too far. The last of
    the three says whether it is alone."""
    draw = random.Random(seed)
    all_changes = changes()
    good = [change for change in all_changes if change.good]
    bad = [change for change in all_changes if not change.good]
    for change in all_changes:
        yield alone(change), [change], True
    for _ in range(count - len(all_changes)):
        chosen = draw.sample(good, draw.randint(0, 3))
        if draw.random() < 0.3:
            chosen.insert(draw.randint(0, len(chosen)), draw.choice(bad))
        yield _edited(draw.choice(BASES), chosen), chosen, False


def resource(spec: Spec, name: str = "x") -> dict[str, Any]:
    return {"apiVersion": "runonce.dev/v1alpha1", "kind": "Experiment", "metadata": {"name": name}, "spec": spec}


def read(spec: Spec) -> list[Fault]:
    """What the Python reader finds wrong with a resource for a cluster; where a profile is named, machines are its."""
    try:
        parsed = parse_experiment(resource(spec)).spec
        for mode in parsed.modes():
            parsed.shape(mode, local=parsed.profile is not None)
    except InputError as error:
        return list(error.faults)
    return []


def words(fault: Fault) -> str:
    """What the API server says too, beside the field and the value."""
    return re.sub(r"^is .*?[;:] ", "", f"{fault.what} {fault.fix}".strip(), count=1, flags=re.DOTALL)


def alone(change: Change) -> Spec:
    """A spec with this one edit."""
    return _edited(BASES[re.match(r"(command|code)\b", change.label) is not None], [change])


def _edited(base: Spec, chosen: list[Change]) -> Spec:
    spec = copy.deepcopy(base)
    for change in chosen:
        with contextlib.suppress(AttributeError, TypeError, KeyError):  # an earlier edit has left nothing to edit there
            change.edit(spec)
    return spec


def field(label: str) -> str:
    """What the server calls the field that a change of a bound is about."""
    return "spec." + label.partition(" ")[0].replace(".[]", "[0]").replace(".{}", ".N")


def put(path: Path, value: Any) -> Callable[[Spec], None]:
    """Sets a field; `[]` is the first entry of a list, `{}` the value of one name of a mapping."""

    def edit(spec: Spec) -> None:
        here: Any = spec
        for position, step in enumerate(path[:-1]):
            following = path[position + 1]
            if step == "[]":
                here = here[0]
            elif step == "{}":
                here = here["N"]
            else:
                empty: Any = [copy.deepcopy(_SMALLEST.get(step, {}))] if following == "[]" else {}
                if following not in ("[]", "{}"):
                    empty = copy.deepcopy(_SMALLEST.get(step, {}))
                _give_way(here, step)
                if not here.get(step):
                    here[step] = empty
                here = here[step]
        last = {"[]": 0, "{}": "N"}.get(path[-1], path[-1])
        _give_way(here, last)
        if last == "tolerationSeconds":
            here["effect"] = "NoExecute"
        own = copy.deepcopy(value)  # a later edit of the spec may change it
        if last == 0 and not here:
            here.append(own)
        else:
            here[last] = own

    return edit


def _give_way(here: Any, name: str | int) -> None:
    for rival in (rival for group in _RIVALS if name in group for rival in group - {name}):
        here.pop(rival, None)


# --- bounds -------------------------------------------------------------------------------------------------


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
        for smallest in _SMALLEST.values():
            if schema.get("required", []) == ["mountPath", "name"]:
                return dict(_SMALLEST["volumes"])
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
            named = (
                "" if "\n" in text else f"Invalid value: {text}: "
            )  # a message of a rule is one line, or another one
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


# --- what rules tie together --------------------------------------------------------------------------------


def _block(mode: str, **fields: Any) -> Callable[[Spec], None]:
    def edit(spec: Spec) -> None:
        spec["machineParams"][mode] = copy.deepcopy(fields)

    return edit


def _whole(**fields: Any) -> Callable[[Spec], None]:
    """Replaces fields; None takes one away."""

    def edit(spec: Spec) -> None:
        for name, value in fields.items():
            spec.pop(name, None)
            if value is not None:
                spec[name] = copy.deepcopy(value)

    return edit


_DIGEST = "@sha256:" + "0" * 64
_MACHINES: list[tuple[str, bool, dict[str, Any]]] = [
    ("one count", True, {"nprocesses": 0}),
    ("one count", True, {"nprocessesPerDevice": [2]}),
    ("one count", False, {"nprocesses": 1, "nprocessesPerDevice": [1]}),
    ("one count", False, {"gpuIds": [0]}),
    ("counts empty", True, {"nprocessesPerDevice": [1]}),
    ("counts empty", False, {"nprocessesPerDevice": []}),
    ("counts and ids", True, {"nprocessesPerDevice": [1, 1], "gpuIds": [0, 1]}),
    ("counts and ids", True, {"nprocessesPerDevice": [1, 1], "gpuIds": []}),
    ("counts and ids", False, {"nprocessesPerDevice": [1, 1], "gpuIds": [0]}),
    ("counts and ids", False, {"nprocessesPerDevice": [1], "gpuIds": [0, 1]}),
    ("sum", True, {"nprocessesPerDevice": [50_000, 50_000]}),
    ("sum", False, {"nprocessesPerDevice": [50_000, 50_001]}),
    ("mixed", True, {"nprocesses": 2, "gpuIds": [-1, -1, -1]}),
    ("mixed", False, {"nprocesses": 2, "gpuIds": [-1, 0]}),
    ("mixed", False, {"nprocessesPerDevice": [1, 1], "gpuIds": [0, -1]}),
    ("uneven", True, {"nprocesses": 2, "gpuIds": [0, 1, 2, 3]}),
    ("uneven", True, {"nprocesses": 3, "gpuIds": [4, 4, 5, 6]}),
    ("uneven", True, {"nprocesses": 256, "gpuIds": list(range(512))}),
    ("uneven", True, {"nprocesses": 0, "gpuIds": [0, 1, 2]}),
    ("uneven", False, {"nprocesses": 2, "gpuIds": [0, 1, 2]}),
    ("uneven", False, {"nprocesses": 3, "gpuIds": list(range(512))}),
    ("too few", True, {"nprocesses": 4, "gpuIds": [0, 1], "coupled": False}),
    ("too few", True, {"nprocesses": 4, "gpuIds": [0], "coupled": True, "gpuResource": "nvidia.com/gpu.shared"}),
    ("too few", True, {"nprocesses": 4, "gpuIds": [0], "coupled": True, "gpuResource": "nvidia.com/mig-1g.10gb"}),
    ("too few", True, {"nprocesses": 2, "gpuIds": [1, 0], "coupled": True}),
    ("too few", True, {"nprocessesPerDevice": [1, 0], "gpuIds": [0, 0], "coupled": True}),
    ("too few", True, {"nprocessesPerDevice": [0, 0], "gpuIds": [0, 0], "coupled": True}),
    ("too few", False, {"nprocesses": 4, "gpuIds": [0, 1], "coupled": True}),
    ("too few", False, {"nprocesses": 4, "gpuIds": [0, 1, 1, 0], "coupled": True, "gpuResource": "a.b/gpu"}),
    ("too few", False, {"nprocessesPerDevice": [3, 0], "gpuIds": [0, 1], "coupled": True}),
    ("too few", False, {"nprocessesPerDevice": [1, 1], "gpuIds": [0, 0], "coupled": True}),
    ("own env", True, {"nprocesses": 1, "env": {"NCCL_DEBUG": "INFO"}}),
    ("own env", True, {"nprocesses": 1, "env": {"RUNONCE_PEER_TIMEOUT_S": "9", "RUNONCE_CHECKPOINT_S": "9"}}),
    ("own env", False, {"nprocesses": 1, "env": {"RUNONCE_MODE": "x"}}),
    ("own env", False, {"nprocesses": 1, "env": {"JOB_COMPLETION_INDEX": "1"}}),
]


def ties() -> Iterator[Change]:
    for mode in ("train", "valid", "test"):
        for label, good, fields in _MACHINES:
            yield Change(f"{mode} {label}", good, _block(mode, **fields))
        twice = {"env": {"A": "1"}, "machineParams": {mode: {"nprocesses": 1, "env": {"A": "2"}}}}
        yield Change(f"{mode} env twice", False, _whole(**twice))
        once = {"env": {"A": "1"}, "machineParams": {mode: {"nprocesses": 1, "env": {"B": "2"}}}}
        yield Change(f"{mode} env twice", True, _whole(**once))
        few = {"nprocesses": 3, "gpuIds": [0], "coupled": True}
        profile = {"profile": "mig", "machineParams": {mode: few}}
        yield Change(f"{mode} too few", True, _whole(**profile))
    # Without `coupled` train is, and the others are not.
    yield Change("train coupled", False, _block("train", nprocesses=2, gpuIds=[0]))
    yield Change("valid coupled", True, _block("valid", nprocesses=2, gpuIds=[0]))
    yield Change("test coupled", True, _block("test", nprocesses=2, gpuIds=[0]))
    yield Change("train coupled", True, _block("train", nprocesses=2, gpuIds=[0], coupled=False))
    yield Change("valid coupled", False, _block("valid", nprocesses=2, gpuIds=[0], coupled=True))
    yield Change("test coupled", False, _block("test", nprocesses=2, gpuIds=[0], coupled=True))
    for label, good, fields in _FIELDS:
        yield Change(label, good, _whole(**fields))


_MOUNT = {"name": "v", "mountPath": "/v"}
_FIELDS: list[tuple[str, bool, dict[str, Any]]] = [
    ("modes", True, {"machineParams": {"valid": {"nprocesses": 1}}}),
    ("modes", False, {"machineParams": {}}),
    ("no modes", True, {"machineParams": {"test": {"nprocesses": 1}}}),
    ("no modes", False, {"machineParams": None}),
    ("entry", False, {"config": "m:C", "command": ["x"]}),
    ("entry", False, {"config": None, "command": None, "code": None, "codeVersion": "label:x"}),
    ("entry", True, {"config": None, "command": ["x"], "code": ["*"], "codeVersion": None}),
    ("entry", True, {"config": "m:C", "command": None, "code": None}),
    ("code version", True, {"codeVersion": "source:" + "0f" * 32}),
    ("code version", True, {"codeVersion": "label:ä€"}),
    ("code version", False, {"codeVersion": "source:" + "0" * 63}),
    ("code version", False, {"codeVersion": "source:" + "A" * 64}),
    ("code version", False, {"codeVersion": "label:"}),
    ("code version", False, {"codeVersion": "label:a b"}),
    ("code version", False, {"codeVersion": "label:a\u2003b"}),
    ("code version", False, {"codeVersion": "label:a\u0085b"}),
    ("code version", False, {"codeVersion": "label:a\u00a0"}),
    ("code version", False, {"codeVersion": "label:a\u2028"}),
    ("code version", False, {"codeVersion": "label:a\u001f"}),
    ("code version", False, {"codeVersion": "label:a\n"}),
    ("code version", False, {"codeVersion": ""}),
    ("image digest", True, {"codeVersion": "image", "image": "a/b" + _DIGEST}),
    ("image digest", False, {"codeVersion": "image", "image": "a/b:1"}),
    ("image digest", False, {"codeVersion": "image", "image": None}),
    ("image digest", False, {"codeVersion": "image", "image": "a" + _DIGEST + "0"}),
    ("code of a command", True, {"config": None, "command": ["x"], "code": None, "codeVersion": "label:x"}),
    ("code of a command", True, {"config": None, "command": ["x"], "code": [], "codeVersion": "label:x"}),
    ("code of a command", False, {"config": None, "command": ["x"], "code": None, "codeVersion": None}),
    ("code of a command", False, {"config": None, "command": ["x"], "code": [], "codeVersion": None}),
    ("code of a config", False, {"config": "m:C", "command": None, "code": ["*.py"]}),
    ("code of a config", True, {"config": "m:C", "command": None, "code": []}),
    ("packages", True, {"config": "m:C", "command": None, "code": None, "codePackages": ["m"]}),
    ("packages", True, {"config": "m:C", "command": None, "code": None, "paramsOnlyIn": {"x": "test"}}),
    ("packages", False, {"config": None, "command": ["x"], "code": ["*"], "codePackages": ["m"]}),
    ("packages", False, {"config": None, "command": ["x"], "code": ["*"], "paramsOnlyIn": {"x": "test"}}),
    ("pin", True, {"hash": "0a.b_c-"}),
    ("pin", True, {"hash": "a" * 64}),
    ("pin", False, {"hash": ""}),
    ("pin", False, {"hash": "-a"}),
    ("pin", False, {"hash": "a b"}),
    ("pin", False, {"hash": "a\n"}),
    ("own env of all", True, {"env": {"A": "", "B": "ä\n$"}}),
    ("own env of all", False, {"env": {"RUNONCE_CHECKPOINT_S": "1"}}),
    ("own env of all", False, {"env": {"JOB_COMPLETION_INDEX": "1"}}),
    ("one source", True, {"envFrom": [{"configMap": "a", "prefix": "A_"}, {"secret": "b"}]}),
    ("one source", False, {"envFrom": [{"prefix": "A_"}]}),
    ("one source", False, {"envFrom": [{"configMap": "a", "secret": "b"}]}),
    ("one place", True, {"volumes": [_MOUNT | {"hostPath": "/x"}, {"name": "w", "mountPath": "/w", "secret": "s"}]}),
    ("one place", False, {"volumes": [_MOUNT]}),
    ("one place", False, {"volumes": [_MOUNT | {"hostPath": "/x", "persistentVolumeClaim": "p"}]}),
    (
        "names of volumes",
        True,
        {"volumes": [_MOUNT | {"secret": "a"}, {"name": "w", "mountPath": "/w", "secret": "b"}]},
    ),
    ("names of volumes", False, {"volumes": [_MOUNT | {"secret": "a"}, _MOUNT | {"mountPath": "/w", "secret": "b"}]}),
    (
        "folders of volumes",
        True,
        {"volumes": [_MOUNT | {"secret": "a"}, {"name": "w", "mountPath": "/v/w", "secret": "b"}]},
    ),
    ("folders of volumes", False, {"volumes": [_MOUNT | {"secret": "a"}, _MOUNT | {"name": "w", "secret": "b"}]}),
    ("own volume", True, {"volumes": [_MOUNT | {"name": "runonce", "secret": "a"}]}),
    ("own volume", False, {"volumes": [_MOUNT | {"name": "runonce-spec", "secret": "a"}]}),
    ("own folder", True, {"volumes": [_MOUNT | {"mountPath": "/tmp/x", "secret": "a"}]}),
    ("own folder", False, {"volumes": [_MOUNT | {"mountPath": "/tmp", "secret": "a"}]}),
    ("own folder", False, {"volumes": [_MOUNT | {"mountPath": "/dev/shm", "secret": "a"}]}),
    ("own folder", False, {"volumes": [_MOUNT | {"mountPath": "/runonce", "secret": "a"}]}),
    ("taint key", True, {"tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b"}]}),
    ("taint key", False, {"tolerations": [{"effect": "NoSchedule"}]}),
    ("taint key", False, {"tolerations": [{"operator": "Equal", "value": "a"}]}),
    ("taint value", True, {"tolerations": [{"key": "a", "operator": "Exists", "value": ""}]}),
    ("taint value", False, {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}),
    ("taint seconds", True, {"tolerations": [{"key": "a", "effect": "NoExecute", "tolerationSeconds": 0}]}),
    ("taint seconds", False, {"tolerations": [{"key": "a", "tolerationSeconds": 5}]}),
    ("taint seconds", False, {"tolerations": [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 5}]}),
]


# --- what a run met -----------------------------------------------------------------------------------------


def table(hits: Counter[tuple[str, str]]) -> str:
    """Rows of docs/refusals.md: each rule that ties fields together, then each kind of bound over all places that have it.

    Of a kind the fewest hits of any place are told.
    """
    rules = {change.label for change in ties()}
    kinds: dict[str, set[str]] = defaultdict(set)
    for change in changes():
        if change.label not in rules:
            kinds[change.label.rpartition(" ")[2]].add(change.label)
    sides = {(change.label, "accepted" if change.good else "refused") for change in changes()}

    def least(labels: set[str], side: str) -> str:
        met = [hits[label, side] for label in labels if (label, side) in sides]
        return str(min(met)) if met else "-"

    rows = [(label, 1, {label}) for label in sorted(rules)]
    rows += [(kind, len(labels), labels) for kind, labels in sorted(kinds.items())]
    lines = (f"| {what} | {count} | {least(of, 'accepted')} | {least(of, 'refused')} |" for what, count, of in rows)
    return "\n".join(["| What | Places | Accepted, at least | Refused, at least |", "|---|---|---|---|", *lines])
