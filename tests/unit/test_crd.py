"""The CustomResourceDefinition as a value; what a server makes of it is in tests/controlplane."""

from __future__ import annotations

import generate
import pytest
import yaml

from runonce.experiment import spec as resource
from runonce.experiment import spec_fields
from runonce.kube.crd import custom_resource_definition
from runonce.kube.rules import RULES

VERSION = custom_resource_definition()["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]


def places(schema, path=""):
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from places(child, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if name in schema:
            yield from places(schema[name], f"{path}[]")


def test_the_file_of_the_chart_is_what_the_models_make_and_small():
    """`make generate` writes it; client-side apply keeps it in an annotation, of which there may be 256 KiB."""
    text = generate.CRD.read_text(encoding="utf-8")
    assert text == generate.crd()
    assert len(text.encode()) < 80_000


def test_every_field_of_the_spec_says_what_it_means():
    """For `kubectl explain`; the page has it in its tables."""
    schema = yaml.safe_load(generate.CRD.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

    def inner(path):
        return path.endswith("[]") or path in ("", ".apiVersion", ".kind", ".metadata")

    silent = [path for path, place in places(schema) if "description" not in place and not inner(path)]
    assert [path for path in silent if path.startswith(".spec.")] == []


def test_every_place_of_the_schema_has_a_type_and_every_list_text_and_mapping_of_the_spec_a_bound():
    """The cost of rules is estimated from the bounds; without them the server refuses the rules."""
    for path, schema in places(SCHEMA):
        assert "type" in schema or schema.get("x-kubernetes-int-or-string"), path
        if not path.startswith(".spec.") or path.startswith((".spec.params", ".spec.hashAs")):
            continue
        bound = {"array": "maxItems", "string": "maxLength"}.get(schema.get("type"))
        if schema.get("type") == "object" and "properties" not in schema:
            bound = "maxProperties"
        assert bound is None or bound in schema or "enum" in schema, path


def test_nothing_of_the_spec_has_a_default_that_would_show_as_a_difference():
    assert not [path for path, schema in places(SCHEMA["properties"]["spec"]) if "default" in schema]
    assert SCHEMA["properties"]["status"]["default"] == {}
    assert SCHEMA["properties"]["status"]["properties"]["observedGeneration"]["default"] == -1


def test_every_rule_stands_somewhere():
    stated = [rule for _, schema in places(SCHEMA) for rule in schema.get("x-kubernetes-validations", ())]
    for rule in RULES:
        assert rule.to_json() in stated, rule.at


def test_every_form_has_words():
    assert all(words and not words.endswith(".") for words in spec_fields.FORMS.values())


@pytest.mark.parametrize("name", resource.ExperimentSpec.model_fields)
def test_every_field_of_the_model_is_in_the_schema(name):
    alias = resource.ExperimentSpec.model_fields[name].alias
    assert alias in SCHEMA["properties"]["spec"]["properties"]


def test_there_are_no_more_selectable_fields_than_a_server_takes():
    assert len(VERSION["selectableFields"]) == 8
