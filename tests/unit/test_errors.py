"""Messages: a value in one is short and harmless, whatever it is; so is a resource that no one should have written."""

from __future__ import annotations

import copy

import pytest

from runonce.errors import Fault, InputError, shown
from runonce.experiment.canonical import parse
from runonce.experiment.params import describe
from runonce.experiment.spec import LAST_APPLIED, parse_experiment


class Loud:
    def __repr__(self):
        raise SystemError("a user's __repr__ was called")


def nested(depth: int, key: str = "") -> object:
    value: object = 1
    for _ in range(depth):
        value = {key: value} if key else [value]
    return value


HUGE = 10**5000
ODD = [
    None,
    True,
    -1,
    1.5,
    2**70,
    "",
    "x" * 100_000,
    "\ud800",
    "a\0b",
    [],
    {},
    [None],
    {"a": None},
    nested(60),
    nested(900),
]
ODD += [
    nested(50_000),
    nested(900, "a"),
    nested(50_000, "a"),
    [[]] * 2000,
    {str(i): i for i in range(2000)},
    {"$type": 5, "value": 1},
]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"), (True, "True"), (None, "None"), ("a'b", '"a\'b"'), (1.5, "1.5"), ([1, "a"], "[1, 'a']"), ((1,), "(1,)"),
        ({"a": [1]}, "{'a': [1]}"), (HUGE, "a whole number of more than 60 digits"), (nested(9), "[[[[[...]]]]]"),
        ([Loud()], "[a Loud]"), (Loud(), "a Loud"), ("\ud800", "'\\ud800'"),
    ],
    ids=range(13),
)  # fmt: skip
def test_a_value_is_shown(value, text):
    assert shown(value) == text


@pytest.mark.parametrize("value", [*ODD, HUGE, Loud()], ids=range(len(ODD) + 2))
def test_whatever_is_shown_is_short(value):
    assert len(shown(value)) <= 60
    assert len(shown({"a": [value] * 100})) <= 60


def test_a_number_that_python_makes_no_text_of_is_refused_where_it_stands():
    import parameters as sample

    for value, path in ((HUGE, "x"), ([{"a": -HUGE}], "x[0].a")):
        with pytest.raises(
            InputError, match="is a whole number of more than 4000 digits. Keep such a number in a file"
        ) as caught:
            describe(sample.Anything(x=value))
        assert caught.value.faults[0].path == path


RESOURCE = {
    "apiVersion": "runonce.dev/v1alpha1",
    "kind": "Experiment",
    "metadata": {"name": "a", "annotations": {"b": "c"}},
    "spec": {
        "config": "a:B", "params": {"x": 1, "y": {"z": [1]}}, "hashExclude": ["x"], "hashAs": {"w": 1}, "hash": "p",
        "paramsOnlyIn": {"x": "test"}, "codeVersion": "label:a", "codePackages": ["a"], "cacheKeyExtra": ["s"],
        "keyMachine": True, "env": {"A": "b"}, "seed": 1, "image": "i", "resources": {"cpu": "1"},
        "machineParams": {"train": {"nprocesses": 1, "gpuIds": [0]}, "test": {"nprocessesPerDevice": [1], "gpuIds": [1]}},
        "tolerations": [{"key": "a"}], "envFrom": [{"secret": "s"}], "volumes": [{"mountPath": "/a", "name": "n", "secret": "s"}],
    },
}  # fmt: skip


def places(value: object, path: tuple = ()):
    for name, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield (*path, name)
        yield from places(inner, (*path, name))


@pytest.mark.parametrize("path", list(places(RESOURCE)), ids=lambda path: ".".join(map(str, path)))
def test_whatever_stands_in_a_resource_it_is_taken_or_refused_in_words(path):
    for value in ODD:
        resource = copy.deepcopy(RESOURCE)
        inner = resource
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value
        said = refusal(resource)
        assert said is None or 0 < len(said) < 1500


def refusal(resource: dict) -> str | None:
    """The longest fault; None where the resource is taken."""
    try:
        parse_experiment(resource).spec.keys()
    except InputError as error:
        return max(map(str, error.faults), key=len)
    except UnicodeEncodeError:
        return "a lone surrogate, which neither our reader of files nor an API server lets through"
    return None


@pytest.mark.parametrize(
    "text", ["[" * 50_000, '{"spec": {"params": ' + '{"a": ' * 900 + "null" + "}" * 902, '{"spec": {"params": null}}']
)
def test_an_annotation_that_no_tool_wrote_says_nothing(text):
    resource = copy.deepcopy(RESOURCE)
    resource["metadata"]["annotations"] = {LAST_APPLIED: text}
    assert parse_experiment(resource).name == "a"


@pytest.mark.parametrize("text", ["[" * 50_000, '{"a":' * 50_000])
def test_json_that_no_one_could_walk_is_no_json(text):
    with pytest.raises(ValueError, match="it is nested too deeply"):
        parse(text)


def test_a_long_path_keeps_the_file_at_its_beginning_and_the_field_at_its_end():
    said = str(Fault(f"/home/me/{'deep/' * 50}both.yaml, line 14: spec.machineParams.train.gpuIds", "is not right."))
    assert said.startswith("/home/me/deep/")
    assert said.endswith("/both.yaml, line 14: spec.machineParams.train.gpuIds: is not right.")
    assert len(said) < 180
