"""What counts in `params_hash` and what does not; every collision and instability of the source is a test here."""

from __future__ import annotations

import copy
import dataclasses as D
import functools
import ntpath
import pickle
import posixpath
from typing import Any

import numpy as np
import parameters as sample
import pytest

from runonce import ExperimentParameters, load, only_in, render, set_hash_functions
from runonce.errors import InputError, OnlyIn, RenderError
from runonce.experiment.params import describe, find_imported, fingerprint


@D.dataclass
class P(ExperimentParameters):
    x: Any = None
    y: Any = None
    lr: Any = None
    lr1: Any = None
    hash_representations: dict = set_hash_functions(y=lambda self, v: v)


class Obj:
    pass


class Box:
    def __init__(self, k):
        self.k = k

    def get(self):
        return self.k


@D.dataclass
class Call:
    """A function with a state: the source cannot hash it."""

    step: int = 1

    def __call__(self):
        return self.step


class DataFrame:
    """As pandas': a table whose repr leaves out the middle."""


def closure(n):
    return lambda: n


BIG = np.arange(2000)
BIG2 = BIG.copy()
BIG2[1000] = -5
Opt, Adam, SGD, Data, Leaf = sample.Opt, sample.Adam, sample.SGD, sample.Data, sample.Leaf

DIFFER = [
    ("nested field called name", {"x": Data("mnist")}, {"x": Data("imagenet")}),
    ("nested field called hash", {"x": Data(hash="a")}, {"x": Data(hash="b")}),
    ("nested field called overwrite", {"x": Data(overwrite=True)}, {"x": Data()}),
    ("two nested dataclasses swapped", {"x": Opt(0.1), "lr": Opt(0.5)}, {"x": Opt(0.5), "lr": Opt(0.1)}),
    ("own lr / nested lr", {"lr": 0.1}, {"x": Opt(0.1)}),
    ("lr=12 / lr1=2", {"lr": 12}, {"lr1": 2}),
    ("Adam / SGD", {"x": Adam()}, {"x": SGD()}),
    ("class / instance", {"x": Adam}, {"x": Adam()}),
    ("repr=False field in a list", {"x": [Leaf(1, 0)]}, {"x": [Leaf(1, 9)]}),
    ("functions of one name", {"x": posixpath.join}, {"x": ntpath.join}),
    ("array of 2000, middle item", {"x": BIG}, {"x": BIG2}),
    ("array, 9th digit", {"x": np.array([0.123456789])}, {"x": np.array([0.1234567891])}),
    ("representation 1 / '1'", {"y": 1}, {"y": "1"}),
    ("representation True / 'True'", {"y": True}, {"y": "True"}),
    ("None / all None", {}, {"x": sample.Blank()}),
    ("True / 1", {"x": True}, {"x": 1}),
    ("1 / '1'", {"x": 1}, {"x": "1"}),
    ("tuple / list", {"x": (1,)}, {"x": [1]}),
    ("None / 'None'", {"x": [None]}, {"x": ["None"]}),
    ("list order", {"x": [1, 2]}, {"x": [2, 1]}),
    ("array shape", {"x": np.zeros((2, 3))}, {"x": np.zeros((3, 2))}),
    ("array dtype", {"x": np.zeros(2, "f4")}, {"x": np.zeros(2, "f8")}),
    ("key 1 / '1'", {"x": {1: 0}}, {"x": {"1": 0}}),
    ("partial / function", {"x": sample.PARTIAL}, {"x": sample.function}),
    ("set / frozenset", {"x": {1}}, {"x": frozenset({1})}),
    ("empty list / nothing", {"x": []}, {}),
    ("nan / 'nan'", {"x": float("nan")}, {"x": "nan"}),
    ("state of an instance with __call__", {"x": Call(1)}, {"x": Call(2)}),
]


@pytest.mark.parametrize(("first", "second"), [row[1:] for row in DIFFER], ids=[row[0] for row in DIFFER])
def test_different_values_have_different_hashes(first, second):
    assert P(**first).params_hash() != P(**second).params_hash()


EIGHT, TURNED = set(), set()
for number in (0, 8):
    EIGHT.add(number)
