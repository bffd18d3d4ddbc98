"""Reads files exactly as kubectl does, or refuses them; writes files that every YAML reader takes alike.

kubectl splits a file at `---`, reads each part with go-yaml v2 and makes JSON of it. What an Experiment is, is
not known here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isinf
from typing import Any

import yaml

from runonce.errors import DocumentError, Fault, join_path
from runonce.experiment.canonical import number

MAX_DEPTH = 100
MAX_ALIASED = 100_000  # nodes that aliases may add to one document

_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Document:
    """One mapping of a file: `source` is the file's name as shown, `line` its first line there, from 1 on."""

    value: dict[str, Any]
    source: str
    line: int


class _Refused(Exception):
    """A scalar that cannot be: what was found, and how to fix it. Where is known further out."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what, fix)
        self.what, self.fix = what, fix


def read_documents(data: bytes, *, name: str) -> list[Document]:
    """All documents of one file in order, at least one; a `kind: List` is taken apart. Null values stay None.

    Raises DocumentError for what kubectl refuses, and for what it reads in a way that no one can mean: keys
    given twice, merge keys, tags, numbers that would change.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DocumentError(Fault("", f"{name}, line {line}, is no UTF-8.", "Save the file as UTF-8.")) from None
    reader = _Reader(name)
    found = [document for value, line in reader.read(text) for document in reader.expand(value, line)]
    if not found and not reader.faults:
        reader.faults.append(Fault("", f"{name} holds no document.", "Give at least one."))
    if reader.faults:
        raise DocumentError(*reader.faults)
    return found


def read_value(text: str) -> Any:
    """The value that `name: text` would have in a file, by the same rules; None for no text."""
    reader = _Reader("")
    values = [value for value, _ in reader.read(f"v: {text}")]
    if reader.faults:
        raise DocumentError(*reader.faults)
    if len(values) != 1 or list(values[0]) != ["v"]:
        raise DocumentError(Fault("", f"{_short(text)!r} is more than one value.", "Quote it."))
    return values[0]["v"]


