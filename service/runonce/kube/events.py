"""Events of an Experiment for people: one of a kind in five minutes, and never a reason for a pass to fail."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime

from runonce.errors import ApiError
from runonce.experiment.spec import API_VERSION, KIND
from runonce.kube.objects import ExperimentObject
from runonce.kube.transport import Api

log = logging.getLogger(__name__)

EVERY_S = 300.0
REMEMBERED = 10_000
MAX_NOTE = 1024


class Events:
    def __init__(self, api: Api, instance: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._api, self._instance, self._clock = api, instance[:128], clock
        self._lock = threading.Lock()
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()

    def tell(self, about: ExperimentObject, reason: str, note: str) -> None:
        self._post(about, "Normal", reason, note)

    def warn(self, about: ExperimentObject, reason: str, note: str) -> None:
        self._post(about, "Warning", reason, note)

    def _post(self, about: ExperimentObject, kind: str, reason: str, note: str) -> None:
        if not self._is_new(about.uid, reason):
            return
        meta = about.metadata
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{meta.name[:200]}.{uuid.uuid4().hex[:16]}", "namespace": meta.namespace},
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": meta.namespace,
                "name": meta.name,
                "uid": about.uid,
            },
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": kind,
            "reason": reason[:128],
            "action": "Reconcile",
            "note": note[:MAX_NOTE] or reason,
            "reportingController": "runonce.dev/controller",
            "reportingInstance": self._instance,
        }
        try:
            self._api.post(f"/apis/events.k8s.io/v1/namespaces/{meta.namespace}/events", body)
        except ApiError as error:
            log.warning("event not written", extra={"experiment": about.key, "error": str(error)})

    def _is_new(self, uid: str, reason: str) -> bool:
        now = self._clock()
        with self._lock:
            last = self._told.get((uid, reason))
            if last is not None and now - last < EVERY_S:
                return False
            self._told[uid, reason] = now
            self._told.move_to_end((uid, reason))
            while len(self._told) > REMEMBERED:
                self._told.popitem(last=False)
        return True
