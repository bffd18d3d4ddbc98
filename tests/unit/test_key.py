"""Keys: the hash form, the parts, the golden file of format 1, and what makes two keys differ."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import rfc8785

from runonce.errors import InputError
from runonce.experiment.form import check_form
from runonce.experiment.key import (
    KeyParts,
    cache_key,
    differences,
    hash_form,
    params_hash,
    pointer,
    to_pointer,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "samples" / "keys.json").read_text())


def by_hand(value) -> str:
    return hashlib.sha256(rfc8785.dumps(value)).hexdigest()


@pytest.mark.parametrize("case", GOLDEN["params"], ids=lambda case: case["paramsHash"][:8])
def test_golden_hashes_of_format_1_are_ours_and_anybodys(case):
    check_form(case["form"])
    assert params_hash(case["form"]) == case["paramsHash"]
    assert by_hand({"format": 1, "params": case["form"]}) == case["paramsHash"]


@pytest.mark.parametrize("case", GOLDEN["keys"], ids=lambda case: case["cacheKey"][:8])
def test_golden_keys_of_format_1_are_ours_and_anybodys(case):
    parts = case["parts"]
    made = KeyParts(
        mode=parts["mode"],
        entry=parts["entry"] if isinstance(parts["entry"], str) else tuple(parts["entry"]),
        params=parts["params"],
        env=parts["env"],
        seed=parts["seed"],
        code_version=parts["codeVersion"],
        inputs=parts["inputs"],
        extra=tuple(parts["extra"]),
        completions=parts.get("completions"),
    )
    assert made.to_json() == parts
    assert cache_key(made) == case["cacheKey"] == by_hand(parts)


def test_every_part_counts():
    (case, *_) = GOLDEN["keys"]
    seen = {case["cacheKey"]}
    changes = {
        "mode": "valid", "entry": "a:B", "params": "p", "env": {"A": "1"}, "seed": 1, "codeVersion": "label:x",
        "inputs": {"train": "k"}, "extra": ["salt"], "completions": 1, "format": 2,
    }  # fmt: skip
    for name, value in changes.items():
        seen.add(by_hand(case["parts"] | {name: value}))
    assert len(seen) == len(changes) + 1


FORM = {"lr": 0.1, "optimizer": {"foreach": True, "a/b": 1, "x~y": 2}, "layers": [{"n": 1}], "beams": 5}


@pytest.mark.parametrize(
    ("arguments", "form"),
    [
        ({}, FORM),
        ({"exclude": ["lr"]}, {k: v for k, v in FORM.items() if k != "lr"}),
        ({"exclude": ["nothing"]}, FORM),
        ({"exclude": ["/optimizer/foreach"]}, FORM | {"optimizer": {"a/b": 1, "x~y": 2}}),
        ({"exclude": ["/optimizer/a~1b", "/optimizer/x~0y"]}, FORM | {"optimizer": {"foreach": True}}),
        ({"exclude": ["/layers/0/n"]}, FORM | {"layers": [{}]}),
        ({"exclude": ["/layers/7/n", "/lr/x"]}, FORM),
        ({"hash_as": {"lr": "v3"}}, FORM | {"lr": "v3"}),
        ({"hash_as": {"new": 1}}, FORM | {"new": 1}),
        ({"hash_as": {"/optimizer/foreach": 0}}, FORM | {"optimizer": {"foreach": 0, "a/b": 1, "x~y": 2}}),
        ({"only_in": {"beams": "test"}, "mode": "train"}, {k: v for k, v in FORM.items() if k != "beams"}),
        ({"only_in": {"beams": "test"}, "mode": "test"}, FORM),
        ({"only_in": {"beams": "test"}}, FORM),
    ],
)
def test_the_hash_form(arguments, form):
    before = json.dumps(FORM)
    assert hash_form(FORM, **arguments) == form
    assert json.dumps(FORM) == before


def test_a_representation_that_leads_nowhere_is_refused():
    with pytest.raises(InputError, match=r'hashAs\["/no/x"\]: leads nowhere in params'):
        hash_form(FORM, hash_as={"/no/x": 1})


@pytest.mark.parametrize("segments", [("a",), ("a", "b"), ("a/b", "c~d"), ("layers", 0, "n"), ("/odd",)])
def test_pointers_there_and_back(segments):
    if len(segments) > 1:
        assert pointer(to_pointer(segments)) == tuple(map(str, segments))
    else:
        assert to_pointer(segments) == ("a" if segments == ("a",) else "/~1odd")


def test_a_plain_name_has_one_spelling():
    with pytest.raises(InputError, match="Write lr"):
        pointer("/lr")


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": 1}, {"a": True}, [("a", 1, True)]),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, [("/a/c", 2, 3)]),
        ({"a": [1, 2]}, {"a": [1, 3]}, [("/a/1", 2, 3)]),
        ({"a": [1]}, {"a": [1, 2]}, [("a", [1], [1, 2])]),
        ({"a": 1}, {"b": 1}, [("a", 1, None), ("b", None, 1)]),
        (1, 2, [("", 1, 2)]),
    ],
)
def test_differences_name_their_places(first, second, found):
    assert [(d.path, d.first, d.second) for d in differences(first, second)] == found
