"""Containers that refuse to be changed: what a class variable of an experiment becomes.

Nothing but change sets them apart. Whatever is made from one is plain, be it a copy, a pickle, a slice, JSON or
`dataclasses.asdict`; in parameters they are written as the plain containers that they are.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn


def _refuse(self: _Frozen, *_: Any, **__: Any) -> NoReturn:
    raise RuntimeError(
        f"{self.where} is a class variable of an experiment, and pods, which import the class anew, would not see "
        "the change. Copy it first, or make it a parameter."
    )


class _Frozen:
    """What the three below share; where: said by the error. Made without it, as by a copy, it is a plain one."""

    plain: ClassVar[Any]
    where: str

    def __new__(cls, values: Any = (), where: str = "") -> Any:
        return super().__new__(cls) if where else cls.plain(values)

    def __init__(self, values: Any, where: str) -> None:
        super().__init__(values)  # type: ignore[call-arg]  # that of the plain class, which comes next
        self.where = where

    def __reduce_ex__(self, _: Any) -> Any:
        return self.plain, (self.plain(self),)


class FrozenList(_Frozen, list[Any]):
    plain = list

    append = extend = insert = remove = pop = clear = sort = reverse = _refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse


class FrozenDict(_Frozen, dict[Any, Any]):
    plain = dict

    __setitem__ = __delitem__ = __ior__ = _refuse
    pop = popitem = clear = update = setdefault = _refuse


class FrozenSet(_Frozen, set[Any]):
    plain = set

    add = discard = remove = pop = clear = update = difference_update = _refuse
    intersection_update = symmetric_difference_update = _refuse
    __iand__ = __ior__ = __isub__ = __ixor__ = _refuse


def plain_class(value: Any) -> type:
    """The class of a value, and of a frozen container that of which it is one."""
    return value.plain if isinstance(value, _Frozen) else type(value)


def freeze(value: Any, where: str) -> Any:
    """The container with its own mutators raising, and those of the containers in it. where: said by the error."""
    if type(value) is list:
        return FrozenList([freeze(entry, where) for entry in value], where)
    if type(value) is tuple:
        return tuple(freeze(entry, where) for entry in value)
    if type(value) is dict:
        return FrozenDict({name: freeze(entry, where) for name, entry in value.items()}, where)
    return FrozenSet(value, where) if type(value) is set else value
