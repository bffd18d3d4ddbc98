"""The reader of files, without kubectl: what it takes a scalar for, how it splits, what it refuses and in which words."""

from __future__ import annotations

import json
import math

import pytest

from runonce.author.document import MAX_DEPTH, read_documents, read_value
from runonce.author.writing import write_documents
from runonce.errors import DocumentError


def read(text: str | bytes) -> list[dict]:
    data = text.encode() if isinstance(text, str) else text
    return [document.value for document in read_documents(data, name="f.yaml")]


def faults(text: str | bytes) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        read(text)
    return [str(fault) for fault in caught.value.faults]


# Seen with the real kubectl; test_document_differential.py asks it again.
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E3", 1000), ("1.e3", 1000), (".5", 0.5), ("5.", 5), ("0777", 511), ("0o17", 15), ("08", 8),
        ("1_000", 1000), ("0x1F", 31), ("0b11", 3), ("0b-11", -3), ("-0b11", -3), ("+1", 1), ("-0", 0), ("-0.0", 0),
        ("y", True), ("Yes", True), ("ON", True), ("n", False), ("off", False), ("yES", "yES"), ("nUll", "nUll"),
        ("~", None), ("Null", None), ("", None), ("1:30", "1:30"), ("190:20:30.15", "190:20:30.15"),
        ("2024-01-01", "2024-01-01"), ("1.2.3", "1.2.3"), ("1e", "1e"), ("e5", "e5"), ("0x", "0x"), ("._1", "._1"),
        ("1e21", 1e21), ("5e-324", 5e-324), ("0.30000000000000004", 0.30000000000000004), ("9007199254740993", 2**53 + 1),
        ("982920233944554.24e3", 982920233944554200), ("3.0", 3), ("NaN", "NaN"), ("a b", "a b"), ('"1"', "1"),
        ("'y'", "y"), ("[1, [y], {a: n}]", [1, [True], {"a": False}]), ("|-\n  a\n  b", "a\nb"), (">-\n  a\n  b", "a b"),
    ],
)  # fmt: skip
def test_a_scalar_is_what_kubectl_takes_it_for(text, value):
    found = read_value(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("n", "false"),
        ("Y", "true"),
        ("1", "1"),
        ("0x1F", "31"),
        ("1.50", "1.5"),
        ("'n'", "n"),
        ("1:30", "1:30"),
        ("08", "8"),
    ],
)
def test_a_key_becomes_the_text_of_its_value(key, name):
    assert read(f"a: {{{key}: 1}}") == [{"a": {name: 1}}]


@pytest.mark.parametrize(
    ("text", "saying"),
    [
        ("a: 1\na: 2", "has the key 'a' twice (f.yaml, line 2). Keep one."),
        ("1: a\n'1': b", "has the key '1' twice"),
        ("y: a\ntrue: b", "has the key 'true' twice"),
        ("a: {b: 1, b: 1}", "a: has the key 'b' twice"),
        ("a: &x {b: 1}\nc: {<<: *x}", "c: has a merge key << (f.yaml, line 2). Write the fields out."),
        ("a: !!str 1", "a: has the tag !!str (f.yaml, line 1)"),
        ("a: !mine {b: 1}", "a: has the tag !mine"),
        ("a: ! b", "a: has the tag !"),
        ("a: 1e400", "a: is 1e400, too large for a number: kubectl reads a string"),
        ("a: -1e400", "a: is -1e400, too large"),
        ("a: 1e-400", "a: is 1e-400, so small that it becomes 0"),
        ("a: 12345678901234567890123", 'a: is 12345678901234567890123, of which 1.2345678901234568e+22 would be left'),
        ("a: 0xFFFFFFFFFFFFFFFFF", "too large for kubectl"),
        ("a: " + "1" * 500, "which kubectl reads as a string"),
        ("a: .inf", 'a: is .inf, which JSON does not have (f.yaml, line 1). Write {$float: "inf"}.'),
        ("a: -.INF", 'Write {$float: "-inf"}.'),
        ("a: .NaN", 'Write {$float: "nan"}.'),
        ("~: a", "has null as a key, which JSON does not have"),
        ("[1]: a", "has a list as a key"),
        ("{a: 1}: a", "has a mapping as a key"),
        ("1.23456789: a", "which kubectl cuts to 32 bits"),
        ('a: "\\/"', "a: has the escape \\/, which kubectl does not know (f.yaml, line 1). Write / alone."),
        ("a: \u2028b", "holds the character U+2028, which readers take in different ways"),
        ("a: b\x07", "holds the character U+0007"),
        ("a: b\rc: d", "holds the character U+000D"),
        ("a: *b", "a: has the alias *b, but no whole value above has that anchor"),
        ("a: &b [*b]", "a[0]: has the alias *b"),
        ("%YAML 1.1\n---\na: 1", "cannot be read as YAML"),
        ("%YAML 1.1\na: 1", "cannot be read as YAML"),
        ("--- a: 1", "'--- a: 1' is no separator (f.yaml, line 1). Let --- stand alone in its line."),
        ("a: 1\n----\nb: 1", "'----' is no separator (f.yaml, line 2)"),
        ("a: 1\n...\nb: 1", "cannot be read as YAML: did not find expected <document start> (f.yaml, line 3"),
        ("a: [1", "cannot be read as YAML"),
        ("a:\tb: c", "cannot be read as YAML"),
        ("a: 'b", "cannot be read as YAML"),
        ('a: "\\q"', "cannot be read as YAML"),
        ('a: "\\ud800"', "cannot be read as YAML"),
        ("", "f.yaml holds no document. Give at least one."),
        ("---\n# nothing\n---\n", "f.yaml holds no document."),
        ("~", "f.yaml holds no document."),
        ("- a", "the document in f.yaml, line 1, is no mapping. Begin with apiVersion: and kind:."),
        ("text", "is no mapping"),
        ("kind: List", "items: is missing from the List in f.yaml, line 1, or is no list."),
        ("kind: List\nitems: [1]", "is no mapping"),
        (b"a: 1\nb: \xff", "f.yaml, line 2, is no UTF-8. Save the file as UTF-8."),
        ("a: 1".encode("utf-16"), "f.yaml, line 1, is no UTF-8."),
        ('{"a": 1, "a": 2}', "has the key 'a' twice"),
        ('{"a": "\\ud800"}', "holds a lone surrogate, which is no character (f.yaml, line 1). Remove it."),
        ('{"\\uDFFF": 1}', "holds a lone surrogate"),
        ('{"a": 1e999}', "too large for a number"),
        ('\u00a0{"a": 1}', "begins with a space that only some readers skip"),
        ('{"a": 1}{"b": 2}{"c": ', "cannot be read as JSON"),
    ],
    ids=lambda value: repr(value)[:30].encode("ascii", "replace").decode(),
)  # fmt: skip
def test_what_readers_differ_about_is_refused_with_its_place_and_a_way_out(text, saying):
    (fault, *_) = faults(text)
    assert saying in fault


