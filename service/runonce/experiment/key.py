"""From the rendered form to the two identities: `params_hash` of the parameters, `cache_key` of a result."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runonce.errors import Fault, NotCanonical, SpecError, shown
from runonce.experiment.canonical import canonical, digest
from runonce.experiment.form import JSON

if TYPE_CHECKING:
    from runonce.experiment.spec import ExperimentSpec

FORMAT = 1
MODES = ("train", "valid", "test")

_PIN = re.compile(r"[0-9a-zA-Z][0-9a-zA-Z._-]{0,63}")


def hash_form(
    params: Mapping[str, JSON],
    *,
    exclude: Iterable[str] = (),
    hash_as: Mapping[str, JSON] | None = None,
    only_in: Mapping[str, str] | None = None,
    mode: str | None = None,
) -> Mapping[str, JSON]:
    """The rendered form less what `exclude` and the other modes' `only_in` name, with `hash_as` in place.

    A name is a field of `params`, or a JSON Pointer (RFC 6901) to a deeper one. Raises SpecError when a pointer
    cannot lead anywhere, NotCanonical when a plain name is written as a pointer.
    """
    others = [name for name, only in (only_in or {}).items() if mode is not None and only != mode]
    removed, replaced = [*exclude, *others], hash_as or {}
    if not removed and not replaced:
        return params
    form = copy.deepcopy(dict(params))
    faults: list[Fault] = []
    for name in removed:
        parent, last = _parent(form, pointer(name))
        if parent is not None:
            parent.pop(last, None)
    for name, value in replaced.items():
        parent, last = _parent(form, pointer(name))
        if parent is None:
            faults.append(Fault(f'hashAs["{name}"]', "leads nowhere in params.", "Give the field, or drop the entry."))
        elif name not in others:
            parent[last] = value
    if faults:
        raise SpecError(*faults)
    return form


def pointer(name: str) -> tuple[str, ...]:
    """`lr` to `("lr",)`, `/optimizer/a~1b` to `("optimizer", "a/b")`."""
    if not name.startswith("/"):
        return (name,)
    segments = tuple(part.replace("~1", "/").replace("~0", "~") for part in name[1:].split("/"))
    if len(segments) == 1:
        raise NotCanonical(Fault("", f"{shown(name)} names a field of params itself.", f"Write {segments[0]}."))
    return segments


def to_pointer(segments: Sequence[str | int]) -> str:
    if len(segments) == 1 and isinstance(segments[0], str) and not segments[0].startswith("/"):
        return segments[0]
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in segments)


def _parent(form: Any, segments: tuple[str, ...]) -> tuple[dict[str, JSON] | None, str]:
    for segment in segments[:-1]:
        if isinstance(form, dict):
            form = form.get(segment)
        elif isinstance(form, list) and segment.isdecimal() and int(segment) < len(form):
            form = form[int(segment)]
        else:
            form = None
    return (form if isinstance(form, dict) else None), segments[-1]


def params_hash(form: Mapping[str, JSON]) -> str:
    """SHA-256 over RFC 8785 of `{"format": 1, "params": form}`, `form` as `hash_form` gives it."""
    return digest({"format": FORMAT, "params": form})


def check_pin(pin: Any) -> str:
    if isinstance(pin, str) and _PIN.fullmatch(pin):
        return pin
    raise SpecError(
        Fault(
            "hash",
            f"is {shown(pin)}; a pinned hash has 1 to 64 of the characters 0-9 a-z A-Z . _ - and begins with one of "
            "0-9 a-z A-Z.",
            "Write such a name, or leave hash out to have it computed.",
        )
    )


@dataclass(frozen=True, kw_only=True)
class KeyParts:
    """All that a result's identity is made of, for one mode.

    entry: "module:Class", or a command's argv as written. params: `params_hash` of this mode, or the pin.
    code_version: as written; for `image` with the digest, `image:sha256:…`. inputs: mode to cache_key.
    completions: number of processes, only where the result depends on it (`keyMachine`).
    """

    mode: str
    entry: str | tuple[str, ...]
    params: str
    env: Mapping[str, str]
    seed: int
    code_version: str
    inputs: Mapping[str, str]
    extra: tuple[str, ...]
    completions: int | None = None

    def to_json(self) -> dict[str, JSON]:
        """The object whose digest is the cache key; empty parts are present."""
        out: dict[str, JSON] = {
            "format": FORMAT,
            "mode": self.mode,
            "entry": self.entry if isinstance(self.entry, str) else list(self.entry),
            "params": self.params,
            "env": dict(self.env),
            "seed": self.seed,
            "codeVersion": self.code_version,
            "inputs": dict(self.inputs),
            "extra": list(self.extra),
        }
        if self.completions is not None:
            out["completions"] = self.completions
        return out


def cache_key(parts: KeyParts) -> str:
    return digest(parts.to_json())


def digest_of_identity(spec: ExperimentSpec) -> str:
    """What tells experiments of one tag apart in their names: everything in the key but code and inputs."""
    params = spec.hash if spec.hash is not None else params_hash(spec.hash_form())
    entry = spec.config if spec.config is not None else list(spec.command or ())
    return digest([entry, params, dict(spec.env), spec.seed, list(spec.cache_key_extra)])


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where two JSON values differ; `None` where one of them has nothing there."""

    path: str
    first: JSON | None
    second: JSON | None


def differences(first: JSON, second: JSON) -> list[Difference]:
    """Every place where two JSON values differ, as JSON Pointers, in the order of the keys; empty if equal."""
    found: list[Difference] = []
    _compare(first, second, (), found)
    return found


def _compare(first: JSON, second: JSON, path: tuple[str | int, ...], found: list[Difference]) -> None:
    if isinstance(first, dict) and isinstance(second, dict):
        for name in sorted({*first, *second}):
            _compare(first.get(name), second.get(name), (*path, name), found)
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            _compare(one, other, (*path, index), found)
    elif canonical(first) != canonical(second):
        found.append(Difference(to_pointer(path) if path else "", first, second))