for number in (8, 0):
    TURNED.add(number)

EQUAL = [
    ("1 / 1.0", {"x": 1}, {"x": 1.0}),
    ("0.1 / numpy's", {"x": 0.1}, {"x": np.float64(0.1)}),
    ("order of keys", {"x": {"a": 1, "b": 2}}, {"x": {"b": 2, "a": 1}}),
    ("order in a set", {"x": EIGHT}, {"x": TURNED}),
    ("-0.0 / 0", {"x": -0.0}, {"x": 0}),
    ("nan / nan", {"x": float("nan")}, {"x": np.nan}),
    ("byte order of an array", {"x": np.array([1, 2], ">i4")}, {"x": np.array([1, 2], "<i4")}),
    ("memory order of an array", {"x": np.array([[1, 2], [3, 4]])}, {"x": np.array([[1, 3], [2, 4]]).T}),
    ("instances with __call__", {"x": Call(1)}, {"x": Call(1)}),
    ("partials", {"x": functools.partial(int, base=2)}, {"x": functools.partial(int, base=2)}),
]


@pytest.mark.parametrize(("first", "second"), [row[1:] for row in EQUAL], ids=[row[0] for row in EQUAL])
def test_equal_values_have_equal_hashes(first, second):
    assert P(**first).params_hash() == P(**second).params_hash()


@pytest.mark.parametrize(
    "value", [lambda v: v + 1, closure(1), Box(1).get, Obj(), DataFrame(), Box(1)], ids=lambda v: type(v).__name__
)
def test_what_the_source_confuses_or_never_finds_again_is_refused_with_the_way_out(value):
    with pytest.raises(RenderError) as caught:
        P(x=value).params_hash()
    assert caught.value.faults[0].path == "x"
    assert "hash_representations" in str(caught.value)


@pytest.mark.parametrize("value", [[print, len, Obj.__init__, lambda: 0], {"o": Obj()}], ids=["list", "mapping"])
def test_what_has_another_address_in_each_process_is_refused_inside_containers_too(value):
    with pytest.raises(RenderError) as caught:
        P(x=value).params_hash()
    assert caught.value.faults[0].path in ("x[3]", "x.o", "x[2]")


def test_how_numpy_prints_does_not_count():
    array = np.array([0.123456789, 1e-12])
    before = P(x=array).params_hash()
    with np.printoptions(precision=3, suppress=True):
        assert repr(array) == "array([0.123, 0.   ])"
        assert P(x=array).params_hash() == before


def test_a_hash_has_64_digits_whatever_is_set():
    hashes = [P().params_hash(), P(x=1).params_hash(), P(x=list(range(400)), lr=0.1).params_hash()]
    assert [len(text) == 64 and set(text) <= set("0123456789abcdef") for text in hashes] == [True] * 3


def test_a_representation_lets_anything_count():
    @D.dataclass
    class Table(ExperimentParameters):
        frame: Any = None
        hash_representations: dict = set_hash_functions(frame=lambda params, value: id(type(value)) and "v3")

    assert Table(frame=DataFrame()).params_hash() == Table(frame=DataFrame()).params_hash()


# --- the base fields ---


@pytest.mark.parametrize("change", [{"name": "other"}, {"overwrite": True}])
def test_name_and_overwrite_never_count(change):
    assert P(x=1, **change).params_hash() == P(x=1).params_hash()


def test_those_of_nested_parameters_do_not_count_either():
    first, second = sample.Declared(), sample.Declared()
    second.nested.name, second.nested.overwrite = "other", True
    assert first.params_hash() == second.params_hash()
    second.nested.depth = 3
    assert first.params_hash() != second.params_hash()


def test_a_pin_replaces_the_hash_and_dry_output_says_so():
    pinned = P(x=1, hash="my.cache_1-a")
    assert pinned.params_hash() == "my.cache_1-a"
    rule, value = pinned.params_hash(dry=True)["hash"]
    assert (value, "pinned" in rule) == ("my.cache_1-a", True)


@pytest.mark.parametrize("pin", ["", "../../x", ".x", "-x", "a" * 65, "ä", "a b", "a/b", "a\n", 3])
def test_a_pin_that_could_lead_anywhere_is_refused(pin):
    with pytest.raises(InputError, match="hash: is .*a pinned hash has 1 to 64 of the characters"):
        P(hash=pin).params_hash()