def test_every_fault_of_a_file_is_named():
    text = "a: .inf\nb: {c: 1, c: 2}\n---\nd:\n- !!int x\n- 1e400\n---\ne: [\n---\nf: *nowhere\n"
    assert [fault.split(" (")[0] for fault in faults(text)] == [
        "a: is .inf, which JSON does not have",
        "b: has the key 'c' twice",
        "d[0]: has the tag !!int",
        "d[1]: is 1e400, too large for a number: kubectl reads a string",
        "cannot be read as YAML: while parsing a flow node did not find expected node content",
        "f: has the alias *nowhere, but no whole value above has that anchor",
    ]


@pytest.mark.parametrize(
    ("text", "values", "lines"),
    [
        ("a: 1\n---\nb: 2\n", [{"a": 1}, {"b": 2}], [1, 3]),
        ("---\n---\n# c\n---\na: 1\n---\n", [{"a": 1}], [5]),
        ("\n\n# first\na: 1\n---   \n\n\nb: 2", [{"a": 1}, {"b": 2}], [4, 8]),
        ("--- # why\na: 1\n---\t# é\nb: 2", [{"a": 1}, {"b": 2}], [2, 4]),
        ("a: |\n  x\n ---\nb: 1", [{"a": "x\n"}], None),
        ("a: 1\r\n---\r\nb: 2\r\n", [{"a": 1}, {"b": 2}], [1, 3]),
        ("\ufeffa: 1\r\n---\r\n\ufeffb: 2\r\n", [{"a": 1}, {"b": 2}], [1, 3]),
        ("a: 1\n...\n", [{"a": 1}], [1]),
        ("a: 1\n---\nnull\n---\nb: 2\n", [{"a": 1}, {"b": 2}], [1, 5]),
        ('{"a": 1}\n{"b": 2}', [{"a": 1}, {"b": 2}], [1, 2]),
        ('{"a": 1}\n---\nb: 2\n', [{"a": 1}, {"b": 2}], [1, 3]),
        ("{a: 1}", [{"a": 1}], [1]),
        ('{"a": "\\ud83d\\ude00"}', [{"a": "\U0001f600"}], [1]),
        ("kind: List\nitems:\n- a: 1\n- kind: List\n  items: [{b: 2}]\n", [{"a": 1}, {"b": 2}], [3, 5]),
    ],
)
def test_a_file_is_split_as_kubectl_splits_it(text, values, lines):
    if lines is None:
        with pytest.raises(DocumentError):
            read(text)
        return
    found = read_documents(text.encode(), name="f.yaml")
    assert [document.value for document in found] == values
    assert [document.line for document in found] == lines


