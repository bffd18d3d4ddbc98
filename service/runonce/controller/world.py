"""What all passes of a controller share, and what each of them tells the queue."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from runonce.controller.waits import Waits
from runonce.kube.caches import Caches
from runonce.kube.cluster import Cluster
from runonce.kube.events import Events
from runonce.kube.jobs import KubeJobs
from runonce.kube.objects import ExperimentObject
from runonce.kube.transport import Api
from runonce.store.backend import Backend
from runonce.store.lease import Leases


@dataclass(frozen=True)
class Next:
    """When to look again, where no event would say so; failed: something did not answer."""

    after_s: float | None = None
    failed: bool = False


@dataclass
class World:
    """What all passes share. manifests: of keys that were seen committed, for those that depend on them."""

    api: Api
    cluster: Cluster
    experiments: Caches[ExperimentObject]
    jobs: Callable[[str], KubeJobs]
    store: Callable[[str], Backend]
    leases: Callable[[str, str], Leases]
    events: Events
    requeue: Callable[[str], None]
    manifests: dict[str, str] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=lambda: {"hits": 0, "misses": 0, "passes": 0})
    lock: threading.Lock = field(default_factory=threading.Lock)
    waits: Waits = field(default_factory=Waits)
    shown: dict[str, float] = field(default_factory=dict)  # uid of an Experiment to when its counts were written

    def count(self, name: str) -> None:
        with self.lock:
            self.counted[name] += 1

    def forget(self, uid: str) -> None:
        """An Experiment is gone, or a Job."""
        self.shown.pop(uid, None)
        self.waits.over(uid)
