"""Which JSON may stand in params, and the one spelling of every tag; without any class, as the controller sees it."""

from __future__ import annotations

import pytest

from runonce.errors import NotCanonical, SpecError
from runonce.experiment.form import MAX_BYTES, check_form, check_size

GOOD = [
    {"$none": True},
    {"$int": "9007199254740992"},
    {"$int": "-9007199254740993"},
    {"$float": "nan"},
    {"$float": "-inf"},
    {"$float": "10000000000000000"},
    {"$tuple": []},
    {"$set": [1, 2]},
    {"$frozenset": ["a"]},
    {"$bytes": ""},
    {"$bytes": "eA=="},
    {"$map": [[1, 2]]},
    {"$array": {"dtype": "<f4", "shape": [2], "data": "AACAPwAAAEA="}},
    {"$type": "a.b:C.D", "value": {}},
    {"$type": "a:C", "value": "RED"},
    {"$ref": "a:f"},
    {"$ref": "a:f", "args": [1], "kwargs": {"b": {"$none": True}}},
    1e22,
    -(2**53) + 1,
    {"a": [{"b": [True, "x", 1.5]}]},
]

MISSPELLED = [
    ({"$none": False}, "$none takes only true"),
    ({"$int": "1"}, "Write 1"),
    ({"$int": "+9007199254740992"}, "decimal digits"),
    ({"$int": "009007199254740992"}, 'Write {$int: "9007199254740992"}'),
    ({"$int": 9}, "decimal digits"),
    ({"$int": "9" * 5000}, "4000 are the limit"),
    ({"$float": "1e16"}, 'Write {$float: "10000000000000000"}'),
    ({"$float": "NaN"}, "takes the text of a number"),
    ({"$float": "1.5"}, "Write 1.5"),
    ({"$float": 1.5}, "takes the text of a number"),
    ({"$tuple": 1}, "takes a list"),
    ({"$set": [2, 1]}, "out of order, or twice"),
    ({"$set": [1, 1]}, "out of order, or twice"),
    ({"$bytes": "eA"}, "padded base64"),
    ({"$bytes": "eB=="}, "padded base64"),
    ({"$map": [["a", 1]]}, "Write a plain mapping"),
    ({"$map": [[1]]}, "list of pairs"),
    ({"$map": [[2, 0], [1, 0]]}, "out of order"),
    ({"$array": {"dtype": "f4", "shape": [0], "data": ""}}, "has the dtype"),
    ({"$array": {"dtype": "<f4", "shape": [3], "data": "AACAPwAAAEA="}}, "need 12"),
    ({"$array": {"dtype": "<f4", "shape": [-1], "data": ""}}, "shape"),
    ({"$array": []}, "takes {dtype, shape, data}"),
    ({"$type": "a:C"}, "goes with value"),
    ({"$type": "C", "value": {}}, "takes"),
    ({"$ref": "a:f", "args": []}, "both args and kwargs"),
    ({"$ref": "a:f()"}, "takes"),
]

REFUSED = [
    (None, "is null. Write {$none: true}"),
    ({"$what": 1}, "keys that begin with $ are kept for tags"),
    ({"$none": True, "a": 1}, "kept for tags"),
    (2**53, 'Write {$int: "9007199254740992"}'),
    (1e18, '{$float: "1000000000000000000"}'),
    (10**22, '{$int: "1' + "0" * 22),
    (float("nan"), '{$float: "nan"}'),
    ("\ud800", "lone surrogate"),
    ({"\ud800": 1}, "lone surrogate"),
    ((1,), "is a tuple"),
]


@pytest.mark.parametrize("form", GOOD, ids=str)
def test_the_one_spelling_is_taken(form):
    check_form({"x": form}, "params")


@pytest.mark.parametrize(("form", "message"), MISSPELLED, ids=lambda value: str(value)[:40])
def test_any_other_spelling_is_refused_without_the_class(form, message):
    with pytest.raises(NotCanonical) as caught:
        check_form({"x": [form]}, "params")
    assert str(caught.value).startswith("params.x[0]: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("form", "message"), REFUSED, ids=lambda value: str(value)[:40].encode("ascii", "replace").decode()
)
def test_what_cannot_stand_there_is_refused(form, message):
    with pytest.raises(SpecError) as caught:
        check_form({"x": {"y": [form]}}, "params")
    assert caught.value.faults[0].path == "params.x.y[0]"
    assert message in str(caught.value)


def test_all_faults_are_named_with_their_places():
    with pytest.raises(SpecError) as caught:
        check_form({"a": None, "b": [1, None, {"$set": [2, 1]}], "a-b": {"c": 2**60}}, "p")
    assert [fault.path for fault in caught.value.faults] == ["p.a", "p.b[1]", 'p["a-b"].c', "p.b[2]"]


def test_depth_has_a_limit_with_its_own_message():
    form: object = 1
    for _ in range(60):
        form = [form]
    with pytest.raises(SpecError, match="nested more than 48 levels deep"):
        check_form(form, "params")


def test_size_has_a_limit_with_its_own_message():
    check_size({"x": "a" * (MAX_BYTES - 8)}, "params")
    with pytest.raises(SpecError, match=r"params: is 65,5\d\d bytes as JSON; an API server takes up to 65,536"):
        check_size({"x": "a" * MAX_BYTES}, "params")


@pytest.mark.parametrize("kind", ["list", "dict", "tuple", "dataclass"])
def test_whatever_render_writes_is_not_too_deep(kind):
    import parameters as sample

    from runonce.errors import RenderError
    from runonce.experiment.params import describe

    wrap = {
        "list": lambda value: [value],
        "dict": lambda value: {"a": value},
        "tuple": lambda value: (value,),
        "dataclass": sample.Holder,
    }[kind]
    value, forms = 1, []
    while True:
        try:
            forms.append(describe(sample.Anything(x=value)).params)
        except RenderError:
            break
        value = wrap(value)
    check_form(forms[-1], "spec", "params")
