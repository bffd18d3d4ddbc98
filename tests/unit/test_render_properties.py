"""For all values: what is rendered reads back to the same, equal values have equal hashes and others have not."""

from __future__ import annotations

import dataclasses as D
import datetime
import decimal
import fractions
import json
import os
import pathlib
import shutil
import subprocess
import sys
import uuid

import parameters as sample
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runonce import load, render
from runonce.experiment.canonical import canonical
from runonce.experiment.params import find_imported

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
KEYS = TEXT.filter(lambda key: not key.startswith("$"))
FLOATS = st.floats() | st.floats(-1e25, 1e25).map(float.__round__).map(float)
INTS = st.integers() | st.integers(2**53 - 2, 2**53 + 2) | st.integers(-(10**24), 10**24)
DATETIMES = st.datetimes().map(lambda at: at.replace(fold=0))  # a fold has no form
SCALARS = st.booleans() | INTS | FLOATS | TEXT
OPTS = st.builds(sample.Opt, lr=FLOATS, betas=st.tuples(FLOATS, FLOATS)) | st.builds(sample.Adam, lr=FLOATS, eps=FLOATS)
LIBRARY = (
    st.dates() | DATETIMES | st.timedeltas() | st.uuids() | st.fractions()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.sampled_from([pathlib.PurePosixPath("a/b"), sample.Color.BLUE, sample.function, sample.Opt, sample.PARTIAL])
)  # fmt: skip
HASHABLE = st.recursive(
    st.booleans() | st.integers(-5, 5) | TEXT, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3)
)
ANY = st.recursive(
    st.none() | SCALARS | st.binary(max_size=6) | LIBRARY | OPTS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.sets(HASHABLE, max_size=3)
    ),
    max_leaves=12,
)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of the strategy, which is deep
@given(ANY)
def test_anything_that_renders_reads_back_to_the_same(value):
    made = sample.Anything(x=value)
    form = render(made)
    again = render(load(sample.Anything, form, find_imported))
    assert canonical(again) == canonical(form)
    assert canonical(json.loads(json.dumps(form))) == canonical(form)


DECLARED = st.builds(
    sample.Declared,
    i=INTS, f=FLOATS, b=st.booleans(), s=TEXT, by=st.binary(max_size=5), oi=st.none() | INTS, u=INTS | TEXT,
    lit=st.sampled_from(["a", "b", 3]), li=st.lists(INTS, max_size=3), lf=st.lists(FLOATS, max_size=3),
    ll=st.lists(st.lists(TEXT, max_size=2), max_size=2), tf=st.tuples(INTS, TEXT), tv=st.lists(FLOATS, max_size=3).map(tuple),
    se=st.sets(INTS, max_size=4), fs=st.frozensets(TEXT, max_size=3), di=st.dictionaries(KEYS, FLOATS, max_size=3),
    dk=st.dictionaries(INTS, TEXT, max_size=3), opt=OPTS, maybe=st.none() | OPTS, opts=st.lists(OPTS, max_size=2),
    color=st.sampled_from(sample.Color), level=st.sampled_from(sample.Level),
    point=st.builds(sample.Point, INTS, INTS), size=st.builds(sample.Size, INTS, FLOATS), day=st.dates(), at=DATETIMES,
    span=st.timedeltas(), dec=st.decimals(allow_nan=False), fr=st.fractions(), uid=st.uuids(),
    nested=st.builds(sample.Nested, depth=INTS),
)  # fmt: skip


@given(DECLARED)
def test_declared_fields_read_back_to_equal_values_of_equal_types(made):
    form = render(made)
    twin = load(sample.Declared, form, find_imported)
    assert canonical(render(twin)) == canonical(form)
    for field in D.fields(made):
        if field.name not in ("name", "hash", "overwrite", "hash_representations"):
            first, second = getattr(made, field.name), getattr(twin, field.name)
            assert type(first) is type(second), field.name
            if "nan" not in repr(first).lower():
                assert first == second


@given(DECLARED, DECLARED)
def test_equal_values_have_equal_hashes_and_different_ones_have_not(first, second):
    for one, other in ((first, second), (first, D.replace(first)), (first, D.replace(second, i=first.i))):
        same = _exact(one) == _exact(other)
        assert (one.params_hash() == other.params_hash()) is same


