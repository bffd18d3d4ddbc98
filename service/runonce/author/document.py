"""Reads files exactly as kubectl does, or refuses them.

kubectl splits a file at `---`, reads each part with go-yaml v2 and makes JSON of it. What an Experiment is, is
not known here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from runonce.author.scalars import RefusedScalar, decimal, key_of, real, resolve, settle, short
from runonce.errors import DocumentError, Fault, join_path

MAX_DEPTH = 100
MAX_ALIASED = 100_000  # nodes that aliases may add to one document

_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Document:
    """One mapping of a file: `source` is the file's name as shown, `line` its first line there, from 1 on.

    lines: of each field of the part of the file that it stands in, at `at`; none of what is written as JSON.
    """

    value: dict[str, Any]
    source: str
    line: int
    lines: Mapping[tuple[str | int, ...], int] = field(default_factory=dict)
    at: tuple[str | int, ...] = ()

    def where(self, path: str = "") -> str:
        """File and line of a field, or of what stands nearest around it; the file alone where no line is known."""
        if not path:
            return f"{self.source}, line {self.line}"
        depth = len(self.at)
        own = {join_path(*at[depth:]): line for at, line in self.lines.items() if at[:depth] == self.at}
        around = [at for at in own if path == at or path.startswith((f"{at}.", f"{at}["))]
        if around:
            return f"{self.source}, line {own[max(around, key=len)]}"
        return f"{self.source}, line {self.line}" if self.lines else self.source


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
        raise DocumentError(Fault("", f"{short(text)!r} is more than one value.", "Quote it."))
    return values[0]["v"]


class _Reader:
    """One file on its way from text to values; all faults are collected."""

    def __init__(self, name: str) -> None:
        self.name = name  # empty where there is no file
        self.faults: list[Fault] = []
        self.first_line = 1
        self.path: list[str | int] = []
        self.anchors: dict[str, Any] = {}
        self.lines: dict[tuple[str | int, ...], int] = {}  # of each field of the part, by its path
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

    def expand(self, value: Any, line: int, *path: str | int) -> Iterator[Document]:
        """The documents in a value: itself, or the items of a `kind: List`. path: where it stands in its part."""
        if not isinstance(value, dict):
            what = f"the document in {self.name}, line {line}, is no mapping."
            self.faults.append(Fault("", what, "Begin with apiVersion: and kind:."))
        elif value.get("kind") != "List":
            yield Document(value, self.name, self.lines.get(path, line), self.lines, path)
        elif not isinstance(value.get("items"), list):
            what = f"is missing from the List in {self.name}, line {line}, or is no list."
            self.faults.append(Fault("items", what, "Give a list of documents."))
        else:
            for index, item in enumerate(value["items"]):
                yield from self.expand(item, line, *path, "items", index)

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
                self.fault(f"{short(row)!r} is no separator", "Let --- stand alone in its line.", 0)
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
                    return settle(resolve(literal))
                except RefusedScalar as refused:
                    self.fault(refused.what, refused.fix, 0)
                    return literal

            return hook

        def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
            value = dict(items)
            if len(value) != len(items):
                keys = [key for key, _ in items]
                twice = next(key for key in keys if keys.count(key) > 1)
                self.fault(f"has the key {short(twice)!r} twice", "Keep one.", 0)
            return value

        def constant(literal: str) -> Any:
            raise ValueError(f"{literal} is no JSON")

        return json.JSONDecoder(
            parse_int=take(decimal), parse_float=take(real), parse_constant=constant, object_pairs_hook=pairs
        )

    # --- parts to values ---

    def _read_part(self, part: str) -> Iterator[tuple[Any, int]]:
        self.path, self.anchors, self.lines, self.plain, self.aliased = [], {}, {}, 0, 0
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
            self.fault(f"has the tag {short(tag)}", "Remove it; quote the value where a string is meant.", line)
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
        except RefusedScalar as refused:
            self.fault(refused.what, refused.fix, line)
            return text

    def _sequence(self) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := self.next(), yaml.SequenceEndEvent):
            self.path.append(len(items))
            if not isinstance(event, yaml.ScalarEvent):
                self.lines[tuple(self.path)] = self.first_line + event.start_mark.line
            items.append(settle(self._node(event)))
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
                key = key_of(raw)
            except RefusedScalar as refused:
                self.fault(refused.what, refused.fix, line)
                key = str(raw)
            else:
                if key in value:
                    self.fault(f"has the key {short(key)!r} twice", "Keep one.", line)
            self.path.append(key)
            self.lines[tuple(self.path)] = self.first_line + line
            value[key] = settle(self._node(self.next()))
            self.path.pop()
        return value

    def _alias(self, anchor: str, line: int) -> Any:
        value = self.anchors.get(anchor, _UNKNOWN)
        if type(value) is object:
            self.fault(f"has the alias *{short(anchor)}, but no whole value above has that anchor", "Correct it.", line)
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
