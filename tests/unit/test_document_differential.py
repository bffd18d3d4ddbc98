"""Our reader beside the real kubectl, on generated files: whatever we accept, kubectl accepts and reads as the same;
whatever we say is no YAML, kubectl refuses as well. `make prove` draws many more.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runonce.author.document import read_documents
from runonce.author.writing import write_documents
from runonce.errors import DocumentError

CASES = int(os.environ.get("RUNONCE_CASES", "1000"))
SEED = 20261124
BATCH = 60

KUBECTL = shutil.which("kubectl", path=str(Path(sys.executable).parent)) or shutil.which("kubectl")
HEAD = "apiVersion: runonce.dev/v1alpha1\nkind: Experiment\nmetadata:\n  name: c{number}\n"

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="there is no kubectl here; make setup installs it")

# Every reader takes these for something, not always for the same.
WORDS = """
y n yes no on off true false null ~ Y N Yes No On Off True False Null NULL TRUE yES tRUE nUll a b lr Null1 inf
nan infinity . --- ... = <<x ?a -a :a a#b 0 1 -1 +1 00 01 007 08 09 0777 0o17 0O17 0x1F 0X1f 0b11 0B11 -0b11
0b-11 0o8 0x 0b 1_000 1__0 _1 1_ 1_000.5 1,000 1:30 1:30:00 190:20:30.15 2024-01-01 2024-01-01T00:00:00Z 12:30
1e3 1e-3 1E3 1e+3 1.e3 .5 5. -.5 +.5 .5e1 1.5e 1e 1e22 9007199254740992 9007199254740993 9223372036854775807
-9223372036854775808 123456789.123456789 0.1 0.30000000000000004 5e-324 2.2250738585072014e-308
1.7976931348623157e308 3.0 3.00 -0 -0.0 0e0 1e0 1_0e1 0.1_0 ._1 0x1p4 0x1.8 1.2.3 v1 1a 1e5a e5 1e5_ +-1 ++1
NaN Infinity ~a null1 a/b:c a*b $x
""".split()  # noqa: SIM905 - a list would hide them
# Refused by us, or no plain scalar at all, or only in some places.
HARD = """
.inf -.inf .nan .NaN .Inf - -- << !x ! & * | > % @ ` ' " # : , [ ] { } ? a: a# 1e400 -1e400 1e-400
12345678901234567890123 9223372036854775808 18446744073709551615 1e19
""".split()  # noqa: SIM905 - a list would hide them
UNICODE = ["é", "ä ö", "日本", "\U0001f600", "a\u00a0b", "tab\tin", "a\u200bb"]
ODD = ["\u2028", "\u0085", "\ufeff", "\x07", "\x7f"]
ESCAPES = ["a", "1", "\\n", "\\t", "\\u00e9", "\\x41", "\\e", "true", "a\\\n      b", "\\u2028", "\\U0001f600", "\\\\"]
NO_ESCAPES = ["\\ud83d\\ude00", "\\ud800", "\\/", "\\q", "a\\\n  b"]


class Maker:
    """Draws one file: three in five are calm and mostly well-formed, the others hold what readers fall over."""

    def __init__(self, number: int) -> None:
        self.draw = random.Random(SEED * 100_000 + number)
        self.wild = self.draw.random() < 0.4
        self.anchors: list[str] = []
        self.head = HEAD.format(number=number)

    def file(self) -> bytes:
        draw = self.draw
        shape = draw.random()
        if shape < 0.06:
            text = json.dumps(
                {**self.resource(), "spec": self.plain(0)},
                ensure_ascii=draw.random() < 0.5,
                indent=draw.choice([None, 1]),
            )
        elif shape < 0.12:
            item = (self.head + self.spec()).replace("\n", "\n  ").rstrip(" ")
            text = f"apiVersion: v1\nkind: List\nitems:\n- {item}"
        else:
            text = self.head + self.spec()
            if shape < 0.3:
                cut = draw.choice(["---\n", "--- # é\n", "---   \n", "---\n# only this\n---\n", "\n---\n---\n"])
                text = draw.choice(["", "", cut, "# first\n"]) + text
                if not text.endswith("\n"):
                    text += "\n"
                self.anchors = []
                text += cut + self.head.replace("name: c", "name: d") + self.spec()
        if draw.random() < 0.04:
            text = "\ufeff" + text
        return (text.replace("\n", "\r\n") if draw.random() < 0.12 else text).encode()

    def resource(self) -> dict[str, object]:
        return {"apiVersion": "runonce.dev/v1alpha1", "kind": "Experiment", "metadata": {"name": self.head.split()[-1]}}

    def plain(self, depth: int) -> object:
        """A value of a JSON file."""
        draw = self.draw
        kind = draw.random()
        if depth == 0 or (depth < 4 and kind < 0.25):
            return {
                draw.choice([f"k{i}", "y", "1", "é", "a b"]): self.plain(depth + 1) for i in range(draw.randint(1, 4))
            }
        if depth < 4 and kind < 0.4:
            return [self.plain(depth + 1) for _ in range(draw.randint(0, 3))]
        return draw.choice(
            [
                True,
                None,
                0,
                -1,
                2**53,
                2**63 - 1,
                0.1,
                1e21,
                5e-324,
                -0.0,
                3.0,
                "",
                "y",
                "1",
                "\u2028",
                "\U0001f600",
                '"',
            ]
        )

    def spec(self) -> str:
        lines = [self.comment() + "spec:" + self.comment()]
        for i in range(self.draw.randint(1, 4)):
            lines += self.entry(self.key(i), 2, 0)
        return "\n".join(lines) + self.draw.choice(["\n", "\n", "", "\n\n", "\n...\n"])

    def key(self, i: int) -> str:
        draw = self.draw
        kind = draw.random()
        if kind < 0.7:
            return f"k{i}"
        if kind < 0.85:
            return draw.choice(
                [
                    *WORDS[:8],
                    *WORDS[10:17],
                    "yES",
                    "1",
                    "1.5",
                    "0x1F",
                    "0777",
                    "1e3",
                    "08",
                    *(HARD if self.wild else ()),
                ]
            )
        return draw.choice(
            [
                f'"q{i}"',
                f"'s {i}'",
                f'"\\u00e9{i}"',
                f"k {i}",
                f"k{i}.a/b",
                f"é{i}",
                f"? k{i}\n ",
                "k0" if self.wild else f"K{i}",
            ]
        )

    def entry(self, key: str, indent: int, depth: int) -> list[str]:
        draw, pad = self.draw, " " * indent
        colon = draw.choice([": ", ": ", ": ", ":  ", ":\t", " : "] if self.wild else [": ", ":  ", " : "])
        kind = draw.random()
        if depth < 3 and kind < 0.15:
            return [f"{pad}{key}:"] + [
                line for i in range(draw.randint(1, 3)) for line in self.entry(self.key(i), indent + 2, depth + 1)
            ]
        if depth < 3 and kind < 0.28:
            inner = indent + draw.choice([0, 2])
            return [f"{pad}{key}:"] + [f"{' ' * inner}- {self.inline(depth + 1)}" for _ in range(draw.randint(1, 3))]
        if kind < 0.36:
            return [f"{pad}{key}{colon}{draw.choice('|>')}{draw.choice(['', '-', '+', '2'])}"] + [
                " " * (indent + 2) + self.text() for _ in range(draw.randint(1, 3))
            ]
        if kind < 0.40:
            return [
                f"{pad}{key}{colon}{draw.choice(['a', 'first', '1'])}",
                f"{pad}  {draw.choice(['more', '2', *(['b: c', '# x'] if self.wild else [])])}",
            ]
        return [f"{pad}{key}{colon}{self.inline(depth)}{self.comment()}"]

    def inline(self, depth: int) -> str:
        draw = self.draw
        kind = draw.random()
        if depth < 3 and kind < 0.12:
            inner = ", ".join(self.inline(depth + 1) for _ in range(draw.randint(0, 3)))
            return f"[{inner}{draw.choice(['', '', ','])}]"
        if depth < 3 and kind < 0.24:
            inner = ", ".join(f"{self.key(i)}: {self.inline(depth + 1)}" for i in range(draw.randint(0, 3)))
            return "{" + inner + "}"
        if kind < 0.28:
            value = self.scalar()
            self.anchors.append(f"n{len(self.anchors)}")
            return f"&{self.anchors[-1]} {value}"
        if kind < 0.31 and self.anchors:
            return "*" + draw.choice(self.anchors)
        if kind < 0.33 and self.wild:
            return draw.choice(["!!str 1", "!x a", "! b", "!!int 3", "!!binary eA=="])
        return self.scalar()

    def scalar(self) -> str:
        draw = self.draw
        kind = draw.random()
        if kind < 0.45:
            return draw.choice([*WORDS, *HARD, *HARD] if self.wild else WORDS)
        if kind < 0.62:
            return self.number()
        if kind < 0.72:
            return f'"{draw.choice(ESCAPES + NO_ESCAPES if self.wild else ESCAPES)}"'
        if kind < 0.82:
            return "'" + draw.choice(["a", "it''s", "1", "null", "#", "a: b", "", " "]) + "'"
        if kind < 0.88:
            return draw.choice(UNICODE + ODD if self.wild else UNICODE)
        return self.text()

    def number(self) -> str:
        draw = self.draw
        digits = "".join(
            draw.choice("0123456789") for _ in range(draw.randint(1, draw.choice([3, 8, 17, 25 if self.wild else 18])))
        )
        text = draw.choice(["", "", "-", "+"]) + digits
        if draw.random() < 0.4:
            text += "." + "".join(draw.choice("0123456789_") for _ in range(draw.randint(0, 17)))
        if draw.random() < 0.3:
            text += (
                draw.choice("eE")
                + draw.choice(["", "+", "-"])
                + str(draw.choice([0, 1, 5, 20, 100, 280, *([308, 330, 400] if self.wild else [])]))
            )
        return text

    def text(self) -> str:
        return " ".join(
            self.draw.choice(["lorem", "a", "1", "x:y", "b#c", "-", "don't", "é", "end."])
            for _ in range(self.draw.randint(1, 4))
        )

    def comment(self) -> str:
        return self.draw.choice(["", "", "", "", " # note", "  # é: [", "#no"])


def ours(data: bytes) -> list[dict] | DocumentError:
    try:
        return [document.value for document in read_documents(data, name="x")]
    except DocumentError as error:
        return error


def integer(literal: str) -> int | float:
    """As an API server has it: what fits no int64 is a float."""
    return int(literal) if -(2**63) <= int(literal) < 2**63 else float(literal)


def theirs(paths: list[Path]) -> list[dict] | None:
    """What kubectl reads from the files; None where it refuses one of them."""
    files = [argument for path in paths for argument in ("-f", str(path))]
    done = subprocess.run([KUBECTL, "annotate", "--local", "-o", "json", *files, "a=b"], capture_output=True, text=True)
    if done.returncode:
        return None
    found, at, decoder = [], 0, json.JSONDecoder(parse_int=integer)
    while at < len(done.stdout):
        value, at = decoder.raw_decode(done.stdout, at)
        found += value["items"] if value["kind"] == "List" else [value]
        while at < len(done.stdout) and done.stdout[at].isspace():
            at += 1
    return found


def same(first: object, second: object) -> bool:
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, int | float) and isinstance(second, int | float):
        return first == second
    return type(first) is type(second) and first == second


def compare(accepted: list[tuple[Path, list[dict]]]) -> None:
    """Batches keep kubectl's start off the clock; a batch that is refused is looked at file by file."""
    for start in range(0, len(accepted), BATCH):
        batch = accepted[start : start + BATCH]
        read = theirs([path for path, _ in batch])
        expected = [value for _, values in batch for value in values]
        if read is not None and len(read) == len(expected):
            by_name = {value["metadata"]["name"]: value for value in read}
            pairs = [(value, by_name.get(value["metadata"]["name"])) for value in expected]
            if all(other is not None and same(value.get("spec"), other.get("spec")) for value, other in pairs):
                continue
        for path, values in batch:
            alone = theirs([path])
            assert alone is not None, f"kubectl refuses what we read as {values}:\n{path.read_text()}"
            assert len(alone) == len(values), path.read_text()
            for value, other in zip(values, alone, strict=True):
                text = f"{path.read_text()}\nwe: {value.get('spec')}\nkubectl: {other.get('spec')}"
                assert same(value.get("spec"), other.get("spec")), text


def test_whatever_we_accept_kubectl_accepts_and_reads_as_the_same(tmp_path):
    accepted = []
    for number in range(CASES):
        data = Maker(number).file()
        values = ours(data)
        if not isinstance(values, DocumentError):
            path = tmp_path / f"{number}.yaml"
            path.write_bytes(data)
            accepted.append((path, values))
    print(f"{len(accepted)} of {CASES} accepted")
    assert len(accepted) >= 0.4 * CASES
    compare(accepted)


def test_what_we_say_is_no_yaml_kubectl_refuses_too(tmp_path):
    """A reader that refused too much would be as useless as one that took anything."""
    looked = 0
    for number in range(CASES):
        data = Maker(number).file()
        refused = ours(data)
        if isinstance(refused, DocumentError) and all("cannot be read as" in fault.what for fault in refused.faults):
            path = tmp_path / f"{number}.yaml"
            path.write_bytes(data)
            assert theirs([path]) is None, f"{refused}\n{data.decode()}"
            looked += 1
            if looked == CASES // 25:
                break
    assert looked >= CASES // 25


STRINGS = [
    *WORDS,
    *UNICODE,
    "",
    " ",
    " a",
    "a ",
    "a\nb",
    "\n",
    "a\\b",
    '"',
    "'",
    "a: b",
    "a #b",
    "- a",
    "é\u2029",
    "\x9f",
    "x" * 1200,
]


def test_whatever_we_write_we_and_kubectl_read_back(tmp_path):
    draw = random.Random(SEED)

    def value(depth: int) -> object:
        kind = draw.random()
        if depth < 4 and kind < 0.25:
            return {draw.choice(STRINGS): value(depth + 1) for _ in range(draw.randint(0, 3))}
        if depth < 4 and kind < 0.4:
            return [value(depth + 1) for _ in range(draw.randint(0, 3))]
        if kind < 0.7:
            return draw.choice(STRINGS)
        return draw.choice(
            [True, False, 0, 1, -7, 2**53 - 1, 0.1, -1.5e-7, 1e21, 1e22, 5e-324, 1.7976931348623157e308, 123456.789]
        )

    accepted = []
    for number in range(max(60, CASES // 5)):
        made = {
            "apiVersion": "runonce.dev/v1alpha1",
            "kind": "Experiment",
            "metadata": {"name": f"w{number}"},
            "spec": {
                "config": "a:B",
                "params": {f"p{i}": value(0) for i in range(3)},
                "env": {"A": draw.choice(STRINGS)},
            },
        }
        text = write_documents([made])
        again = [document.value for document in read_documents(text.encode(), name="x")]
        assert len(again) == 1
        assert same(again[0], made), text
        path = tmp_path / f"{number}.yaml"
        path.write_bytes(text.encode())
        accepted.append((path, again))
    compare(accepted)
