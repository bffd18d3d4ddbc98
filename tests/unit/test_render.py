"""The table of forms (docs/forms.md), a test a row; and everything that has no form, with the path that says where."""

from __future__ import annotations

import dataclasses as D
import datetime
import decimal
import fractions
import json
import math
import os
import pathlib
import uuid
from collections import Counter, OrderedDict
from typing import Any, NotRequired, Required, TypedDict

import attrs
import numpy as np
import parameters as sample
import pydantic
import pytest

from runonce import ExperimentParameters, load, render
from runonce.errors import InputError, LoadError, NotCanonical, RenderError
from runonce.experiment.params import describe, find_imported

FORMS = [
    (1, 1),
    (1.5, 1.5),
    (1e22, 1e22),
    (True, True),
    ("ä\n$x", "ä\n$x"),
    (b"x", {"$bytes": "eA=="}),
    (2**53, {"$int": "9007199254740992"}),
    (-(2**70), {"$int": "-1180591620717411303424"}),
    (1e16, {"$float": "10000000000000000"}),
    (math.inf, {"$float": "inf"}),
    ([1, [2.5, []]], [1, [2.5, []]]),
    ((1, "a"), {"$tuple": [1, "a"]}),
    ({3, 1, 2}, {"$set": [1, 2, 3]}),
    (frozenset(("b", "a")), {"$frozenset": ["a", "b"]}),
    ({"b": 1, "a": None}, {"b": 1, "a": {"$none": True}}),
    ({1: "x", (1, 2): "y"}, {"$map": [[1, "x"], [{"$tuple": [1, 2]}, "y"]]}),
    (sample.Opt(), {"$type": "parameters:Opt", "value": {"lr": 0.1, "betas": [0.9, 0.999]}}),
    (sample.Opt, {"$ref": "parameters:Opt"}),
    (sample.Color.RED, {"$type": "parameters:Color", "value": "RED"}),
    (sample.Level.HIGH, {"$type": "parameters:Level", "value": "HIGH"}),
    (sample.Point(1, 2), {"$type": "parameters:Point", "value": {"x": 1, "y": 2}}),
    (sample.Size(1), {"$type": "parameters:Size", "value": {"width": 1, "height": 1}}),
    (sample.function, {"$ref": "parameters:function"}),
    (sample.PARTIAL, {"$ref": "parameters:function", "args": [], "kwargs": {"base": 2}}),
    (len, {"$ref": "builtins:len"}),
    (pathlib.Path("a/b"), {"$type": "pathlib:Path", "value": "a/b"}),
    (pathlib.PureWindowsPath("a"), {"$type": "pathlib:PureWindowsPath", "value": "a"}),
    (datetime.date(2026, 1, 2), {"$type": "datetime:date", "value": "2026-01-02"}),
    (datetime.time(3, 4), {"$type": "datetime:time", "value": "03:04:00"}),
    (
        datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        {"$type": "datetime:datetime", "value": "2026-01-02T00:00:00+00:00"},
    ),
    (datetime.timedelta(days=-1, seconds=5), {"$type": "datetime:timedelta", "value": [-1, 5, 0]}),
    (decimal.Decimal("1.10"), {"$type": "decimal:Decimal", "value": "1.10"}),
    (fractions.Fraction(2, 6), {"$type": "fractions:Fraction", "value": "1/3"}),
    (
        uuid.UUID(int=1),
        {"$type": "uuid:UUID", "value": "00000000-0000-0000-0000-000000000001"},
    ),
    (np.array([1, 2], dtype=">i2"), {"$array": {"dtype": "<i2", "shape": [2], "data": "AQACAA=="}}),
    (np.array(1.5), {"$array": {"dtype": "<f8", "shape": [], "data": "AAAAAAAA+D8="}}),
]


@pytest.mark.parametrize(("value", "form"), FORMS, ids=[type(value).__name__ for value, _ in FORMS])
def test_a_value_has_one_form_and_comes_back_from_it(value, form):
    assert render(sample.Anything(x=value)) == {"x": form}
    twin = load(sample.Anything, {"x": form}, find_imported)
    assert render(twin) == {"x": form}
    if not isinstance(value, np.ndarray | sample.PARTIAL.__class__):
        assert twin.x == value
        assert type(twin.x) is type(value)