class _Reader:
    """One file on its way from text to values; all faults are collected."""

    def __init__(self, name: str) -> None:
        self.name = name  # empty where there is no file
        self.faults: list[Fault] = []
        self.first_line = 1
        self.path: list[str | int] = []
        self.anchors: dict[str, Any] = {}
        self.plain = self.aliased = 0  # nodes written out, nodes that aliases added

    def fault(self, what: str, fix: str, line: int, column: int | None = None) -> Fault:
        """Note what is wrong at `self.path`; line and column count from 0 within the part."""
        if self.name:
            where = f"{self.name}, line {self.first_line + line}"
            what += f" ({where}, column {column + 1})" if column is not None else f" ({where})"
        path = self.path if self.name else self.path[1:]
        found = Fault(join_path(*path), what + ".", fix)
        self.faults.append(found)
        return found

    def expand(self, value: Any, line: int) -> Iterator[Document]:
        """The documents in a value: itself, or the items of a `kind: List`."""
        if not isinstance(value, dict):
            what = f"the document in {self.name}, line {line}, is no mapping."
            self.faults.append(Fault("", what, "Begin with apiVersion: and kind:."))
        elif value.get("kind") != "List":
            yield Document(value, self.name, line)
        elif not isinstance(value.get("items"), list):
            what = f"is missing from the List in {self.name}, line {line}, or is no list."
            self.faults.append(Fault("items", what, "Give a list of documents."))
        else:
            for item in value["items"]:
                yield from self.expand(item, line)

    # --- text to parts ---

    def read(self, text: str) -> Iterator[tuple[Any, int]]:
        """Each value with its line; nulls, and parts with nothing but comments, are passed over."""
        marked = text.startswith("\ufeff")
        values, rest = ([], 1) if marked else self._read_json(text)
        for value, at in values:
            if value is not None:
                yield value, text.count("\n", 0, at) + 1
        if rest >= len(text):
            return
        for part, line in self._split(text[rest:], text.count("\n", 0, rest) + 1):
            self.first_line = line
            yield from self._read_part(part)

    def _split(self, text: str, line: int) -> Iterator[tuple[str, int]]:
        rows: list[str] = []
        for row in text.removesuffix("\n").split("\n"):
            row = row.removesuffix("\r")
            line += 1
            if not row.startswith("---"):
                rows.append(row)
                continue
            if not _SEPARATOR.fullmatch(row):
                self.first_line = line - 1
                self.fault(f"{_short(row)!r} is no separator", "Let --- stand alone in its line.", 0)
            if rows:
                yield "\n".join(rows) + "\n", line - 1 - len(rows)
            rows = []
        if rows:
            yield "\n".join(rows) + "\n", line - len(rows)

    def _read_json(self, text: str) -> tuple[list[tuple[Any, int]], int]:
        """The JSON objects at the start, each with its offset, and the offset from which on the text is YAML.

        kubectl takes text that opens with a brace for JSON, and for YAML from the first thing that is not. With
        two objects behind it, it no longer changes its mind.
        """
        at = _JSON_SPACE.match(text).end()  # type: ignore[union-attr]  # matches always
        if not text.startswith("{", at) or len(text[:at].encode()) >= 4096:
            if text.lstrip().startswith("{") and at < 4096:
                self.fault("begins with a space that only some readers skip", "Remove it.", 0)
            return [], 0
        values: list[tuple[Any, int]] = []
        end = 0
        while at < len(text):
            known = len(self.faults)
            self.first_line = text.count("\n", 0, at) + 1
            try:
                value, stop = self._json_decoder().raw_decode(text, at)
            except (ValueError, RecursionError) as error:
                del self.faults[known:]
                if len(values) > 1:
                    self.fault(f"cannot be read as JSON: {error}", "Correct it.", 0)
                    return values, len(text)
                break
            if _ESCAPED_SURROGATE.search(text, at, stop) and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
                self.fault("holds a lone surrogate, which is no character", "Remove it.", 0)
            values.append((value, at))
            end, at = stop, _JSON_SPACE.match(text, stop).end()  # type: ignore[union-attr]
        else:
            return values, len(text)
        # kubectl drops white space before the YAML, up to the first line end
        space = text[end:at].partition("\n")
        return values, end + len(space[0]) + len(space[1])

    def _json_decoder(self) -> json.JSONDecoder:
        def take(resolve: Callable[[str], Any]) -> Callable[[str], Any]:
            def hook(literal: str) -> Any:
                try:
                    return _settle(resolve(literal))
                except _Refused as refused:
                    self.fault(refused.what, refused.fix, 0)
                    return literal

            return hook

        def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
            value = dict(items)
            if len(value) != len(items):
                keys = [key for key, _ in items]
                twice = next(key for key in keys if keys.count(key) > 1)
                self.fault(f"has the key {_short(twice)!r} twice", "Keep one.", 0)
            return value

        def constant(literal: str) -> Any:
            raise ValueError(f"{literal} is no JSON")

        return json.JSONDecoder(
            parse_int=take(_decimal), parse_float=take(_float), parse_constant=constant, object_pairs_hook=pairs
        )

    # --- parts to values ---

    def _read_part(self, part: str) -> Iterator[tuple[Any, int]]:
        self.path, self.anchors, self.plain, self.aliased = [], {}, 0, 0
        part = part.removeprefix("\ufeff")  # a byte order mark, which go-yaml skips, too
        odd = _UNREADABLE.search(part)
        if odd:
            what = f"holds the character U+{ord(odd[0]):04X}, which readers take in different ways"
            self.fault(what, "Write it as an escape in a double-quoted string.", part.count("\n", 0, odd.start()))
            return
        known = len(self.faults)
        try:
            value, line = self._compose(part)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line, mark.column) if mark else (0, 0)
            problem = " ".join(filter(None, (error.context, error.problem)))
            self.path = []
            self.fault(f"cannot be read as YAML: {problem}", "Correct it, or quote the value.", line, column)
        except (yaml.YAMLError, ValueError, OverflowError) as error:  # ValueError: an escape that is no character
            self.path = []
            self.fault(f"cannot be read as YAML: {error}", "Correct it, or quote the value.", 0)
        except DocumentError:
            pass  # noted already
        else:
            if value is not None or len(self.faults) > known:
                yield value, self.first_line + line

    def _compose(self, part: str) -> tuple[Any, int]:
        parser = _Parser(part)
        self.part = part
        self.next: Callable[[], Any] = parser.get_event
        try:
            self.next()  # the stream begins
            event = self.next()
            if isinstance(event, yaml.StreamEndEvent):
                return None, 0
            event = self.next()
            value = self._node(event)
            line = event.start_mark.line
            self.next()  # the document ends
            self.next()  # and the stream: a second document needs ---, at which the text was split
            return value, line
        finally:
            parser.dispose()

    def _node(self, event: Any) -> Any:
        """The value of the node that begins with `event`. A number is as go-yaml has it: 1e6 is a float."""
        self.plain += 1
        line = event.start_mark.line
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), line)
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.fault(f"has the tag {_short(tag)}", "Remove it; quote the value where a string is meant.", line)
        marker = object()
        if event.anchor:
            self.anchors[event.anchor] = marker
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
        elif len(self.path) >= MAX_DEPTH:
            raise DocumentError(self.fault(f"is nested more than {MAX_DEPTH} levels deep", "Flatten it.", line))
        else:
            value = self._sequence() if isinstance(event, yaml.SequenceStartEvent) else self._mapping()
        if event.anchor and self.anchors[event.anchor] is marker:
            self.anchors[event.anchor] = value
        return value

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        line = event.start_mark.line
        if not text.isascii() and _SURROGATE.search(text):
            self.fault("holds a lone surrogate, which is no character", "Remove it.", line)
        if event.style:
            if event.style == '"' and _SLASH.search(self.part, event.start_mark.index, event.end_mark.index):
                self.fault("has the escape \\/, which kubectl does not know", "Write / alone.", line)
            return text
        try:
            return resolve(text)
        except _Refused as refused:
            self.fault(refused.what, refused.fix, line)
            return text

    def _sequence(self) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := self.next(), yaml.SequenceEndEvent):
            self.path.append(len(items))
            items.append(_settle(self._node(event)))
            self.path.pop()
        return items

    def _mapping(self) -> dict[str, Any]:
        value: dict[str, Any] = {}
        while not isinstance(event := self.next(), yaml.MappingEndEvent):
            line = event.start_mark.line
            if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and not event.style:
                self.fault("has a merge key <<", "Write the fields out.", line)
            raw = self._node(event)
            try:
                key = _key(raw)
            except _Refused as refused:
                self.fault(refused.what, refused.fix, line)
                key = str(raw)
            else:
                if key in value:
                    self.fault(f"has the key {_short(key)!r} twice", "Keep one.", line)
            self.path.append(key)
            value[key] = _settle(self._node(self.next()))
            self.path.pop()
        return value

    def _alias(self, anchor: str, line: int) -> Any:
        value = self.anchors.get(anchor, _UNKNOWN)
        if type(value) is object:
            self.fault(
                f"has the alias *{_short(anchor)}, but no whole value above has that anchor", "Correct it.", line
            )
            return f"*{anchor}"
        return self._copy(value, len(self.path), line)

    def _copy(self, value: Any, depth: int, line: int) -> Any:
        self.aliased += 1 + (len(value) if isinstance(value, dict) else 0)
        # kubectl gives up when more than 99 % come from aliases, and counts a little more than is counted here
        if self.aliased > MAX_ALIASED or self.aliased > max(400, 9 * self.plain):
            raise DocumentError(self.fault("repeats too much by aliases", "Write the values out.", line))
        if isinstance(value, list | dict) and depth >= MAX_DEPTH:
            raise DocumentError(self.fault(f"is nested more than {MAX_DEPTH} levels deep", "Flatten it.", line))
        if isinstance(value, dict):
            return {key: self._copy(item, depth + 1, line) for key, item in value.items()}
        if isinstance(value, list):
            return [self._copy(item, depth + 1, line) for item in value]
        return value


