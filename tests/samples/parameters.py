"""Parameter classes that several tests render: importable, as the author's own are."""

from __future__ import annotations

import dataclasses as D
import datetime
import decimal
import enum
import fractions
import functools
import pathlib
import uuid
from collections import namedtuple
from typing import Any, Literal, NamedTuple, Optional, Union

from runonce import ExperimentParameters


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


Point = namedtuple("Point", "x y")


class Size(NamedTuple):
    width: int
    height: float = 1.0


@D.dataclass
class Opt:
    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)


@D.dataclass
class Adam(Opt):
    eps: float = 1e-8


@D.dataclass
class SGD(Opt):
    eps: float = 1e-8


@D.dataclass
class Leaf:
    n: int = 1
    seed: int = D.field(default=0, repr=False)


@D.dataclass
class Blank:
    lr: float | None = None


@D.dataclass
class Data:
    name: str = ""
    hash: str = ""
    overwrite: bool = False
    size: int = 1


@D.dataclass
class Nested(ExperimentParameters):
    depth: int = 2
    workers: int = 4


def function(x, base=1):
    return x + base


def other_function(x):
    return x


PARTIAL = functools.partial(function, base=2)


@D.dataclass
class Anything(ExperimentParameters):
    """One field that takes every form, and one of each declared kind."""

    x: Any = None


@D.dataclass
class Declared(ExperimentParameters):
    i: int = 1
    f: float = 0.5
    b: bool = False
    s: str = "a"
    by: bytes = b""
    oi: Optional[int] = None  # noqa: UP045 - both spellings are supported
    u: Union[int, str] = 1  # noqa: UP007
    lit: Literal["a", "b", 3] = "a"
    li: list[int] = D.field(default_factory=list)
    lf: list[float] = D.field(default_factory=list)
    ll: list[list[str]] = D.field(default_factory=list)
    tf: tuple[int, str] = (1, "a")
    tv: tuple[float, ...] = ()
    se: set[int] = D.field(default_factory=set)
    fs: frozenset[str] = frozenset()
    di: dict[str, float] = D.field(default_factory=dict)
    dk: dict[int, str] = D.field(default_factory=dict)
    opt: Opt = D.field(default_factory=Opt)
    maybe: Opt | None = None
    opts: list[Opt] = D.field(default_factory=list)
    color: Color = Color.RED
    level: Level = Level.LOW
    point: Point = Point(1, 2)
    size: Size = Size(3)
    path: pathlib.PurePosixPath = pathlib.PurePosixPath("a/b")
    day: datetime.date = datetime.date(2026, 1, 2)
    at: datetime.datetime = datetime.datetime(2026, 1, 2, 3, 4, 5)
    span: datetime.timedelta = datetime.timedelta(seconds=1.5)
    dec: decimal.Decimal = decimal.Decimal("1.10")
    fr: fractions.Fraction = fractions.Fraction(1, 3)
    uid: uuid.UUID = uuid.UUID(int=5)
    nested: Nested = D.field(default_factory=Nested)


@D.dataclass
class Holder:
    inner: Any = None
