"""The status of an Experiment as a pass found it and as it writes it: at its end, and before an attempt is replaced."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from runonce.controller.status import Subject, View, build_status, only_counts_differ, read_status, to_value
from runonce.controller.world import World
from runonce.experiment.spec import API_VERSION, KIND, RERUN
from runonce.experiment.status import Status
from runonce.kube.objects import ExperimentObject

COUNTS_EVERY_S = 60.0


class Written:
    """before: as it was found. now: as it stands."""

    def __init__(self, found: ExperimentObject, world: World) -> None:
        self._found, self._world = found, world
        self.before = self.now = read_status(found.status_value(), found.uid)
        self._version = found.metadata.resource_version

    def subject(
        self,
        digest: str,
        accepted: tuple[str, str] = ("Accepted", ""),
        *,
        rejected: bool = False,
        modes: tuple[str, ...] = (),
    ) -> Subject:
        return Subject(
            uid=self._found.uid,
            generation=self._found.metadata.generation,
            digest=digest,
            rerun=self._found.metadata.annotations.get(RERUN, ""),
            now=_now(),
            accepted=accepted,
            rejected=rejected,
            modes=modes,
        )

    def write(self, subject: Subject, views: Sequence[View], *, passing: bool) -> float | None:
        """Unless all is said already. passing: what is waited for lasts a moment. When to look again, if ever."""
        status = build_status(subject, views, self.now)
        if to_value(status) == to_value(self.now):
            return None
        if passing and self.now.observed_generation == subject.generation:
            return None
        now = time.monotonic()
        if only_counts_differ(status, self.now):
            shown = self._world.shown.get(self._found.uid)
            if shown is not None and now - shown < COUNTS_EVERY_S:
                return COUNTS_EVERY_S
        self.put(status)
        self._world.shown[self._found.uid] = now
        self._tell(status)
        return None

    def put(self, status: Status) -> None:
        """Raises Conflict when the object has changed since it was read, NotFound when it has gone."""
        meta = self._found.metadata
        path = f"/apis/{API_VERSION}/namespaces/{meta.namespace}/experiments/{meta.name}/status"
        metadata = {"name": meta.name, "namespace": meta.namespace, "resourceVersion": self._version}
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "status": to_value(status)}
        written = ExperimentObject.read(self._world.api.apply(path, body).body)
        self._version = written.metadata.resource_version
        self.now = status
        self._world.experiments.learn(written)

    def _tell(self, status: Status) -> None:
        if status.phase == "Failed" and self.before.phase != "Failed":
            self._world.events.warn(self._found, "Failed", status.message)
        elif status.phase == "Succeeded" and not status.cached and self.before.phase != "Succeeded":
            self._world.events.tell(self._found, "Succeeded", f"made by {status.job}" if status.job else "made")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
