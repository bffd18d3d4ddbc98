"""Who makes a result, where several machines or users share a store. It saves work; correctness rests on the commit.

A lease is one small record that its holder renews. No two clocks are compared: who waits takes it over when it has seen
the same ETag for one lease time on its own clock. Every record has a fresh nonce: equal bytes would have equal ETags.

In a folder of this machine its holder also has a lock of the kernel (flock), which ends with it: who gets that takes
the lease over at once. One that came through a mount on another machine runs out as it does in S3.
"""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass

from runonce.errors import PreconditionFailed, StoreError
from runonce.experiment.seal import read_record, write_record
from runonce.store.backend import Backend, lease_name
from runonce.store.folder import FolderBackend
from runonce.store.locks import Flocks

TTL_S = 30.0
TURNS = 64  # locks for all keys: of two threads that want one key the second finds the lease of the first


@dataclass
class _Held:
    etag: str
    done: threading.Event
    locked: bool  # by the kernel too
    lost: bool = False


class Leases:
    """Leases that this process holds or waits for. holder: names the place whose Jobs this process can see.

    A lease of the same holder is taken at once: among those who see the same Jobs these are the lock.
    outlives: the Jobs go on when this process ends, and the next of this holder takes the leases over. Then no lock of
    the kernel speaks for them.
    """

    def __init__(self, backend: Backend, holder: str, *, ttl_s: float = TTL_S, outlives: bool = False) -> None:
        self._backend, self._holder, self._ttl_s, self._outlives = backend, holder, ttl_s, outlives
        self._flocks: Flocks | None = None
        self._held: dict[str, _Held] = {}
        self._keeping: threading.Thread | None = None  # one renews them all
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._turns = [threading.Lock() for _ in range(TURNS)]
        self._seen: dict[str, tuple[str, float]] = {}  # ETag of another's lease, and since when

    def hold(self, cache_key: str) -> str | None:
        """Take the lease and keep it; None when it is ours, else who holds it. Waits for nobody but a thread of its own
        that is about to take the same one.
        """
        with self._turns[hash(cache_key) % TURNS]:
            return self._hold(cache_key)

    def _hold(self, cache_key: str) -> str | None:
        if cache_key in self._held:
            return None
        locked = self._take_flock(cache_key)
        try:
            etag, holder = self._take(cache_key, locked)
        except PreconditionFailed:
            etag, holder = "", "another one, since just now"
        if holder:
            self._free_flock(cache_key)
            return holder
        with self._lock:
            self._held[cache_key] = _Held(etag, threading.Event(), locked)
            if self._keeping is None:
                self._keeping = threading.Thread(target=self._keep, daemon=True)
                self._keeping.start()
        return None

    def _take(self, cache_key: str, locked: bool) -> tuple[str, str]:
        """The ETag of our lease, or who holds it. locked: whether we have the lock of the kernel."""
        name = lease_name(cache_key)
        found = self._backend.get(name)
        if found is None:
            return self._backend.put(name, self._record(locked), create=True), ""
        holder, has_flock = _holder(found[0])
        dead = has_flock and locked
        lives = has_flock and not locked and self._flocks is not None
        if holder != self._holder and not dead and (lives or not self._expired(cache_key, found[1])):
            return "", holder
        return self._backend.put(name, self._record(locked), if_match=found[1]), ""

    def _take_flock(self, cache_key: str) -> bool:
        if (
            not self._outlives
            and self._flocks is None
            and isinstance(self._backend, FolderBackend)
            and self._backend.is_local
        ):
            self._flocks = Flocks(self._backend.locks())
        try:
            return self._flocks is not None and self._flocks.take(cache_key)
        except OSError as error:
            raise StoreError(f"cannot lock {cache_key} in {self._backend.url}: {error.strerror or error}.") from error

    def _free_flock(self, cache_key: str) -> None:
        if self._flocks is not None:
            self._flocks.free(cache_key)

    def release(self, cache_key: str) -> None:
        held = self._held.pop(cache_key, None)
        if held is None:
            return
        held.done.set()
        try:
            self._backend.delete(lease_name(cache_key), if_match=held.etag)
        except StoreError:
            pass  # another's by now, or it runs out by itself
        finally:
            self._free_flock(cache_key)

    def close(self) -> None:
        self._closed.set()
        if self._outlives:
            return
        for cache_key in list(self._held):
            self.release(cache_key)

    def _expired(self, cache_key: str, etag: str) -> bool:
        now = time.monotonic()
        before, since = self._seen.get(cache_key, ("", now))
        if before != etag:
            self._seen[cache_key] = etag, now
            return False
        return now - since >= self._ttl_s

    def _keep(self) -> None:
        while not self._closed.wait(self._ttl_s / 3):
            for cache_key, held in list(self._held.items()):
                self._renew(lease_name(cache_key), held)

    def _renew(self, name: str, held: _Held) -> None:
        if held.done.is_set() or held.lost:
            return
        try:
            held.etag = self._backend.put(name, self._record(held.locked), if_match=held.etag)
        except PreconditionFailed:
            held.lost = True  # taken over: the commit will say whose result counts
        except StoreError:
            return  # tried again in time, or taken over

    def _record(self, locked: bool) -> bytes:
        flock = {"flock": True} if locked else {}
        return write_record("lease", holder=self._holder, nonce=uuid.uuid4().hex, **flock)


def _holder(data: bytes) -> tuple[str, bool]:
    """Who holds it, and whether by a lock of the kernel too."""
    try:
        record = read_record(data)
        return str(record["holder"]), bool(record.get("flock"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "a damaged record", False  # it runs out like any other
