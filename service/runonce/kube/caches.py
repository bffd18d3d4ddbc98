"""One kind of object in all namespaces that are watched: an informer for each, or one for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic

from runonce.kube.informer import Informer
from runonce.kube.objects import T


class Caches(Generic[T]):
    """make: the informer of a namespace; of all where it is empty."""

    def __init__(self, namespaces: Sequence[str], make: Callable[[str], Informer[T]]) -> None:
        self._of = {namespace: make(namespace) for namespace in namespaces or ("",)}

    @property
    def informers(self) -> list[Informer[Any]]:
        return list(self._of.values())

    @property
    def heard_at(self) -> float:
        """When the watch that is silent for longest gave its last byte, on the monotonic clock."""
        return min(informer.heard_at for informer in self._of.values())

    def get(self, key: str) -> T | None:
        informer = self._informer(key)
        return None if informer is None else informer.get(key)

    def find(self, key: str) -> list[T]:
        return [found for informer in self._of.values() for found in informer.find(key)]

    def all(self) -> list[T]:
        return [found for informer in self._of.values() for found in informer.all()]

    def learn(self, object_: T) -> None:
        informer = self._informer(object_.key)
        if informer is not None:
            informer.learn(object_)

    def __len__(self) -> int:
        return sum(len(informer) for informer in self._of.values())

    def _informer(self, key: str) -> Informer[T] | None:
        return self._of.get("" if "" in self._of else key.partition("/")[0])