_UNKNOWN = object()
_SEPARATOR = re.compile(r"---(?:[ \t]+#.*|[ \t]*)")
_JSON_SPACE = re.compile(r"[ \t\r\n]*")
_SLASH = re.compile(r"(?<!\\)(?:\\\\)*\\/")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# Not printable in YAML 1.1, or a line end in YAML 1.1 and a character in 1.2
_UNREADABLE = re.compile("[^\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


# --- plain scalars, as resolve.go of go-yaml v2 takes them ---


def _spellings(*words: str) -> list[str]:
    return [form for word in words for form in (word, word.capitalize(), word.upper())]


_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(_spellings("y", "yes", "true", "on"), True),
    **dict.fromkeys(_spellings("n", "no", "false", "off"), False),
    **dict.fromkeys(["", "~", *_spellings("null")], None),
}
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_INTEGER = re.compile(r"([-+]?)0(?:[bB]([01]+)|[oO]?([0-7]+)|[xX]([0-9a-fA-F]+))")
_BINARY = re.compile(r"0b([-+][01]+)")  # go-yaml lets the sign stand there, too
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_DOTTED = re.compile(r"\.[0-9](?:_?[0-9])*(?:[eE][-+]?[0-9](?:_?[0-9])*)?")


def resolve(text: str) -> str | bool | int | float | None:
    """What go-yaml v2 takes a plain scalar for. Raises _Refused for a number that it would change."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _NOT_FINITE.fullmatch(text):
        sign = "nan" if text[1] in "nN" else "-inf" if text[0] == "-" else "inf"
        raise _Refused(f"is {text}, which JSON does not have", f'Write {{$float: "{sign}"}}.')
    if text[0] == ".":
        return _float(text.replace("_", "")) if _DOTTED.fullmatch(text) else text
    plain = text.replace("_", "")
    if based := _INTEGER.fullmatch(plain):
        sign, *digits = based.groups()
        return next(_based(sign + part, base) for part, base in zip(digits, (2, 8, 16), strict=True) if part)
    if binary := _BINARY.fullmatch(plain):
        return _based(binary[1], 2)
    if _DECIMAL.fullmatch(plain):
        return _decimal(plain)
    return _float(plain) if _FLOAT.fullmatch(plain) else text


def _based(digits: str, base: int) -> int:
    value = int(digits, base)
    if not -(2**63) <= value < 2**63:
        raise _Refused(f"is {_short(str(value))}, which is too large for kubectl", f'Write {{$int: "{value}"}}.')
    return value


def _decimal(literal: str) -> int | float:
    if len(literal) > 400:
        raise _Refused(f"is {_short(literal)}, which kubectl reads as a string", "Quote it.")
    value = int(literal)
    if -(2**63) <= value < 2**63:
        # 08 and 09 are no octal numbers: go-yaml makes floats of them
        return value
    nearest = _float(literal)
    if int(nearest) != value:
        raise _Refused(f"is {_short(literal)}, of which {number(nearest)} would be left", f'Write {{$int: "{value}"}}.')
    return nearest


def _float(literal: str) -> float:
    value = float(literal)
    if isinf(value):
        raise _Refused(
            f"is {_short(literal)}, too large for a number: kubectl reads a string",
            'Write {$float: "inf"}, or quote it.',
        )
    if value == 0 and re.match(r"[^eE]*[1-9]", literal):
        raise _Refused(f"is {_short(literal)}, so small that it becomes 0", "Write 0.")
    return value


def _settle(value: Any) -> Any:
    """Between go-yaml and the API server stands JSON: whole floats come back as the integers that their digits say."""
    return int(number(value)) if type(value) is float and value.is_integer() and abs(value) < 2**63 else value


def _key(value: Any) -> str:
    """A key as sigs.k8s.io/yaml makes a string of it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        text = f"{value:.6g}"  # kubectl keeps 32 bits: 6 digits are sure
        if float(text) == value and (value == 0 or 1e-37 < abs(value) < 1e38):
            return text
        raise _Refused(f"has the key {value!r}, which kubectl cuts to 32 bits", "Quote it.")
    kind = "null" if value is None else "a list" if isinstance(value, list) else "a mapping"
    raise _Refused(f"has {kind} as a key, which JSON does not have", "Use a string.")


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:50] + "…"


