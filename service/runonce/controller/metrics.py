"""What Prometheus reads of a controller: taken from where it is kept anyway, at the moment that it is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from runonce.controller.queue import WorkQueue
from runonce.controller.world import World
from runonce.kube.caches import Caches
from runonce.kube.objects import JobObject
from runonce.store.backend import Backend


@dataclass(frozen=True, eq=False)  # a registry keeps collectors by identity
class Metrics(Collector):
    """store_calls: by name of the call."""

    world: World
    queue: WorkQueue
    jobs: Caches[JobObject]
    clock: Callable[[], float]
    leads: Callable[[], bool]
    store_calls: Counter[str]

    def collect(self) -> Iterator[Metric]:
        counted = self.world.counted
        yield _counter("runonce_passes", "Passes over Experiments.", counted["passes"])
        yield _counter("runonce_cache_hits", "Modes whose result was there already.", counted["hits"])
        yield _counter("runonce_cache_misses", "Results that were made and committed.", counted["misses"])
        calls = CounterMetricFamily("runonce_api_calls", "Calls on the API server.", labels=["verb", "resource"])
        for (verb, resource), count in sorted(self.world.api.calls.by_kind.items()):
            calls.add_metric([verb, resource], count)
        yield calls
        stored = CounterMetricFamily("runonce_store_calls", "Calls on the stores.", labels=["call"])
        for call, count in sorted(self.store_calls.items()):
            stored.add_metric([call], count)
        yield stored
        yield _gauge("runonce_queue_depth", "Experiments that wait for a worker.", self.queue.depth())
        yield _gauge("runonce_queue_age_seconds", "Since when the first of them waits.", self.queue.age_s())
        yield _gauge("runonce_experiments", "Experiments in the cache.", len(self.world.experiments))
        jobs = GaugeMetricFamily("runonce_jobs", "Jobs in the cache.", labels=["state"])
        for state, count in sorted(Counter(_state(job) for job in self.jobs.all()).items()):
            jobs.add_metric([state], count)
        yield jobs
        ages = GaugeMetricFamily("runonce_watch_age_seconds", "Since a watch gave a byte.", labels=["resource"])
        ages.add_metric(["experiments"], self.clock() - self.world.experiments.heard_at)
        ages.add_metric(["jobs"], self.clock() - self.jobs.heard_at)
        yield ages
        yield _gauge("runonce_leader", "1 while this process leads.", float(self.leads()))

    def text(self) -> bytes:
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)


def counted(backend: Backend, calls: Counter[str]) -> Backend:
    """The same store, with its calls counted by name."""
    return cast(Backend, _Counted(backend, calls))


class _Counted:
    def __init__(self, backend: Backend, calls: Counter[str]) -> None:
        self._backend, self._calls = backend, calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._backend, name)
        if callable(found):
            self._calls[name] += 1
        return found


def _state(job: JobObject) -> str:
    if job.metadata.deletion_timestamp:
        return "ending"
    true = {condition.type for condition in job.status.conditions if condition.status == "True"}
    if "Complete" in true or "Failed" in true:
        return "complete" if "Complete" in true else "failed"
    return "suspended" if job.spec.suspend else "active"


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
