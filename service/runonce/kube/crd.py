"""The CustomResourceDefinition, made from the models of the spec and of the status. Pure.

A structural schema without defaults in the spec, which would show as differences to whoever applies files from Git. A
pattern becomes a rule, so that the server says in words what is meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from runonce.experiment.spec import API_VERSION, KIND, ExperimentSpec
from runonce.experiment.spec_fields import FORMS
from runonce.experiment.status import Status
from runonce.kube.rules import RULES

Schema = dict[str, Any]

_OPEN = ("ExperimentSpec.params", "ExperimentSpec.hashAs")  # the server keeps what is in them, and checks none of it
_QUANTITIES = re.compile(r"^Resources\.")
_KEPT = ("type", "enum", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties")
_COLUMNS = (
    ("Phase", "string", ".status.phase", 0),
    ("Mode", "string", ".status.mode", 0),
    ("Cached", "boolean", ".status.cached", 0),
    ("Key", "string", ".status.key", 0),
    ("GPUs", "integer", ".status.gpus", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Image", "string", ".spec.image", 1),
    ("Job", "string", ".status.job", 1),
    ("Message", "string", ".status.message", 1),
)
_SELECTABLE = (
    ".spec.config",
    ".spec.profile",
    ".spec.queueName",
    ".spec.store",
    ".status.phase",
    ".status.modes.train.cacheKey",
    ".status.modes.valid.cacheKey",
    ".status.modes.test.cacheKey",
)


def custom_resource_definition() -> Schema:
    group, version = API_VERSION.split("/")
    plural = f"{KIND.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": plural,
                "singular": KIND.lower(),
                "shortNames": ["rexp"],
                "categories": ["runonce"],
            },
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _resource()},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path} | ({"priority": wide} if wide else {})
                        for name, kind, path, wide in _COLUMNS
                    ],
                    "selectableFields": [{"jsonPath": path} for path in _SELECTABLE],
                }
            ],
        },
    }


def _resource() -> Schema:
    status = _Reader(Status).schema()
    status["default"] = {}
    # On the field: a status that omits it then reads as one that has observed nothing, as kstatus expects.
    status["properties"]["observedGeneration"]["default"] = -1
    return {
        "type": "object",
        "description": "An experiment: parameters, code and machines. Its result is made once and found again.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": _Reader(ExperimentSpec).schema(),
            "status": status,
        },
    }


class _Reader:
    """From pydantic's JSON Schema of one model to a structural schema, with the rules that stand at each place."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._root = model.model_json_schema(by_alias=True)
        self._name = model.__name__

    def schema(self) -> Schema:
        return self._model(self._name, self._root)

    def _model(self, name: str, source: Mapping[str, Any]) -> Schema:
        out: Schema = {"type": "object"}
        if "description" in source:
            out["description"] = " ".join(source["description"].split())
        out |= _validations(name, [])
        out["properties"] = {
            field: self._field(f"{name}.{field}", value) for field, value in source["properties"].items()
        }
        if source.get("required"):
            out["required"] = list(source["required"])
        return out

    def _field(self, at: str, given: Mapping[str, Any]) -> Schema:
        source = _present(given)
        if "$ref" in source:
            name = source["$ref"].rpartition("/")[2]
            return self._model(name, self._root["$defs"][name])
        out: Schema = {name: source[name] for name in _KEPT if name in source}
        rules: list[dict[str, str]] = []
        if _QUANTITIES.search(at):
            either = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
            out = either | {"maxLength": source["maxLength"]}
            rules.append(_form(source["pattern"], "string(self)"))
        elif "pattern" in source:
            rules.append(_form(source["pattern"], "self"))
        out |= _bounds(source)
        if out.get("type") == "integer":
            out["format"] = "int64"
        elif out.get("type") == "array":
            out["items"] = self._field(f"{at}[]", source["items"])
        elif out.get("type") == "object":
            self._mapping(at, source, out, rules)
        if at == "Status.conditions":
            out |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
        return out | _validations(at, rules)

    def _mapping(self, at: str, source: Mapping[str, Any], out: Schema, rules: list[dict[str, str]]) -> None:
        if at in _OPEN:
            # One whole for whoever applies it: the server writes down who owns what, a level for each level of it, and
            # that of nearly 10,000 levels it could not read again, nor then list any Experiment.
            out |= {"x-kubernetes-preserve-unknown-fields": True, "x-kubernetes-map-type": "atomic"}
            return
        names: Mapping[str, Any] = source.get("propertyNames", {})
        values: Mapping[str, Any] = source.get("additionalProperties", {})
        for pattern, value in source.get("patternProperties", {}).items():
            names, values = {"pattern": pattern, **names}, value
        out["additionalProperties"] = self._field(f"{at}{{}}", values)
        if "pattern" in names:
            matches = f"name.matches(r'{names['pattern']}')"
            rules.append(_names(matches, f"{FORMS[names['pattern']]}."))
        if "maxLength" in names:
            limit = names["maxLength"]
            message = f"a name has 1 to {limit} characters here. Choose another one."
            rules.append(_names(f"name.size() > 0 && name.size() <= {limit}", message))


def _present(source: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a value that is given: a field that may be left out is no null to an API server."""
    kinds = [kind for kind in source.get("anyOf", ()) if kind.get("type") != "null"]
    if len(kinds) != 1:
        return source
    return {**kinds[0], **{name: value for name, value in source.items() if name in _KEPT}}


def _bounds(source: Mapping[str, Any]) -> Schema:
    """Of numbers that a validator of ours reads first, pydantic tells the bounds by other names."""
    names = {"ge": "minimum", "le": "maximum"}
    out = {names[name]: source[name] for name in names if name in source}
    for name, bound, step in (("exclusiveMaximum", "maximum", -1), ("lt", "maximum", -1)):
        if name in source:
            out[bound] = int(source[name]) + step
    return out


def _form(pattern: str, value: str) -> dict[str, str]:
    return {"rule": f"{value}.matches(r'{pattern}')", "message": f"{FORMS[pattern]}."}


def _names(check: str, message: str) -> dict[str, str]:
    """For the names of a mapping; the first that is wrong is named."""
    wrong = f"self.filter(name, !({check}))[0]"
    return {
        "rule": f"self.all(name, {check})",
        "messageExpression": f"'%s: {message}'.format([{wrong}])",
        "message": message,  # what a server falls back to for a name with a line end
    }


def _validations(at: str, rules: list[dict[str, str]]) -> Schema:
    found = [*rules, *(rule.to_json() for rule in RULES if rule.at == at)]
    return {"x-kubernetes-validations": found} if found else {}