@pytest.mark.parametrize(
    ("text", "value"), [("|+\n  a\n\n", "a\n\n"), ("|+\n  a\n", "a\n"), ("|\n  a\n\n", "a\n"), ("|-\n  a\n\n", "a")]
)
def test_the_last_line_of_a_file_ends_once(text, value):
    assert read(f"a: {text}") == [{"a": value}]
    assert read(f"a: {text}---\nb: 1\n")[0] == {"a": value}


def test_aliases_are_copies():
    (value,) = read("a: &x {b: [1]}\nc: *x\nd: *x\n")
    value["c"]["b"].append(2)
    assert value == {"a": {"b": [1]}, "c": {"b": [1, 2]}, "d": {"b": [1]}}


def test_a_bomb_of_aliases_is_refused_at_once():
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    assert "repeats too much by aliases" in faults("\n".join(rows))[0]


@pytest.mark.parametrize("depth", [MAX_DEPTH + 5, 100_000])
@pytest.mark.parametrize("shape", ["[{}]", "{{a: {}}}", '{{"a": {}}}'])
def test_depth_has_a_limit_with_its_own_message(shape, depth):
    opening, closing = (
        shape.split("{}") if shape.startswith("[") else shape.replace("{{", "{").replace("}}", "}").split("{}")
    )
    text = "v: " + opening * depth + closing * depth
    assert any("levels deep" in fault or "cannot be read" in fault for fault in faults(text))


def test_deep_json_is_refused_and_not_a_crash():
    assert faults('{"a":' * 100_000 + "1" + "}" * 100_000)


def test_a_very_long_key_and_text_stay_short_in_the_message():
    (fault,) = faults(f"{'k' * 5000}: 1e400")
    assert len(fault) < 400


@pytest.mark.parametrize("text", ["1\nw: 2", "1\n---\nv: 2", "a: b", "[1"])
def test_a_change_on_the_command_line_is_one_value(text):
    with pytest.raises(DocumentError):
        read_value(text)


NASTY = [
    "y", "n", "no", "on", "Null", "~", "", " ", "1e3", "0o17", "0777", "08", "1_000", "1:30", ".inf", "=", "<<", "-", "---",
    "a: b", "a #b", "# a", "*a", "&a", "!a", "|", ">", "%a", "@a", "`a", "{a", "[a", "a,b", "'", '"', "a\nb", "\n", "a\\b",
    "\t", " a", "a ", "é", "日本", "\u2028", "\u2029", "\ufeff", "\ufffe", "\x7f", "\x85", "\x9f", "\x00", "\U0001f600", "2024-01-01",
]  # fmt: skip


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_what_is_written_reads_back_and_is_quoted_where_only_the_user_knows_what_a_word_means(text):
    value = {"spec": {"params": {text: text, "x": [text, {text: [text]}]}, "env": {"A": text}, "hashAs": {"a": text}}}
    written = write_documents([value])
    assert read(written) == [value]
    assert f"params:\n    {json.dumps(text, ensure_ascii=False)[:3]}" in written or not text.isprintable()
    assert not set(written) & set("\x00\x7f\x85\x9f\u2028\u2029\ufeff\ufffe")
    if text.isascii() and text.isprintable():
        assert f'"A": {json.dumps(text)}' in written


@pytest.mark.parametrize(
    "number", [0, -1, 2**53 - 1, 0.1, 1e21, 1e22, 1.5e-7, 5e-324, 1.7976931348623157e308, -123456.789, True, False]
)
def test_a_number_is_written_so_that_it_reads_back(number):
    (again,) = read(write_documents([{"a": number, "b": [number]}]))
    assert again == {"a": number, "b": [number]}
    assert type(again["a"]) is type(number)
    assert math.copysign(1, again["a"]) == math.copysign(1, number)


def test_several_documents_and_empty_values_are_written():
    values = [{"a": {}, "b": [], "c": [[], {}, [1, [2]], {"d": None}]}, {"k" * 1200: 1}]
    assert read(write_documents(values)) == values


NESTED = """a: 1
b:
  c: [x,
    {d: 1}]
  "e.f": 2
---
g: 3
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [("", 1), ("b", 2), ("b.c", 3), ("b.c[1].d", 4), ('b["e.f"].deep', 5), ("b.gone.deep", 2), ("gone", 1)],
)
def test_a_fault_has_the_line_of_its_field_or_of_what_is_around_it(path, line):
    first, second = read_documents(NESTED.encode(), name="f.yaml")
    assert first.where(path) == f"f.yaml, line {line}"
    assert second.where("g") == "f.yaml, line 7"


def test_an_item_of_a_list_has_lines_of_its_own_and_json_has_none():
    data = b"kind: List\nitems:\n- a: 1\n- b:\n    c: 2\n"
    assert [one.where(path) for one, path in zip(read_documents(data, name="f"), ("a", "b.c"), strict=True)] == [
        "f, line 3", "f, line 5",
    ]  # fmt: skip
    (one,) = read_documents(b'\n{"a": {"b": 1}}', name="f")
    assert (one.where(), one.where("a.b")) == ("f, line 2", "f")
