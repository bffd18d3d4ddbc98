"""A cache that follows one kind of object: list, watch, and what has to happen when either goes wrong.

- 90 s without a byte: the watch is dead (bookmarks come every minute). Then all is listed anew, without a version: a
  watch from a version that the server does not have (it was restored) stays silent for ever.
- A list whose version is lower than one already seen: the server was restored; every cache of the process is dropped.
- 401, 403, 429, 503: a server that starts answers so; tried again, with back-off, for ever.
- 410: listed anew, with back-off too.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Generic

from pydantic import ValidationError

from runonce.errors import ApiError
from runonce.kube.objects import EventOf, ListOf, OtherEvent, T
from runonce.kube.transport import SILENCE_S, Api, Watch, error_of

log = logging.getLogger(__name__)

PAGE = 500
MIN_BACKOFF_S, MAX_BACKOFF_S = 0.5, 30.0


class Informer(Generic[T]):
    """Objects of one path (all namespaces, or one) by `namespace/name`.

    on_change(old, new): called on the informer's thread for every difference; None where there is no object.
    on_restore: called when a list went back in time. index: keys under which an object is found too.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        kind: type[T],
        *,
        on_change: Callable[[T | None, T | None], None] = lambda old, new: None,
        on_restore: Callable[[], None] = lambda: None,
        index: Callable[[T], Iterable[str]] = lambda object_: (),
        selector: str = "",
        silence_s: float = SILENCE_S,
        min_backoff_s: float = MIN_BACKOFF_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._path, self._silence_s, self._clock = api, path, silence_s, clock
        self._list_of, self._event_of = ListOf[kind], EventOf[kind]  # type: ignore[valid-type]
        self._on_change, self._on_restore, self._index = on_change, on_restore, index
        self._query = {"labelSelector": selector} if selector else {}
        self._min_backoff_s = min_backoff_s
        self._lock = threading.RLock()
        self._objects: dict[str, T] = {}
        self._indexed: dict[str, set[str]] = defaultdict(set)
        self._version, self._highest = 0, 0  # 0: list before the next watch
        self._watch: Watch | None = None
        self._stop, self.synced = threading.Event(), threading.Event()
        self._stepped_at = clock()
        self.heard_at = clock()  # of the last byte
        self._thread = threading.Thread(target=self._run, name=f"informer {path}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._interrupt()
        if self._thread.is_alive():
            self._thread.join()

    def get(self, key: str) -> T | None:
        with self._lock:
            return self._objects.get(key)

    def all(self) -> list[T]:
        with self._lock:
            return list(self._objects.values())

    def find(self, key: str) -> list[T]:
        """The objects that `index` put under this key."""
        with self._lock:
            return [self._objects[name] for name in self._indexed.get(key, ())]

    def __len__(self) -> int:
        return len(self._objects)

    def learn(self, object_: T) -> None:
        """Take what a write of ours gave back, unless the watch is further already; so one reads what one wrote."""
        with self._lock:
            known = self._objects.get(object_.key)
            if object_.version > self._version and (known is None or known.version < object_.version):
                self._put(object_)

    def idle_s(self) -> float:
        """Seconds since the thread last did anything: a list, a try, a byte. More than twice the silence: it hangs."""
        return self._clock() - self._stepped_at

    def relist(self) -> None:
        """Forget everything and list anew."""
        with self._lock:
            self.synced.clear()
            self._version = self._highest = 0
        self._interrupt()

    def _interrupt(self) -> None:
        watch = self._watch
        if watch is not None:
            watch.close()

    def _run(self) -> None:
        backoff_s = self._min_backoff_s
        while not self._stop.is_set():
            begun = self._step()
            wait_s = 0.0
            try:
                if not self._version:
                    self._list()
                self._follow()
            except (ApiError, ValidationError) as error:
                if self._stop.is_set():
                    return
                log.warning("watch interrupted", extra={"path": self._path, "error": str(error)[:500]})
                with self._lock:
                    self._version = 0
                wait_s = getattr(error, "retry_after_s", None) or 0.0
            if self._clock() - begun >= MAX_BACKOFF_S:
                backoff_s = self._min_backoff_s
            # A server that ends every watch at once is not asked again and again.
            elif not self._stop.wait(max(wait_s, backoff_s * random.uniform(0.5, 1.0))):  # noqa: S311 - jitter
                backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)

    def _step(self) -> float:
        self._stepped_at = self._clock()
        return self._stepped_at

    def _list(self) -> None:
        found: list[T] = []
        query = {**self._query, "limit": str(PAGE)}
        while True:
            page = self._list_of.read(self._api.get(self._path, **query))
            self.heard_at = self._step()
            found += page.items
            if not page.metadata.continue_:
                break
            query["continue"] = page.metadata.continue_
        version = int(page.metadata.resource_version)
        with self._lock:
            restored = version < self._highest
            self._highest = version
            self._take({object_.key: object_ for object_ in found}, version)
        if restored:
            log.warning("the server went back in time", extra={"path": self._path, "version": version})
            self._on_restore()
        self.synced.set()

    def _take(self, listed: dict[str, T], version: int) -> None:
        changed: list[tuple[T | None, T | None]] = []
        for key in self._objects.keys() - listed.keys():
            changed.append((self._drop(key), None))
        for key, object_ in listed.items():
            old = self._objects.get(key)
            if old is None or old.version != object_.version or old.uid != object_.uid:
                self._put(object_, announce=False)
                changed.append((old, object_))
        self._version = version
        for old, new in changed:
            self._on_change(old, new)

    def _follow(self) -> None:
        timeout = str(random.randint(240, 360))  # noqa: S311 - so that not all watches end at once
        self._watch = self._api.watch(
            self._path,
            silence_s=self._silence_s,
            resourceVersion=str(self._version),
            allowWatchBookmarks="true",
            timeoutSeconds=timeout,
            **self._query,
        )
        if self._unwanted():  # since before there was something to interrupt
            self._watch.close()
        for line in self._watch:
            self.heard_at = self._step()
            self._hear(line)
            if self._unwanted():
                return

    def _unwanted(self) -> bool:
        return self._stop.is_set() or not self._version

    def _hear(self, line: bytes) -> None:
        if line.startswith((b'{"type":"BOOKMARK"', b'{"type":"ERROR"')):
            event = OtherEvent.read(line)
            if event.type == "ERROR":
                code = int(event.object.get("code", 410))
                raise error_of(code, json.dumps(event.object), where=f"watch {self._path}")
            self._advance(int(event.object["metadata"]["resourceVersion"]))
            return
        told = self._event_of.read(line)
        object_: T = told.object
        with self._lock:
            old = self._objects.get(object_.key)
            if told.type != "DELETED":
                if old is None or old.version < object_.version:
                    self._put(object_)
            elif old is not None and old.version <= object_.version:
                self._drop(object_.key)
                self._on_change(old, None)
            self._advance(object_.version)

    def _advance(self, version: int) -> None:
        with self._lock:
            if self._version:  # else it was told to list anew
                self._version = self._highest = max(version, self._version)

    def _put(self, object_: T, *, announce: bool = True) -> None:
        old = self._objects.get(object_.key)
        if old is not None:
            self._drop(object_.key)
        self._objects[object_.key] = object_
        for key in self._index(object_):
            self._indexed[key].add(object_.key)
        if announce:
            self._on_change(old, object_)

    def _drop(self, key: str) -> T:
        object_ = self._objects.pop(key)
        for other in self._index(object_):
            self._indexed[other].discard(key)
            if not self._indexed[other]:
                del self._indexed[other]
        return object_