def test_what_json_has_not_is_the_same_before_and_after_the_store():
    """The source's JSON makes {'1': [1, 2], 's': '{3}'} of this, so that a cold and a warm run differ."""
    value = {1: (1, 2), "s": {3}, None: b"x", "n": {"1": 1}}
    twin = load(sample.Anything, json.loads(json.dumps(render(sample.Anything(x=value)))), find_imported)
    assert twin.x == value
    assert {type(key) for key in twin.x} == {int, str, type(None)}
    assert [type(twin.x[key]) for key in (1, "s", None)] == [tuple, set, bytes]


def test_nan_is_nan():
    assert render(sample.Anything(x=math.nan)) == {"x": {"$float": "nan"}}
    assert math.isnan(load(sample.Anything, {"x": {"$float": "nan"}}, find_imported).x)


def test_numpy_scalars_are_pythons():
    assert render(sample.Anything(x=[np.float64(0.1), np.int8(3), np.bool_(True), np.str_("a")])) == {
        "x": [0.1, 3, True, "a"]
    }


def test_a_minus_zero_is_zero_and_a_whole_float_a_whole_number():
    assert render(sample.Anything(x=[-0.0, 2.0])) == {"x": [0, 2]}


def test_what_an_annotation_says_needs_no_tag():
    form = render(sample.Declared(oi=3, maybe=sample.Opt(), se={2, 1}, dk={2: "b"}, opts=[sample.Opt(), sample.Adam()]))
    assert form | {"nested": 0, "by": 0} == {
        "i": 1, "f": 0.5, "b": False, "s": "a", "by": 0, "oi": 3, "u": 1, "lit": "a", "li": [], "lf": [], "ll": [],
        "tf": [1, "a"], "tv": [], "se": [1, 2], "fs": [], "di": {}, "dk": {"$map": [[2, "b"]]},
        "opt": {"lr": 0.1, "betas": [0.9, 0.999]}, "maybe": {"lr": 0.1, "betas": [0.9, 0.999]},
        "opts": [
            {"lr": 0.1, "betas": [0.9, 0.999]},
            {"$type": "parameters:Adam", "value": {"lr": 0.1, "betas": [0.9, 0.999], "eps": 1e-08}},
        ],
        "color": "RED", "level": "LOW", "point": {"x": 1, "y": 2}, "size": {"width": 3, "height": 1}, "path": "a/b",
        "day": "2026-01-02", "at": "2026-01-02T03:04:05", "span": [0, 1, 500000], "dec": "1.10", "fr": "1/3",
        "uid": "00000000-0000-0000-0000-000000000005", "nested": 0,
    }  # fmt: skip


def test_everything_declared_comes_back_with_its_type():
    made = sample.Declared(oi=3, maybe=sample.Adam(), se={2, 1}, dk={2: "b"}, tv=(1.0, 2.0), ll=[["a"], []])
    twin = load(sample.Declared, render(made), find_imported)
    assert twin == made
    assert [type(value) for value in twin.tv] == [float, float]


class Keys(TypedDict, total=False):
    a: Required[int]
    b: NotRequired[float]
    c: str


def test_marks_of_a_typed_dict_are_seen_where_annotations_are_text():
    @D.dataclass
    class Typed(ExperimentParameters):
        keys: Keys = D.field(default_factory=lambda: {"a": 1})

    assert render(Typed()) == {"keys": {"a": 1}}
    assert load(Typed, {"keys": {"a": 2, "b": 3}}, find_imported).keys == {"a": 2, "b": 3.0}
    with pytest.raises(LoadError, match="keys.a: is missing"):
        load(Typed, {"keys": {"b": 1}}, find_imported)


def test_a_number_gets_the_declared_type():
    twin = load(sample.Declared, {"f": 2, "lf": [1, 2.5], "i": 3.0}, find_imported)
    assert (twin.f, twin.lf, twin.i) == (2.0, [1.0, 2.5], 3)
    assert (type(twin.f), type(twin.lf[0]), type(twin.i)) == (float, float, int)


def test_a_mapping_comes_in_the_order_of_its_canonical_keys():
    twin = load(sample.Anything, {"x": {"b": 1, "a": 2}}, find_imported)
    assert list(twin.x) == ["a", "b"]


@pydantic.dataclasses.dataclass
class PydanticData:
    a: int = 1