def test_nothing_computed_is_kept_so_a_copy_has_its_own_hash():
    first = P(lr=0.1)
    first.params_hash()
    assert first.hash is None
    assert D.replace(first, lr=0.9).params_hash() == P(lr=0.9).params_hash()


# --- None ---


def test_a_new_optional_field_keeps_old_hashes():
    @D.dataclass
    class Old(ExperimentParameters):
        a: int = 1

    @D.dataclass
    class New(ExperimentParameters):
        a: int = 1
        b: int | None = None
        c: Opt | None = None

    assert New().params_hash() == Old().params_hash()
    assert New(b=0).params_hash() != Old().params_hash()
    assert render(New(b=0)) == {"a": 1, "b": 0}


def test_none_where_it_is_not_the_default_counts():
    @D.dataclass
    class Five(ExperimentParameters):
        a: int | None = 5

    assert render(Five(a=None)) == {"a": {"$none": True}}
    assert Five(a=None).params_hash() != Five().params_hash()
    assert load(Five, {"a": {"$none": True}}, find_imported).a is None


# --- representations ---


@D.dataclass
class Represented(ExperimentParameters):
    path: str = "/data/v1"
    gpus: int = 1
    model: Opt = D.field(default_factory=Opt)
    hash_representations: dict = set_hash_functions(
        {"gpus": lambda p, v: v}, path=lambda p, v: v.rsplit("/")[-1], gpus=None
    )


def test_keywords_win_over_the_mapping_and_functions_get_the_set_and_the_value():
    assert Represented(path="/mnt/v1", gpus=8).params_hash() == Represented().params_hash()
    assert Represented(path="/data/v2").params_hash() != Represented().params_hash()


def test_an_instance_may_have_its_own():
    one = Represented(path="/mnt/v9")
    one.hash_representations["path"] = None
    assert one.params_hash() != Represented(path="/mnt/v9").params_hash()
    other = Represented(path="/else")
    other.hash_representations["path"] = None
    assert one.params_hash() == other.params_hash()
    assert Represented().hash_representations["path"] is not None


def test_a_representation_of_none_leaves_the_field_out():
    @D.dataclass
    class Maybe(ExperimentParameters):
        a: int = 1
        hash_representations: dict = set_hash_functions(a=lambda params, value: None)

    assert Maybe(a=1).params_hash() == Maybe(a=2).params_hash()


def test_a_representation_of_a_field_that_there_is_not_is_an_error():
    @D.dataclass
    class Typo(ExperimentParameters):
        workers: int = 1
        hash_representations: dict = set_hash_functions(worker=None)

    with pytest.raises(InputError, match="worker.*workers"):
        Typo().params_hash()


def test_a_representation_that_fails_names_its_field():
    @D.dataclass
    class Fails(ExperimentParameters):
        a: int = 1
        hash_representations: dict = set_hash_functions(a=lambda params, value: 1 / 0)

    with pytest.raises(InputError, match=r"a.*ZeroDivisionError"):
        Fails().params_hash()


def test_set_hash_functions_takes_a_mapping_and_nothing_else():
    with pytest.raises(ValueError, match="takes a mapping"):
        set_hash_functions([1])


def test_the_resource_holds_what_was_represented():
    description = describe(Represented(path="/mnt/v7", gpus=4))
    assert description.params["gpus"] == 4
    assert (description.exclude, dict(description.hash_as)) == (("gpus",), {"path": "v7"})
    assert description.params_hash() == Represented(path="/mnt/v7", gpus=4).params_hash()


def test_what_only_its_representation_can_say_is_left_out_where_it_is_the_default_and_refused_elsewhere():
    kept = DataFrame()

    @D.dataclass
    class Table(ExperimentParameters):
        frame: Any = kept
        hash_representations: dict = set_hash_functions(frame=lambda params, value: "v3")

    made = Table()
    description = describe(made)
    assert (description.params, dict(description.hash_as)) == ({}, {"frame": "v3"})
    made.frame = DataFrame()
    assert made.params_hash() == description.params_hash()
    with pytest.raises(RenderError, match=r"frame: is a .*DataFrame"):
        describe(made)