# --- values to text ---

_QUOTED = (("spec", "params"), ("spec", "env"), ("spec", "hashAs"))  # here only the user knows what a word means
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9._/-]*")
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def write_documents(values: Sequence[Mapping[str, Any]]) -> str:
    """YAML that every reader takes alike, keys in the order given. Only JSON values; no nan, no infinity."""
    return "---\n".join("".join(f"{line}\n" for line in _lines(value, ())) for value in values)


def _lines(value: Any, path: tuple[str, ...]) -> Iterator[str]:
    """The lines of a mapping or list that is not empty, from column 0 on."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            label = _string(key, path)
            if len(label) > 1000:  # readers look no further for the colon
                yield f"? {label}"
                label = ""
            inner = (*path, key)
            if _inline(item):
                yield f"{label}: {_flow(item, inner)}"
            else:
                yield f"{label}:"
                yield from (f"  {line}" for line in _lines(item, inner))
    else:
        for item in value:
            if _inline(item):
                yield f"- {_flow(item, path)}"
            else:
                first, *others = _lines(item, path)
                yield f"- {first}"
                yield from (f"  {line}" for line in others)


def _inline(value: Any) -> bool:
    if isinstance(value, Mapping):
        return not value
    return not isinstance(value, list) or not any(isinstance(item, Mapping | list) and item for item in value)


def _flow(value: Any, path: tuple[str, ...]) -> str:
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, list):
        return f"[{', '.join(_flow(item, path) for item in value)}]"
    if isinstance(value, str):
        return _string(value, path)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _number(value)


def _string(text: str, path: tuple[str, ...]) -> str:
    if path[:2] not in _QUOTED and _WORD.fullmatch(text) and text.lower() not in _RESERVED:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)


_RESERVED = {word.lower() for word in _WORDS}


def _number(value: int | float) -> str:
    if isinstance(value, int):
        return str(value)
    mantissa, e, exponent = number(value).partition("e")
    # YAML 1.1 knows no float without a point
    return f"{mantissa}{'' if '.' in mantissa else '.0'}{e}{exponent}" if e else mantissa