class PydanticModel(pydantic.BaseModel):
    a: int = 1
    b: list[float] = []


@attrs.define
class Attrs:
    a: int = 1
    b: str = attrs.field(default="x", repr=False)


@pytest.mark.parametrize(
    ("value", "inner"),
    [(PydanticModel(b=[1]), {"a": 1, "b": [1]}), (Attrs(2), {"a": 2, "b": "x"}), (PydanticData(3), {"a": 3})],
)
def test_models_of_pydantic_and_attrs_have_a_form(value, inner):
    form = render(sample.Anything(x=value))["x"]
    assert form["value"] == inner
    assert load(sample.Anything, {"x": form}, find_imported).x == value


# --- without a form ---


class Plain:
    pass


class Caller:
    def __call__(self):
        return 1

    def method(self):
        return 1


def closure(n):
    return lambda: n


CYCLE: list[Any] = []
CYCLE.append(CYCLE)
DEEP: Any = []
for _ in range(60):
    DEEP = [DEEP]


REFUSED = [
    (lambda v: v + 1, "is a lambda"),
    (closure(1), "is a lambda"),
    (Caller().method, "bound to a Caller"),
    (Caller(), "has no form"),
    (Plain(), "has no form"),
    (sample.Access.READ | sample.Access.WRITE, "combination of flags"),
    (OrderedDict(a=1), "would come back as a dict"),
    (Counter("a"), "would come back as a dict"),
    (range(3), "has no form"),
    (object, None),
    (np.array(["a"]), "array of dtype"),
    (np.array([object()]), "array of dtype"),
    ("\ud800", "lone surrogate"),
    ({"\ud800": 1}, "lone surrogate"),
    ({"$a": 1}, "begins with $"),
    (CYCLE, "levels deep"),
    (DEEP, "levels deep"),
    (os.environ, "has no form"),
    (__import__("functools").partial(lambda v: v), "is a lambda"),
    (__import__("functools").partial(sample.function, Plain()), "has no form"),
    ([np.nan, {1: Plain()}], "has no form"),
]


@pytest.mark.parametrize(
    ("value", "message"), [row for row in REFUSED if row[1]], ids=[type(row[0]).__name__ for row in REFUSED if row[1]]
)
def test_a_value_without_a_form_is_refused_where_it_stands(value, message):
    with pytest.raises(RenderError) as caught:
        render(sample.Anything(x={"a": [1, {"b": value}]} if message != "levels deep" else value))
    assert message in str(caught.value)
    if message != "levels deep":
        assert str(caught.value).startswith("x.a[1].b")


def test_an_open_file_has_no_form(tmp_path):
    with (tmp_path / "f").open("w") as file, pytest.raises(RenderError, match="x: is a .*TextIOWrapper.*has no form"):
        render(sample.Anything(x=file))


def test_every_field_without_a_form_is_named_together():
    @D.dataclass
    class Two(ExperimentParameters):
        a: Any = None
        b: Any = None
        c: int = 1

    with pytest.raises(RenderError) as caught:
        Two(a=Plain(), b=lambda: 1).params_hash()
    assert [fault.path for fault in caught.value.faults] == ["a", "b"]
    with pytest.raises(RenderError) as caught:
        Two(a=["\ud800"], b=lambda: 1).params_hash()
    assert [fault.path for fault in caught.value.faults] == ["a", "b"]


def test_a_local_class_cannot_be_imported():
    @D.dataclass
    class Local:
        x: int = 1

    with pytest.raises(RenderError, match="x"):
        render(sample.Anything(x=Local()))


def test_a_name_that_leads_elsewhere_is_refused(monkeypatch):
    monkeypatch.setattr(sample, "function", sample.other_function)
    with pytest.raises(RenderError, match="x: is .*function"):
        render(sample.Anything(x=sample.PARTIAL.func))


def test_an_annotation_that_cannot_be_resolved_is_named():
    @D.dataclass
    class Broken(ExperimentParameters):
        x: "NoSuchType" = 1  # noqa: F821, UP037

    with pytest.raises(InputError, match="NoSuchType"):
        Broken().params_hash()


def test_a_constructor_that_changes_what_it_gets_is_named():
    @D.dataclass
    class Scaled(sample.Anything):
        def __post_init__(self):
            self.x *= 2

    with pytest.raises(RenderError, match=r"x: reads back as 8, not 4: the constructor changes it"):
        render(Scaled(x=2))