def test_nested_parameters_keep_their_own_representations():
    @D.dataclass
    class Outer(ExperimentParameters):
        inner: Represented = D.field(default_factory=Represented)

    first, second = Outer(inner=Represented(gpus=8)), Outer()
    assert first.params_hash() == second.params_hash()
    assert describe(first).exclude == ("/inner/gpus",)
    assert Outer(inner=Represented(path="/a/v2")).params_hash() != second.params_hash()


# --- one mode's fields ---


@D.dataclass
class Modes(ExperimentParameters):
    lr: float = 0.1
    beams: int = only_in("test", default=5)


def test_a_field_of_one_mode_counts_in_that_alone():
    assert Modes(beams=9).params_hash(mode="train") == Modes().params_hash(mode="train")
    assert Modes(beams=9).params_hash(mode="test") != Modes().params_hash(mode="test")
    assert Modes(beams=9).params_hash() != Modes().params_hash()
    assert describe(Modes()).only_in == {"beams": "test"}


def test_in_another_mode_reading_it_raises_and_looking_at_the_whole_does_not():
    train = load(Modes, render(Modes(beams=9)), find_imported, mode="train")
    with pytest.raises(OnlyIn, match=r"Modes.beams is only_in\('test'\)"):
        _ = train.beams
    assert "beams" not in repr(train)
    assert train == load(Modes, {"lr": 0.1, "beams": 3}, find_imported, mode="train")
    for twin in (copy.copy(train), copy.deepcopy(train), pickle.loads(pickle.dumps(train))):
        assert twin == train
        with pytest.raises(OnlyIn):
            _ = twin.beams
    assert load(Modes, render(Modes(beams=9)), find_imported, mode="test").beams == 9


def test_a_mode_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="a mode is one of train, valid, test"):
        only_in("eval", default=1)


# --- dry ---


def test_dry_output_says_for_every_field_which_rule_applied():
    dry = Represented(path="/a/v1").params_hash(dry=True)
    assert list(dry)[:4] == ["name", "hash", "overwrite", "hash_representations"]
    assert dry["name"] == ("never counts", None)
    assert dry["gpus"] == ("left out: None in hash_representations", None)
    assert dry["path"][1] == "v1"
    assert dry["model"] == ("as rendered", {"lr": 0.1, "betas": [0.9, 0.999]})
    dry = P(x=lambda: 1).params_hash(dry=True)
    assert dry["x"][0].startswith("refused: ")
    assert dry["lr"] == ("left out: it is None, and so is its default", None)


# --- change during a run ---


def test_a_change_is_seen_deep_inside_and_a_read_is_none():
    made = load(sample.Declared, render(sample.Declared()), find_imported)
    before = fingerprint(made)
    repr(made)
    assert fingerprint(made) == before
    made.opt.lr = 9.0
    assert fingerprint(made) != before


def test_a_change_of_what_does_not_count_is_none():
    made = Represented()
    before = fingerprint(made, exclude=("gpus", "path"))
    made.gpus, made.path = 8, "/else"
    assert fingerprint(made, exclude=("gpus", "path")) == before


def test_a_pin_does_not_hide_a_change_and_no_function_of_the_author_is_called():
    @D.dataclass
    class Loud(ExperimentParameters):
        a: int = 1
        b: int = 1
        hash_representations: dict = set_hash_functions(b=lambda params, value: 1 / 0)

    made = Loud(hash="pinned")
    before = fingerprint(made, exclude=("b",))
    made.a = 2
    assert fingerprint(made, exclude=("b",)) != before


def test_load_sets_what_the_resource_says():
    made = load(P, {"x": 1}, find_imported, name="run-1", hash="pin", overwrite=True)
    assert (made.name, made.hash, made.overwrite) == ("run-1", "pin", True)


def test_a_class_without_the_decorator_is_told():
    class Plainly(ExperimentParameters):
        extra: int = 3

    with pytest.raises(RenderError, match=r"is not decorated: extra would never count. Write @dataclass above class"):
        Plainly().params_hash()
