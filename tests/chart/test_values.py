"""Values, their schema, and what is made of them agree."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml
from chart_reference import PAGE, page
from tests.chart.conftest import CHART

FREE = ("stores", "profiles", "requests", "limits")  # names in them are the administrator's


def objects(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from objects(inner, (*path, name))
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            yield from objects(schema[word], (*path, word))


def leaves(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(values, dict) and values and not {*path[-1:]} & {*FREE}:
        for name, inner in values.items():
            yield from leaves(inner, (*path, name))
    else:
        yield path


def at(values: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        values = values[name]
    return values


def test_the_schema_is_one(schema):
    jsonschema.Draft7Validator.check_schema(schema)


def test_every_value_is_described_and_a_name_that_there_is_not_is_refused(schema):
    for path, inner in objects(schema):
        if path and path[-1] != "additionalProperties":
            assert inner.get("description"), path
        if "properties" in inner:
            assert inner["additionalProperties"] is False, path


def test_schema_and_values_have_the_same_names(schema, defaults):
    def names(values: dict[str, Any], inner: dict[str, Any], path: str = "") -> None:
        known = set(inner["properties"]) - ({"global"} if not path else set())
        assert set(values) == known, path
        for name, value in values.items():
            if isinstance(value, dict) and "properties" in inner["properties"][name]:
                names(value, inner["properties"][name], f"{path}.{name}")

    names(defaults, schema)


def test_everything_sets_every_value_to_another_than_its_default(defaults, everything):
    for path in leaves(defaults):
        if (
            at(defaults, path) is True
            and path[-1] in ("install", "create", "enabled")
            and path[0] != "podDisruptionBudget"
        ):
            continue  # the values beside it show only with it
        assert at(everything, path) != at(defaults, path), path


DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
# What shows, or is taken, only when another value is not set as in everything.yaml.
BESIDE = {
    ("image", "controller", "tag"): {"image": {"controller": {"digest": ""}}},
    ("image", "worker", "tag"): {"image": {"worker": {"digest": ""}}},
    ("nameOverride",): {"fullnameOverride": ""},
    ("crds", "keep"): {"crds": {"install": True}},
    ("namespaces",): {"workers": {"serviceAccount": {"create": False}}},
    ("signing", "secretName"): {"signing": {"requireSigned": False}},
}


@pytest.fixture(scope="module")
def rendered_with(helm):
    """The chart's text for values, rendered once for the same ones."""
    known: dict[str, str] = {}

    def text(values: dict[str, Any]) -> str:
        key = json.dumps(values, sort_keys=True)
        if key not in known:
            known[key] = helm.text(values)
        return known[key]

    return text


def merged(values: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    out = copy.deepcopy(values)
    for name, value in over.items():
        out[name] = merged(out[name], value) if isinstance(value, dict) and isinstance(out.get(name), dict) else value
    return out


@pytest.mark.parametrize("path", list(leaves(DEFAULTS)), ids=".".join)
def test_every_value_is_used(rendered_with, everything, path):
    """A value that changes nothing would be a promise that the chart does not keep."""
    base = merged(everything, BESIDE.get(path, {}))
    other = copy.deepcopy(base)
    default = at(DEFAULTS, path)
    at(other, path[:-1])[path[-1]] = not default if default == at(base, path) else default
    assert rendered_with(base) != rendered_with(other)


@pytest.mark.parametrize(
    ("values", "saying"),
    [
        ({"replicas": 2}, "additional properties 'replicas' not allowed"),
        ({"controller": {"replica": 2}}, "additional properties 'replica' not allowed"),
        ({"controller": {"replicas": "two"}}, "got string, want integer"),
        ({"stores": {"default": {"uri": "s3://x"}}}, "missing property 'url'"),
        ({"stores": {"default": {"url": "gs://x"}}}, "does not match pattern"),
        ({"namespaces": ["a", "a"]}, "are equal"),
        ({"image": {"worker": {"digest": "latest"}}}, "does not match pattern"),
        ({"profiles": {"a100": {"gpuResouce": "x"}}}, "additional properties 'gpuResouce' not allowed"),
        ({"profiles": {"a": {"gpuResource": "x", "resourceClaimTemplateName": "y"}}}, "'/profiles/a': 'not' failed"),
        ({"signing": {"requireSigned": True}}, "'/signing/secretName': minLength: got 0, want 1"),
        ({"workers": {"serviceAccount": {"create": True}}}, "'/namespaces': minItems: got 0, want 1"),
        ({"controller": {"resources": {"claims": []}}}, "additional properties 'claims' not allowed"),
        *(
            (values, f"invalid propertyName '{name}'")
            for name in (
                *(f"app.kubernetes.io/{part}" for part in ("name", "instance", "component", "version", "managed-by")),
                "helm.sh/chart",
            )
            for labels in [{name: "x"}]
            for values in ({"commonLabels": labels}, {"controller": {"podLabels": labels}})
        ),
        ({"commonLabels": {"a": "b c"}}, "'/commonLabels/a': 'b c' does not match pattern"),
        ({"controller": {"podLabels": {"a": "b-"}}}, "'/controller/podLabels/a': 'b-' does not match pattern"),
        ({"commonLabels": {"a": "b" * 64}}, "'/commonLabels/a': maxLength: got 64, want 63"),
        ({"controller": {"podLabels": {"a": "b" * 64}}}, "'/controller/podLabels/a': maxLength: got 64, want 63"),
        ({"namespaces": ["a.b"]}, "'/namespaces/0': 'a.b' does not match pattern"),
        ({"namespaces": ["a" * 64]}, "does not match pattern"),
        ({"nameOverride": "Runs"}, "'/nameOverride': 'Runs' does not match pattern"),
        ({"fullnameOverride": "runs-"}, "'/fullnameOverride': 'runs-' does not match pattern"),
        ({"fullnameOverride": "2runs"}, "'/fullnameOverride': '2runs' does not match pattern"),
        ({"controller": {"terminationGracePeriodSeconds": 20}}, "minimum: got 20, want 25"),
        ({"image": {"controller": {"tag": "-1"}}}, "'/image/controller/tag': '-1' does not match pattern"),
        ({"image": {"worker": {"tag": "1" * 129}}}, "does not match pattern"),
        (
            {"image": {"controller": {"repository": "a b"}}},
            "'/image/controller/repository': 'a b' does not match pattern",
        ),
        ({"image": {"worker": {"repository": ""}}}, "'/image/worker/repository': '' does not match pattern"),
    ],
    ids=str,
)
def test_wrong_values_are_refused_with_their_place(helm, values, saying):
    assert saying in helm.refusal(values)


@pytest.mark.parametrize(
    "values",
    [
        {"signing": {"requireSigned": True, "secretName": "keys"}},
        {"workers": {"serviceAccount": {"create": True}}, "namespaces": ["a" * 63]},
        {"profiles": {"a": {"gpuResource": "", "resourceClaimTemplateName": "y"}}},
        {"commonLabels": {"app.kubernetes.io/part-of": "", "a": "b" * 63}},
        {"image": {"controller": {"tag": "_" * 128}}},
    ],
    ids=str,
)
def test_values_at_the_edge_of_a_refusal_are_taken(helm, values):
    assert helm.render(values)


def test_the_page_of_the_chart_is_made_from_its_schema():
    """make generate writes it."""
    assert PAGE.read_text() == page()
