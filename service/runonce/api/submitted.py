"""Experiments on a cluster as calls: what `runonce submit` does, from a program or a notebook."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from runonce.api.changes import axes_of, changes_of
from runonce.api.cluster import commit_of, find_one, follow, status_of
from runonce.api.hand_over import code_store, hand_over, namespace_of
from runonce.api.results import Result
from runonce.api.target import Target, locate_given
from runonce.errors import InputError, RunFailed
from runonce.experiment.status import ModeStatus, Status
from runonce.kube.objects import ExperimentObject
from runonce.kube.transport import Api
from runonce.settings import Settings


class Submitted:
    """One Experiment of a cluster. What it says of its state is asked for each time.

    Everything that asks raises InputError where there is no such Experiment any more, ApiError where the server does
    not answer.
    """

    def __init__(self, api: Api, found: ExperimentObject, point: Mapping[str, Any]) -> None:
        self._api, self._found, self._point = api, found, dict(point)

    @property
    def name(self) -> str:
        return self._found.metadata.name

    @property
    def namespace(self) -> str:
        return self._found.metadata.namespace

    @property
    def point(self) -> Mapping[str, Any]:
        """What the grid put in, by dotted name, as a file holds it; empty without a grid."""
        return dict(self._point)

    @property
    def phase(self) -> str:
        """Pending, Running, Suspended, Blocked, Failed or Succeeded."""
        return self._status().phase

    @property
    def message(self) -> str:
        """Why it is so; empty where there is nothing to say."""
        return self._status().message

    @property
    def is_hit(self) -> bool:
        """Whether all of it was in the store."""
        return bool(self._status().cached)

    def wait(self, timeout_s: float | None = None) -> str:
        """Wait until it has ended, or for timeout_s seconds; the phase that it is then in. A failure raises nothing."""
        last = follow(self._api, self.namespace, [self._found], lambda name, status: None, timeout_s=timeout_s)
        return last.get(self.name, Status()).phase

    def result(self, mode: str, *, store: str | None = None) -> Result:
        """The result of one mode. store: URL; that which the cluster names, if not given.

        Raises RunFailed, with the end of the log, where the mode failed; InputError where it has no result yet.
        """
        one: ModeStatus | None = getattr(self._status().modes, mode, None)
        if one is not None and one.phase in ("Failed", "Blocked"):
            tail = one.failure.log_tail.strip() if one.failure is not None else ""
            why = ": ".join(part for part in (one.phase, one.message) if part)
            raise RunFailed(f"{self.name} has no result of {mode}: {why}" + (f"\n{tail}" if tail else ""))
        backend, commit = commit_of(self.name, mode, one, store or "")
        return Result(backend, commit)

    def __repr__(self) -> str:
        return f"<Submitted {self.namespace}/{self.name}>"

    def _status(self) -> Status:
        """Of the spec as it was submitted, or of a later one; not of an earlier one."""
        found = find_one(self._api, self.namespace, self.name)
        status = status_of(found)
        seen = status.observed_generation >= self._found.metadata.generation
        return status if seen and found.uid == self._found.uid else Status()


def submit(
    target: Target,
    params: Mapping[str, Any] | None = None,
    *,
    grid: Mapping[str, Iterable[Any]] | None = None,
    namespace: str | None = None,
    context: str | None = None,
    kubeconfig: str | None = None,
    with_source: bool = False,
    store: str | None = None,
) -> list[Submitted]:
    """Hand the experiments of the target to a cluster, at every point of the grid; does not wait for their end.

    target, params, grid: as for `sweep`. namespace, context, kubeconfig: as kubectl has them. with_source: keep the
    code in `store` (RUNONCE_STORE, if not given), the URL of the store that the cluster's pods use.

    All are checked before the first is sent. Raises InputError for what cannot be, or what the server refuses; ApiError
    where it does not answer: those before are then submitted, and the same call goes on.
    """
    settings = Settings.from_env()
    path = list(sys.path)
    try:
        found = locate_given(target, changes_of(params or {}), axes_of(grid or {}))
        if store is not None and not with_source:
            raise InputError.of(
                "store", "is only for with_source.", "On a cluster spec.store names the store of results."
            )
        code_to = code_store(store or settings.store) if with_source else None
        api = Api.connect(context=context, kubeconfig=kubeconfig)
        where = namespace_of(found, namespace, api.namespace)
        submitted = hand_over(found, api, where, settings, code_to=code_to)
    finally:
        sys.path[:] = path  # a caller's own; what a target needs was put first
    return [Submitted(api, one, located.point) for one, located in zip(submitted, found, strict=True)]
