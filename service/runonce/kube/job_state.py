"""A Job and its pods as decisions see them, and the record of its round that a Job carries. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from runonce.experiment.blame import ENDED_WITH_GROUP, NO_PROGRAM, OVERTIME, POD_LOST, ordered, reason_of
from runonce.experiment.contract import STOPPED
from runonce.experiment.job import Failure, JobState, Owner, Round
from runonce.experiment.spec import KIND
from runonce.experiment.status import MAX_ROUND, stored_bytes
from runonce.kube.objects import JobObject, PodObject
from runonce.kube.resources import CACHE_KEY, QUEUE, ROUND

MAX_LOST = 20  # indexes without a pod that are named

_INDEX = "batch.kubernetes.io/job-completion-index"
_SIGNALLED = (137, 143)
# As runc and crun say it. What else is a StartError (a driver's hook, a full node) may go better at the next try.
_NOT_IN_IMAGE = re.compile(r'exec: ("[^"\n]*": .*)|executable file (.* not found .*)')


def job_state(job: JobObject, pods: Iterable[PodObject] = (), *, failures: tuple[Failure, ...] = ()) -> JobState:
    """What a Job and its pods say. pods: needed only once it fails; failures: what they said earlier."""
    status, spec = job.status, job.spec
    true = {condition.type: condition for condition in status.conditions if condition.status == "True"}
    succeeded = indexes(status.completed_indexes)
    failing = "FailureTarget" in true or "Failed" in true
    if job.metadata.deletion_timestamp:
        phase = "ending"
    elif "Complete" in true:
        phase = "complete"
    else:
        phase = "failed" if "Failed" in true else "active"
    if failing and not failures:
        reason = (true.get("Failed") or true["FailureTarget"]).reason
        failures = _failures(job, list(pods), succeeded, reason)
    due = min(spec.parallelism, spec.completions - len(succeeded) - len(indexes(status.failed_indexes)))
    return JobState(
        name=job.metadata.name,
        uid=job.uid,
        cache_key=job.metadata.annotations.get(CACHE_KEY, ""),
        completions=spec.completions,
        round=decode_round(job.metadata.annotations.get(ROUND)),
        owners=tuple(Owner(uid=o.uid, name=o.name) for o in job.metadata.owner_references if o.kind == KIND),
        phase=phase,  # type: ignore[arg-type]
        failing=failing and phase == "active",
        active=status.active,
        ready=status.ready,
        missing=0 if spec.suspend or phase != "active" else max(0, due - status.active - status.terminating),
        succeeded=succeeded,
        failures=failures,
        suspended=spec.suspend,
        ttl_s=spec.ttl_seconds_after_finished,
        queued=QUEUE in job.metadata.labels,
        started=status.start_time or "",
        terminating=status.terminating,
    )


def _failures(job: JobObject, pods: list[PodObject], succeeded: tuple[int, ...], reason: str) -> tuple[Failure, ...]:
    coupled = job.spec.backoff_limit_per_index is None
    grouped = job.spec.completions > 1
    of_index: dict[int, list[PodObject]] = {}
    for pod in pods:
        of_index.setdefault(index_of(pod), []).append(pod)
    found, lost = [], []
    # An index that a FailJob rule ended is in no list of failed ones: then the pods say which.
    unfinished = set(range(job.spec.completions)) - set(succeeded)
    wanted = unfinished if coupled else set(indexes(job.status.failed_indexes)) or unfinished & set(of_index)
    for index in sorted(wanted):
        seen = [failure for pod in of_index.get(index, ()) if (failure := _failure(pod, grouped=grouped)) is not None]
        if not coupled:  # disruptions were tried again; what counts is why the index failed
            seen = [failure for failure in seen if failure.reason != "DisruptionTarget"] or seen
        found += seen[-1:]
        if coupled and not of_index.get(index):
            lost.append(Failure(index=index, exit_code=None, reason=POD_LOST))
    found = list(ordered(found))
    if reason == OVERTIME:
        found.insert(0, Failure(index=-1, exit_code=None, reason=reason))
        lost = []
    return (*found, *lost[:MAX_LOST])


def _failure(pod: PodObject, *, grouped: bool) -> Failure | None:
    """Why this pod did not end well; None where it did, or still runs undisturbed. grouped: it was not the only one."""
    if pod.status.phase == "Succeeded":
        return None
    disrupted = any(c.type == "DisruptionTarget" and c.status == "True" for c in pod.status.conditions)
    ended = [c.state.terminated for c in pod.status.container_statuses if c.state.terminated is not None]
    bad = next((state for state in ended if state.exit_code), None)
    if not disrupted and pod.status.phase != "Failed":
        return None
    code = bad.exit_code if bad is not None else None
    reason = pod.status.reason or (bad.reason if bad is not None else "") or "Error"
    if disrupted:
        reason = "DisruptionTarget"
    elif pod.metadata.deletion_timestamp and code in (*_SIGNALLED, STOPPED):
        reason = ENDED_WITH_GROUP if grouped else POD_LOST
    elif code is not None and reason == "Error":
        reason = reason_of(code)
    tail = (bad.message if bad is not None else "") or pod.status.message
    if reason == "StartError" and (found := _NOT_IN_IMAGE.search(tail)):
        reason, tail = NO_PROGRAM, f"the image has no such program: {found[1] or found[2]}"
    return Failure(index=index_of(pod), exit_code=code, reason=reason, log_tail=tail)


def indexes(text: str) -> tuple[int, ...]:
    """`0,2-4` to `(0, 2, 3, 4)`."""
    out: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        out += range(int(first), int(last or first) + 1)
    return tuple(out)


def encode_round(data: Round) -> str:
    return json.dumps(data.to_json(), sort_keys=True, separators=(",", ":"))


def mirrored(data: Round, owner: Owner) -> str:
    """The record as a status keeps it: for a next attempt of this owner, and short; of requests the newest stay."""
    charges = data.charges if len(data.charges) <= 10 else {owner.uid: data.charges.get(owner.uid, 0)}
    tokens = data.tokens[-8:]
    while stored_bytes(text := encode_round(replace(data, charges=charges, tokens=tokens))) > MAX_ROUND and tokens:
        tokens = tokens[1:]
    return text


def decode_round(text: str | None) -> Round:
    """The record on a Job; one that cannot be read is as none: its round has a name that no shard has."""
    try:
        value: Mapping[str, Any] = json.loads(text or "")
        return Round.from_json(value)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Round(round="unreadable")


def index_of(pod: PodObject) -> int:
    """Which process it is; -1 where it does not say."""
    text = pod.metadata.annotations.get(_INDEX) or pod.metadata.labels.get(_INDEX) or "-1"
    return int(text) if text.lstrip("-").isdecimal() else -1
