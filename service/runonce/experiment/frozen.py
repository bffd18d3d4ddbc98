"""Containers that refuse to be changed: what a class variable of an experiment becomes.

Nothing but change sets them apart. Whatever is made from one is plain, be it a copy, a pickle, a slice, JSON or
`dataclasses.asdict`; in parameters they are written as the plain containers that they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, Protocol


class _Where(Protocol):
    where: str


def _refuse(self: _Where, *_: Any, **__: Any) -> NoReturn:
    raise RuntimeError(
        f"{self.where} is a class variable of an experiment, and pods, which import the class anew, would not see "
        "the change. Copy it first, or make it a parameter."
    )


class FrozenList(list[Any]):
    def __new__(cls, values: Iterable[Any] = (), where: str = "") -> Any:
        return super().__new__(cls) if where else list(values)

    def __init__(self, values: Iterable[Any], where: str) -> None:
        super().__init__(values)
        self.where = where

    def __reduce_ex__(self, _: Any) -> Any:
        return list, (list(self),)

    append = extend = insert = remove = pop = clear = sort = reverse = _refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse


class FrozenDict(dict[Any, Any]):
    def __new__(cls, values: Mapping[Any, Any] | Iterable[Any] = (), where: str = "") -> Any:
        return super().__new__(cls) if where else dict(values)

    def __init__(self, values: Mapping[Any, Any], where: str) -> None:
        super().__init__(values)
        self.where = where

    def __reduce_ex__(self, _: Any) -> Any:
        return dict, (dict(self),)

    __setitem__ = __delitem__ = __ior__ = _refuse
    pop = popitem = clear = update = setdefault = _refuse


class FrozenSet(set[Any]):
    def __new__(cls, values: Iterable[Any] = (), where: str = "") -> Any:
        return super().__new__(cls) if where else set(values)

    def __init__(self, values: Iterable[Any], where: str) -> None:
        super().__init__(values)
        self.where = where

    def __reduce_ex__(self, _: Any) -> Any:
        return set, (set(self),)

    add = discard = remove = pop = clear = update = difference_update = _refuse
    intersection_update = symmetric_difference_update = _refuse
    __iand__ = __ior__ = __isub__ = __ixor__ = _refuse


_PLAIN: dict[type, type] = {FrozenList: list, FrozenDict: dict, FrozenSet: set}


def plain_class(value: Any) -> type:
    """The class of a value, and of a frozen container that of which it is one."""
    kind = type(value)
    return _PLAIN.get(kind, kind)


def freeze(value: Any, where: str) -> Any:
    """The container with its own mutators raising, and those of the containers in it. where: said by the error."""
    if type(value) is list:
        return FrozenList([freeze(entry, where) for entry in value], where)
    if type(value) is tuple:
        return tuple(freeze(entry, where) for entry in value)
    if type(value) is dict:
        return FrozenDict({name: freeze(entry, where) for name, entry in value.items()}, where)
    return FrozenSet(value, where) if type(value) is set else value