def test_what_is_set_beside_the_fields_is_named():
    made = sample.Anything(x=1)
    made.extra = [1]
    with pytest.raises(RenderError, match="extra: is no init field"):
        render(made)


def test_classes_of_main_are_hashed_but_not_rendered(monkeypatch):
    @D.dataclass
    class Main(ExperimentParameters):
        x: int = 1

    Main.__module__ = "__main__"
    assert len(Main().params_hash()) == 64
    with pytest.raises(RenderError, match=r"is defined in __main__.*Move it into a module"):
        render(Main())


def test_a_big_array_counts_by_its_digest_and_is_not_rendered():
    big = np.arange(5000)
    first, second = sample.Anything(x=big), sample.Anything(x=big.copy())
    assert first.params_hash() == second.params_hash()
    second.x[2500] = -1
    assert first.params_hash() != second.params_hash()
    with pytest.raises(RenderError, match="x"):
        render(first)
    assert describe(first).params["x"]["$array"].keys() == {"dtype", "shape", "sha256"}


# --- what a declared type cannot take ---


@pytest.mark.parametrize(
    ("form", "where"),
    [
        ({"i": 1.5}, "i"),
        ({"i": "1"}, "i"),
        ({"i": True}, "i"),
        ({"f": "fast"}, "f"),
        ({"f": False}, "f"),
        ({"f": {"$int": "9007199254740993"}}, "f"),
        ({"b": 1}, "b"),
        ({"s": 1}, "s"),
        ({"by": "x"}, "by"),
        ({"u": 1.5}, "u"),
        ({"lit": "c"}, "lit"),
        ({"li": [1, "a"]}, "li[1]"),
        ({"ll": [["a"], [1]]}, "ll[1][0]"),
        ({"tf": [1]}, "tf"),
        ({"di": {"a": "x"}}, "di.a"),
        ({"color": "GREEN"}, "color"),
        ({"opt": {"lr": 1, "lrr": 2}}, "opt.lrr"),
        ({"opt": {"$type": "parameters:Color", "value": "RED"}}, "opt"),
        ({"point": {"x": 1}}, "point.y"),
        ({"day": "yesterday"}, "day"),
        ({"day": "20260102"}, "day"),
        ({"dec": "x"}, "dec"),
        ({"path": "a//b"}, "path"),
        ({"nothing": 1}, "nothing"),
        ({"name": "x"}, "name"),
    ],
)
def test_what_the_declared_type_cannot_take_exactly_is_a_fault(form, where):
    with pytest.raises(InputError) as caught:
        load(sample.Declared, form, find_imported)
    assert [fault.path for fault in caught.value.faults] == [where]


def test_all_faults_are_named_together():
    with pytest.raises(LoadError) as caught:
        load(sample.Declared, {"i": "a", "li": ["b", "c"], "lrr": 1}, find_imported)
    assert sorted(fault.path for fault in caught.value.faults) == ["i", "li[0]", "li[1]", "lrr"]


@pytest.mark.parametrize(
    "form", [{"x": {"$set": [2, 1]}}, {"x": {"$set": [1, 1]}}, {"x": {"$map": [[2, "b"], [1, "a"]]}}]
)
def test_another_order_than_the_one_that_is_hashed_is_refused(form):
    with pytest.raises(NotCanonical):
        load(sample.Anything, form, find_imported)


@pytest.mark.parametrize(
    "form",
    [{"$type": "parameters:Plainly", "value": {}}, {"$ref": "nowhere:x"}, {"$type": "builtins:object", "value": {}}],
)
def test_a_name_that_leads_nowhere_or_to_no_value_class_is_refused_before_any_call(form):
    with pytest.raises(LoadError):
        load(sample.Anything, {"x": form}, find_imported)


def test_no_call_is_made_to_what_a_ref_names():
    assert load(sample.Anything, {"x": {"$ref": "os:abort"}}, find_imported).x is os.abort


def test_nothing_but_value_classes_can_be_constructed():
    with pytest.raises(LoadError, match="x"):
        load(sample.Anything, {"x": {"$type": "subprocess:Popen", "value": {"args": ["true"]}}}, find_imported)
