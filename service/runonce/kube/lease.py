"""Who of several controllers works: a Lease, held by one. Only the monotonic clock of this process is used.

A holder that could not renew for `renew_s` stops by itself, before anyone else can think it gone (`duration_s`): each
write asks `leads` first. Who waits takes over when it has seen the same record for the whole duration.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from runonce.errors import ApiError, Conflict, NotFound
from runonce.kube.transport import Api

log = logging.getLogger(__name__)


class Election:
    """Runs in a thread of its own, on calls with a time limit of their own. lost: called once, when leadership ends."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        name: str,
        identity: str,
        *,
        lost: Callable[[], None],
        duration_s: float = 15.0,
        renew_s: float = 10.0,
        retry_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._identity, self._lost, self._clock = api, identity, lost, clock
        self._all = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._namespace, self._name = namespace, name
        self._duration_s, self._renew_s, self._retry_s = duration_s, renew_s, retry_s
        self._seen: tuple[str, float] = ("", clock())  # version of another's record, and since when
        self._renewed_at: float | None = None
        self._stop, self.leading = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="election", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def leads(self) -> bool:
        """Whether this process may write now; false as soon as the record could run out, whatever the thread does."""
        renewed = self._renewed_at
        return self.leading.is_set() and renewed is not None and self._clock() - renewed < self._renew_s

    def stop(self) -> None:
        """Stop, and let the next one take over at once."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self.leading.is_set():
            self.leading.clear()
            try:
                self._write(json.loads(self._api.get(f"{self._all}/{self._name}")), holder="", now=None)
            except ApiError as error:
                log.warning("lease not released", extra={"error": str(error)})

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.step()
            except ApiError as error:
                log.warning("lease not renewed", extra={"error": str(error)})
            if self.leading.is_set() and not self.leads():
                log.error("leadership lost", extra={"identity": self._identity})
                self.leading.clear()
                self._lost()
                return
            self._stop.wait(self._retry_s * random.uniform(1.0, 1.2))  # noqa: S311 - jitter

    def step(self) -> None:
        """One try to take the lease, or to keep it."""
        begun = self._clock()  # before the call: when its answer comes late, the time was spent already
        try:
            lease = json.loads(self._api.get(f"{self._all}/{self._name}"))
        except NotFound:
            lease = None
        holder = ((lease or {}).get("spec") or {}).get("holderIdentity") or ""
        if lease is not None and holder not in ("", self._identity):
            version = str(lease["metadata"]["resourceVersion"])
            if self._seen[0] != version:
                self._seen = version, begun
            duration_s = float((lease["spec"].get("leaseDurationSeconds")) or self._duration_s)
            if self.leading.is_set():  # taken from us: we were too late
                self._renewed_at = None
                return
            if begun - self._seen[1] < max(duration_s, self._duration_s):
                return
        try:
            self._write(lease, holder=self._identity, now=datetime.now(UTC))
        except Conflict:
            return  # another was faster
        self._renewed_at = begun
        if not self.leading.is_set():
            log.info("leading", extra={"identity": self._identity})
            self.leading.set()

    def _write(self, lease: dict[str, Any] | None, *, holder: str, now: datetime | None) -> None:
        before = (lease or {}).get("spec") or {}
        text = (now or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        own = before.get("holderIdentity") == holder
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": max(1, round(self._duration_s)) if now else 1,
            "acquireTime": before.get("acquireTime", text) if own else text,
            "renewTime": text,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (not own and bool(holder) and bool(before)),
        }
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec}
        if lease is None:
            self._api.post(self._all, body | {"metadata": {"name": self._name}})
        else:
            metadata = {"name": self._name, "resourceVersion": lease["metadata"]["resourceVersion"]}
            self._api.put(f"{self._all}/{self._name}", body | {"metadata": metadata})
