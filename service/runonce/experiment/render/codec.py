"""What a form is made with: a codec for each annotation, which holds both directions so that they cannot part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from runonce.errors import Fault, LoadError, RenderError, shown
from runonce.experiment.form import JSON, MAX_DEPTH

Resolve = Callable[[str], Any]  # "package.module:Name" to the class or function; raises LoadError


@dataclass(slots=True)
class Pass:
    """One walk over a value. notes: what nested parameter classes keep out of the hash, by their JSON.

    hash_only: a value that has a representation need have no form of its own.
    """

    depth: int = 0
    hash_only: bool = False
    represented: bool = True  # False: leave out what has a representation, and call no user function
    notes: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class Load:
    """What reading JSON needs besides the annotation. mode: whose fields may be read; None for all."""

    resolve: Resolve
    mode: str | None = None


class Codec(NamedTuple):
    """Both directions for one annotation. `plain`: the classes whose values it writes without a tag."""

    render: Callable[[Any, Pass], JSON]
    load: Callable[[JSON, Load], Any]
    plain: tuple[type, ...] = ()


REPRESENT = (
    "Give it a representation: hash_representations = set_hash_functions(field=lambda params, value: …), "
    "or None there to leave the field out of the key."
)


def fault(what: str, fix: str = "") -> RenderError:
    return RenderError(Fault("", what, fix))


def misfit(what: str, fix: str = "") -> LoadError:
    return LoadError(Fault("", what, fix))


def other_class(value: Any, kind: type) -> RenderError:
    return fault(f"is {shown(value)}; declared as {kind.__name__}.", "Change the value or the annotation.")


def too_deep() -> RenderError:
    return fault(f"is nested more than {MAX_DEPTH} levels deep, or holds itself.", "Flatten it or cut the cycle.")
