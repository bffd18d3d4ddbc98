"""The controller as a process: caches, a queue, workers, an election, and an orderly end."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

from runonce.controller.health import Health
from runonce.controller.metrics import Metrics, counted
from runonce.controller.passes import look
from runonce.controller.queue import WorkQueue
from runonce.controller.size import clip
from runonce.controller.world import World
from runonce.errors import ApiError, Conflict, Invalid
from runonce.experiment.spec import API_VERSION
from runonce.kube.caches import Caches
from runonce.kube.cluster import Cluster
from runonce.kube.events import Events
from runonce.kube.informer import Informer
from runonce.kube.jobs import OURS, KubeJobs
from runonce.kube.lease import Election
from runonce.kube.objects import ExperimentObject, JobObject
from runonce.kube.resources import MANAGED_BY, build_job
from runonce.kube.transport import SILENCE_S, Api
from runonce.store.backend import Backend
from runonce.store.lease import Leases
from runonce.store.url import open_store

log = logging.getLogger(__name__)

ENDS_WITHIN_S = 20.0  # of the 30 s that a pod is given: what is not done by then hangs, and the Lease is let go of
SLOW_S = 600.0  # a pass that takes longer hangs
STORE_LEASE_S = 300.0  # renewed every 100 s: a controller may hold thousands


class Controller:
    """identity: unique for each process. elect: whether others may be there. host: where probes are answered."""

    def __init__(
        self,
        api: Api,
        cluster: Cluster,
        *,
        namespace: str,
        elect: Api | None,
        identity: str = "",
        host: str = "",
        port: int | None = None,
    ) -> None:
        self._api, self._cluster = api, cluster
        self._identity = identity or f"{namespace}-{uuid.uuid4().hex[:12]}"
        self._queue = WorkQueue()
        self._stop = threading.Event()
        self.failed = False
        self._lock = threading.Lock()
        self._jobs: dict[str, KubeJobs] = {}
        self._stores: dict[str, Backend] = {}
        self._keyring = cluster.keyring()
        self._leases: dict[tuple[str, str], Leases] = {}
        self._calls: Counter[str] = Counter()
        self._election = None
        if elect is not None:
            self._election = Election(elect, namespace, cluster.lease, self._identity, lost=self._lost)
            api.may_write = self._election.leads
        self._experiments = Caches(cluster.namespaces, self._experiments_of)
        self._job_cache = Caches(cluster.namespaces, self._job_cache_of)
        self._world = World(
            api=api,
            cluster=cluster,
            experiments=self._experiments,
            jobs=self._jobs_of,
            store=self._store,
            leases=self._leases_of,
            events=Events(api, self._identity),
            requeue=self._queue.add,
        )
        self._metrics = Metrics(self._world, self._queue, self._job_cache, time.monotonic, self.leads, self._calls)
        self._health = Health(
            host,
            cluster.port if port is None else port,
            alive=self._wrong,
            ready=self._not_ready,
            metrics=self._metrics.text,
        )
        self.port = self._health.port
        self._workers = [
            threading.Thread(target=self._work, name=f"worker {number}", daemon=True)
            for number in range(cluster.workers)
        ]

    def run(self) -> None:
        """Until `stop` is called or leadership is lost."""
        try:
            for informer in self._all():
                informer.start()
            if self._election is not None:
                self._election.start()
                while not self._election.leading.wait(0.2) and not self._stop.is_set():
                    pass
            self._await_caches()
            for worker in self._workers:
                worker.start()
            self._stop.wait()
        finally:
            self._end()

    def stop(self) -> None:
        self._stop.set()

    def leads(self) -> bool:
        return not self._stop.is_set() and (self._election is None or self._election.leads())

    def _end(self) -> None:
        self._queue.close()
        deadline = time.monotonic() + ENDS_WITHIN_S
        for worker in self._workers:
            if worker.is_alive():
                worker.join(max(0.0, deadline - time.monotonic()))
        for leases in self._leases.values():
            leases.close()
        if self._election is not None:
            self._election.stop()
        for informer in self._all():
            informer.stop()
        self._health.close()
        log.info("stopped")

    def _await_caches(self) -> None:
        while not all(informer.synced.wait(0.2) for informer in self._all()):
            if self._stop.is_set():
                return
        log.info("caches are filled", extra={"experiments": len(self._experiments)})

    def _lost(self) -> None:
        log.error("another controller leads; this one ends")
        self.failed = True
        self.stop()

    # --- what passes are given ----------------------------------------------------------------------------------

    def _jobs_of(self, namespace: str) -> KubeJobs:
        with self._lock:
            found = self._jobs.get(namespace)
            if found is None:

                def build(plan: Any) -> dict[str, Any]:
                    return build_job(plan, namespace=namespace, cluster=self._cluster)

                found = KubeJobs(self._api, namespace, self._job_cache, build=build)
                found.survey()
                self._jobs[namespace] = found
            return found

    def _store(self, url: str) -> Backend:
        with self._lock:
            if url not in self._stores:
                self._stores[url] = counted(open_store(url, self._keyring), self._calls)
            return self._stores[url]

    def _leases_of(self, url: str, namespace: str) -> Leases:
        backend = self._store(url)
        with self._lock:
            known = self._leases.get((url, namespace))
            if known is None:
                holder = f"{self._cluster.cluster}/{namespace}"  # within it the API server lets a key run once
                known = self._leases[url, namespace] = Leases(backend, holder, ttl_s=STORE_LEASE_S, outlives=True)
            return known

    # --- caches -------------------------------------------------------------------------------------------------

    def _experiments_of(self, namespace: str) -> Informer[ExperimentObject]:
        return Informer(
            self._api,
            f"/apis/{API_VERSION}{_within(namespace)}/experiments",
            ExperimentObject,
            on_change=self._experiment_changed,
            on_restore=self._restored,
            index=_keys,
        )

    def _job_cache_of(self, namespace: str) -> Informer[JobObject]:
        return Informer(
            self._api,
            f"/apis/batch/v1{_within(namespace)}/jobs",
            JobObject,
            on_change=self._job_changed,
            on_restore=self._restored,
            index=lambda job: [owner.uid for owner in job.metadata.owner_references],
            selector=f"{MANAGED_BY}={OURS}",
        )

    def _all(self) -> list[Informer[Any]]:
        return [*self._experiments.informers, *self._job_cache.informers]

    def _restored(self) -> None:
        """The API server went back in time: nothing that any cache holds can be believed."""
        for informer in self._all():
            informer.relist()

    def _experiment_changed(self, old: ExperimentObject | None, new: ExperimentObject | None) -> None:
        if new is None:
            self._world.forget(old.uid if old is not None else "")
            return
        if old is not None and old.uid == new.uid and old.spec == new.spec:
            same = old.metadata.generation == new.metadata.generation
            if same and old.metadata.annotations == new.metadata.annotations and _ours(new):
                return  # our own write of the status
        self._queue.add(new.key)

    def _job_changed(self, old: JobObject | None, new: JobObject | None) -> None:
        job = new or old
        if job is not None and new is None:
            self._world.forget(job.uid)
            jobs = self._jobs.get(job.metadata.namespace)
            if jobs is not None:
                jobs.forget(job.uid)
        if job is not None:
            for owner in job.metadata.owner_references:
                self._queue.add(f"{job.metadata.namespace}/{owner.name}")

    # --- work ---------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (key := self._queue.get()) is not None:
            if not self.leads():
                self._queue.failed(key)
                continue
            self._look(key)

    def _look(self, key: str) -> None:
        try:
            if not all(informer.synced.is_set() for informer in self._all()):
                self._queue.failed(key)
                return
            after = look(key, self._world)
        except Conflict:
            self._queue.failed(key)  # somebody wrote it since; the cache will have it
        except Invalid as error:
            log.error("not written, and not tried again soon", extra={"experiment": key, "error": str(error)})
            if found := self._experiments.get(key):
                self._world.events.warn(found, "NotWritten", clip(str(error)))
            self._queue.failed(key, at_least_s=SLOW_S)
        except ApiError as error:
            log.warning("tried again", extra={"experiment": key, "error": str(error)})
            self._queue.failed(key, at_least_s=error.retry_after_s or 0.0)
        except Exception:
            log.exception("a pass broke", extra={"experiment": key})
            self._queue.failed(key)
        else:
            if after.failed:
                self._queue.failed(key)
                return
            self._queue.done(key)
            if after.after_s is not None:
                self._queue.add_after(key, after.after_s)

    # --- health -------------------------------------------------------------------------------------------------

    def _wrong(self) -> str:
        """What has gone silent. A server that does not answer is no fault of this process."""
        if not self._stop.is_set() and any(informer.idle_s() > 2 * SILENCE_S for informer in self._all()):
            return "a watch has gone silent"
        slow = self._queue.slow(SLOW_S)
        return f"a pass does not end: {slow[0]}" if slow else ""

    def _not_ready(self) -> str:
        return "" if all(informer.synced.is_set() for informer in self._all()) else "caches are not filled yet"


def _within(namespace: str) -> str:
    return f"/namespaces/{namespace}" if namespace else ""


def _keys(found: ExperimentObject) -> list[str]:
    """The keys that its status names."""
    modes = found.status_value().get("modes") or {}
    return [str(mode["cacheKey"]) for mode in modes.values() if isinstance(mode, dict) and mode.get("cacheKey")]


def _ours(found: ExperimentObject) -> bool:
    """Whether the status is of this very object, as a write of ours leaves it."""
    return found.status_value().get("uid") == found.uid


def run_controller(make: Callable[[], Controller]) -> int:
    """Run until SIGTERM or SIGINT; 1 where leadership was lost, so that the pod starts anew."""
    import signal

    controller = make()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: controller.stop())
    controller.run()
    return 1 if controller.failed else 0
