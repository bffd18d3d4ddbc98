"""One Experiment on a real API server, and a controller whose passes a test takes one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from control_plane import wait_for
from place import Place, condition, publish

from runonce.controller.main import Controller
from runonce.controller.passes import look

# What is true in each phase; CacheHit besides, where the result was there.
TRUE = {
    "Pending": {"Accepted", "Reconciling"},
    "Running": {"Accepted", "Running", "Reconciling"},
    "Suspended": {"Accepted"},
    "Succeeded": {"Accepted", "Ready", "Succeeded"},
    "Blocked": {"Accepted", "Stalled"},
    "Failed": {"Accepted", "Failed", "Stalled"},
}
STRATEGIC = "application/strategic-merge-patch+json"
HELD = "example.org/held"
Row = tuple[str, str, int]  # phase, reason, attempt


class Stage:
    """One Experiment, `it`, and a controller whose passes the test takes. rows: those that were due, in order."""

    def __init__(self, place: Place, controller: Controller, clock: Any, patch: pytest.MonkeyPatch) -> None:
        self.place, self._controller, self._clock, self.patch = place, controller, clock, patch
        self.rows: list[Row] = []

    def apply(self, **changes: Any) -> None:
        self.place.apply("it", **changes)

    def later(self, seconds: float) -> None:
        self._clock.go_on(self._controller, seconds)

    def job(self, **wanted: Any) -> dict[str, Any]:
        """The Job, as soon as its status is so; a condition is named with what it is."""

        def so() -> dict[str, Any] | None:
            jobs = self.place.jobs()
            return jobs[0] if jobs and all(_has(jobs[0], name, value) for name, value in wanted.items()) else None

        return wait_for(f"a Job with {wanted}", so)

    def pods(self, count: int = 2) -> list[dict[str, Any]]:
        found = self.place.pods(count)
        self.job(active=count)
        return found

    def start(self, pod: dict[str, Any]) -> None:
        self.place.kubelet.start(pod)

    def run(self, *pods: dict[str, Any], attempt: int = 1) -> None:
        """All that the Job has start, and it is seen."""
        for pod in pods:
            self.start(pod)
        self.job(ready=len(pods))
        self.sees("Running", "Running", attempt=attempt)

    def end(self, pod: dict[str, Any], code: int = 0, **how: Any) -> None:
        if code == 0:
            publish(self.place.backend, pod)
        self.place.kubelet.end(pod, code, **how)

    def hold(self, pod: dict[str, Any]) -> Callable[[], None]:
        """Its object stays until what this returns is called, and with it its Job."""
        path = f"/api/v1/namespaces/{self.place.namespace}/pods/{pod['metadata']['name']}"

        def patch(metadata: dict[str, Any]) -> None:
            self.place.api.must("PATCH", path, {"metadata": metadata}, content=STRATEGIC)

        patch({"finalizers": [HELD]})
        return lambda: patch({"$deleteFromPrimitiveList/finalizers": [HELD]})

    def clear(self) -> None:
        """The pods that are to go have gone."""

        def gone() -> bool:
            for pod in self.place.kubelet.pods(self.place.namespace):
                if "deletionTimestamp" in pod["metadata"]:
                    self.place.kubelet.remove(pod)
            return not any("deletionTimestamp" in job["metadata"] for job in self.place.jobs())

        wait_for("no Job that ends", gone)

    def sees(self, phase: str, reason: str, attempt: int = 1, mode: str = "train") -> dict[str, Any]:
        """One pass over what is there now; then its status, which another pass leaves as it is."""
        status = self._comes(phase, reason, attempt, TRUE[phase])
        assert status["modes"][mode]["reason"] == reason
        return status

    def refuses(self, reason: str) -> dict[str, Any]:
        """The pass finds the spec to be none."""
        status = self._comes("Failed", reason, 0, {"Failed", "Stalled"})
        assert condition(status, "Accepted")["reason"] == reason
        return status

    def waits_for_the_store(self, phase: str) -> dict[str, Any]:
        """It does not answer: what is known stays, and is tried again."""
        return self._comes(phase, "StoreError", 0, TRUE[phase] | {"Reconciling"})

    def _comes(self, phase: str, reason: str, attempt: int, true: set[str]) -> dict[str, Any]:
        status = self._after_a_pass()
        self.rows.append((phase, reason, attempt))
        assert row_of(status) == (phase, reason, attempt), status
        assert {entry["type"] for entry in status["conditions"] if entry["status"] == "True"} - {"CacheHit"} == true
        assert status["observedGeneration"] == self.place.get("it")["metadata"]["generation"]
        assert self._after_a_pass() == status
        return status

    def look_at(self, name: str) -> None:
        """A pass over another one."""
        wait_for("fresh caches", lambda: self._fresh(name))
        look(f"{self.place.namespace}/{name}", self._controller._world)

    def _after_a_pass(self) -> dict[str, Any]:
        self.look_at("it")
        return self.place.status("it")

    def _fresh(self, name: str) -> bool:
        jobs = {job["metadata"]["uid"]: int(job["metadata"]["resourceVersion"]) for job in self.place.jobs()}
        known = {job.uid: job.version for job in self._controller._job_cache.all()}
        found = self._controller._experiments.get(f"{self.place.namespace}/{name}")
        there = _version(self.place.get(name))
        return jobs == known and found is not None and found.metadata.resource_version == there


def _version(found: dict[str, Any]) -> str:
    return str(found["metadata"]["resourceVersion"])


def _has(job: dict[str, Any], name: str, value: Any) -> bool:
    if name[0].isupper():
        found = next((c["status"] == "True" for c in job["status"].get("conditions", ()) if c["type"] == name), False)
        return found == value
    return job["status"].get(name, 0) == value


def row_of(status: dict[str, Any]) -> Row:
    """As conditions tell it, which is what waits for them goes by; the attempt of the mode that speaks, if one does."""
    mode = (status.get("modes") or {}).get(status.get("mode", ""), {})
    return status["phase"], condition(status, "Ready")["reason"], mode.get("attempt", 0)