def _exact(made: sample.Declared) -> str:
    """An identity of its own making: types and exact values, by Python's own means."""

    def walk(value):
        if D.is_dataclass(value):
            skip = ("name", "hash", "overwrite", "hash_representations") if hasattr(value, "params_hash") else ()
            fields = [(f.name, walk(getattr(value, f.name))) for f in D.fields(value) if f.name not in skip]
            return type(value).__name__, fields
        if isinstance(value, bool | str | bytes | type(None)):
            return type(value).__name__, value
        if isinstance(value, int | float) and not isinstance(value, sample.Level):
            return "number", "nan" if value != value else repr(
                0 if value == 0 else value if abs(value) == float("inf") else fractions.Fraction(value)
            )
        if isinstance(value, dict):
            return "dict", sorted((repr(walk(k)), walk(v)) for k, v in value.items())
        if isinstance(value, set | frozenset):
            return type(value).__name__, sorted(repr(walk(item)) for item in value)
        if isinstance(value, list | tuple):
            return type(value).__name__, [walk(item) for item in value]
        return type(value).__name__, str(value)

    return repr(walk(made))


PROGRAM = """
import datetime, decimal, fractions, pathlib, uuid, sys
import parameters as sample
cases = [
    sample.Declared(),
    sample.Declared(f=0.1, lf=[1e-7, 5e-324, 1.7976931348623157e308, 1e21, 123456789.123], li=[2**60, -1], se={5, 1, 9},
                    fs=frozenset(["b", "a", "\\u00e9", "\\U0001f600"]), di={"b": 1.5, "a": -0.0}, dk={3: "x", 1: "y"}),
    sample.Declared(maybe=sample.Adam(), opts=[sample.SGD()], color=sample.Color.BLUE, level=sample.Level.HIGH,
                    day=datetime.date(1999, 12, 31), span=datetime.timedelta(-3, 7), dec=decimal.Decimal("-0.10"),
                    fr=fractions.Fraction(-3, 9), uid=uuid.UUID(int=7)),
    sample.Anything(x={"t": (1, [2, {3}]), "f": sample.function, "c": sample.Opt, "p": sample.PARTIAL, "b": b"\\x00",
                       "path": pathlib.Path("x"), "n": None, "m": {(1, 2): 3.5, None: 1}, "a": float("nan")}),
]
print(*[case.params_hash() for case in cases])
"""


def interpreters() -> dict[str, str]:
    found = {}
    for minor in (11, 12, 13, 14):
        name = f"python3.{minor}"
        places = [shutil.which(name), *map(str, pathlib.Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/{name}"))]
        for place in filter(None, places):
            if subprocess.run([place, "-c", ""], capture_output=True).returncode == 0:
                found[f"3.{minor}"] = place
                break
    return found


INTERPRETERS = interpreters()


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_the_hashes_are_the_same_in_another_process_hash_seed_and_python(version):
    if version not in INTERPRETERS:
        pytest.skip(f"Python {version} is not on this machine; the workflow has it")
    root = pathlib.Path(__file__).parents[2]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env["PYTHONPATH"] = os.pathsep.join(map(str, (root / "service", root / "tests" / "samples")))

    def hashes(program: str, seed: str) -> str:
        done = subprocess.run(
            [program, "-c", PROGRAM], env=env | {"PYTHONHASHSEED": seed}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    here = hashes(sys.executable, "0")
    assert hashes(INTERPRETERS[version], "1") == here
    assert hashes(INTERPRETERS[version], "2") == here


def test_the_identity_of_the_tests_tells_apart_what_it_should():
    assert _exact(sample.Declared(s="a")) != _exact(sample.Declared(s="b"))
    assert decimal.Decimal("1.0") == decimal.Decimal("1.00")
    assert _exact(sample.Declared(dec=decimal.Decimal("1.0"))) != _exact(sample.Declared(dec=decimal.Decimal("1.00")))
    assert _exact(sample.Declared(uid=uuid.UUID(int=1))) != _exact(sample.Declared(day=datetime.date(2020, 1, 1)))
