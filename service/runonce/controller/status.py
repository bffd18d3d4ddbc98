"""From decisions to the status that people and tools read. Pure: one table each for phase and conditions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import ValidationError

from runonce.controller import decide as rules
from runonce.controller.decide import Decision
from runonce.controller.size import clip, shortened, tail
from runonce.errors import InputError
from runonce.experiment.blame import HUNG, named
from runonce.experiment.job import Failure, JobState, Round
from runonce.experiment.phase import Phase, phase_of
from runonce.experiment.status import (
    MAX_HISTORY,
    MAX_MESSAGE,
    MAX_STATUS,
    Condition,
    FailureStatus,
    HistoryEntry,
    ModeStatus,
    ModeStatuses,
    PhaseName,
    Status,
    stored_bytes,
)

Truth = Literal["True", "False", "Unknown"]
MAX_REASON = 64
_NO_REASON = re.compile("[^A-Za-z0-9_,:]")  # a kubelet says OutOfnvidia.com/gpu, which no condition's reason may be


@dataclass(frozen=True, kw_only=True)
class View:
    """One mode after a pass. job: where this Experiment is an owner of it. total, gpus: of its Job. logs: the command
    that shows what its processes wrote, but for the number of one.
    """

    mode: str
    cache_key: str
    decision: Decision
    job: JobState | None
    job_name: str
    total: int
    gpus: int
    store: str
    logs: str = ""
    round: str = ""  # JSON of the round that counts
    missed: str = ""  # what its nearest earlier result differs in


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What the status is of. changed: what to say of Accepted, as (reason, message)."""

    uid: str
    generation: int
    digest: str
    rerun: str
    now: str
    accepted: tuple[str, str] = ("Accepted", "")
    rejected: bool = False
    trouble: str = ""  # an error of the store, tried again
    trouble_reason: str = "StoreError"
    modes: Sequence[str] = field(default_factory=tuple)


def read_status(value: Mapping[str, Any], uid: str) -> Status:
    """The status as it stands; an empty one where it is of another object, or cannot be read."""
    try:
        status = Status.model_validate(value, by_alias=True, strict=False)
    except ValidationError:
        return Status()
    return status if status.uid == uid else Status()


def to_value(status: Status) -> dict[str, Any]:
    """As it is written: all that is owned, each time, or the server would drop what is left out. At most MAX_STATUS."""
    value = _without_defaults(status.model_dump(mode="json", by_alias=True, exclude_none=True))
    for limit in (512, 256, 128):  # the last is enough for whatever this module puts into a status
        if stored_bytes(value) <= MAX_STATUS:
            return value
        value = {name: shortened(name, entry, limit) for name, entry in value.items()}
    if stored_bytes(value) > MAX_STATUS:  # somebody else wrote into the one before
        value = {name: entry for name, entry in value.items() if name not in ("history", "modes")}
    return value


def mode_phase(view: View) -> Phase:
    match view.decision:
        case rules.Hit():
            return Phase.SUCCEEDED
        case rules.Skip():
            return Phase.SKIPPED
        case rules.Block():
            return Phase.BLOCKED
        case rules.Fail():
            return Phase.FAILED
        case rules.Pause() | rules.Suspend(_, True):
            return Phase.SUSPENDED
    job = view.job
    running = job is not None and job.phase == "active" and (job.ready > 0 or len(job.succeeded) > 0)
    return Phase.RUNNING if running else Phase.PENDING


def mode_status(view: View, before: ModeStatus | None, now: str) -> ModeStatus:
    """One mode. What is known of an earlier failure of the same key stays until another takes its place."""
    same = before if before is not None and before.cache_key == view.cache_key else ModeStatus()
    phase, job = mode_phase(view), view.job
    ended = phase in (Phase.SUCCEEDED, Phase.FAILED)
    attempt = job.round.attempt if job is not None else same.attempt
    # What is suspended and has no Job any more, or one that goes, has let go of it: nobody has deleted that.
    let_go = phase is Phase.SUSPENDED and (job is None or job.phase == "ending")
    status = ModeStatus(
        phase=_name(phase),
        reason=clip(_reason(view, phase), MAX_REASON),
        message=clip(_message(view, phase)),
        cache_key=view.cache_key,
        job=view.job_name if job is not None or same.job else "",
        job_uid="" if let_go else job.uid if job is not None else same.job_uid,
        attempt=attempt,
        round=view.round or same.round,
        total=view.total,
        active=job.active if job is not None and not ended else 0,
        succeeded=len(job.succeeded) if job is not None else same.succeeded,
        start_time=same.start_time or (now if phase is Phase.RUNNING else ""),
        end_time=(same.end_time or now) if ended else "",
        failure=_failure(view, same, attempt),
    )
    match view.decision:
        case rules.Hit(commit, cached):
            artifacts = clip(f"{view.store}#{commit.manifest}")
            hit = {"cache_hit": cached, "artifacts": artifacts, "manifest": commit.manifest, "failure": None}
            return status.model_copy(update=hit)
        case rules.Create(round_) | rules.Replace(round_) if job is None:
            return status.model_copy(update={"job_uid": "", "attempt": round_.attempt})
    return status


def closed(before: ModeStatus, round_: Round, text: str, failures: Iterable[Failure]) -> ModeStatus:
    """The status that says so before attempt N is deleted and N+1 made: no uid, and the record of the next."""
    first = next(iter(failures), None)
    failure = _failure_status(first, max(1, round_.attempt - 1)) if first is not None else before.failure
    changes = {"phase": "Pending", "job_uid": "", "attempt": round_.attempt, "round": text, "failure": failure}
    return before.model_copy(update=changes | {"active": 0, "end_time": "", "message": "", "reason": "NextAttempt"})


def between_attempts(subject: Subject, mode: str, entry: ModeStatus, before: Status) -> Status:
    """What is written before an attempt is deleted. entry: of its mode, `closed`; all else stays as it was."""
    seen = before.observed_generation if before.observed_generation >= 0 else subject.generation
    known = next((known for known in before.conditions if known.type == "Accepted" and known.status == "True"), None)
    accepted = (known.reason, known.message) if known is not None else subject.accepted
    changes = {"observed_generation": seen, "uid": subject.uid, "phase": "Pending", "message": "", "mode": mode}
    shown = {"cached": None, "key": entry.cache_key[:12], "job": entry.job}
    modes = before.modes.model_copy(update={mode: entry})
    status = before.model_copy(update=changes | shown | {"modes": modes})
    as_of = replace(subject, generation=seen, accepted=accepted)
    return status.model_copy(
        update={"conditions": conditions(as_of, status, Phase.PENDING, before, why_missed(before))}
    )


def build_status(subject: Subject, views: Sequence[View], before: Status) -> Status:
    """The whole status of a pass. views: of the modes that were looked at, in order; later ones wait."""
    old = {mode: getattr(before.modes, mode) for mode in ("train", "valid", "test")}
    modes: dict[str, ModeStatus] = {}
    for view in views:
        modes[view.mode] = mode_status(view, old[view.mode], subject.now)
    for mode in subject.modes:
        if mode not in modes:
            waits = old[mode] if old[mode] is not None and subject.trouble else ModeStatus(message="waits for its turn")
            modes[mode] = waits
    phase = Phase.FAILED if subject.rejected else phase_of(Phase(status.phase) for status in modes.values())
    if subject.trouble and not views:
        phase = Phase(before.phase)
    mode = _speaking(views, phase)
    shown = modes.get(mode, ModeStatus())
    hits = [status.cache_hit for status in modes.values() if status.cache_hit is not None]
    message = subject.trouble or (subject.accepted[1] if subject.rejected else shown.message)
    gpus = next((view.gpus for view in views if view.mode == mode), 0)
    status = Status(
        observed_generation=subject.generation,
        uid=subject.uid,
        spec_digest=subject.digest,
        rerun=clip(subject.rerun, 256),
        phase=_name(phase),
        message=clip(message),
        mode=mode,
        cached=all(hits) if hits and phase is Phase.SUCCEEDED else None,
        key=shown.cache_key[:12],
        gpus=gpus,
        job=shown.job,
        modes=ModeStatuses(**modes),
        history=_history(before, modes),
    )
    missed = next((view.missed for view in reversed(views) if view.missed), _still_missed(before, modes))
    return status.model_copy(update={"conditions": conditions(subject, status, phase, before, missed)})


def why_missed(status: Status) -> str:
    """`<mode>: <why it had to be made>`, of the mode of which it was looked for last."""
    return next((known.message for known in status.conditions if known.type == "CacheHit"), "")


def _still_missed(before: Status, modes: Mapping[str, ModeStatus]) -> str:
    """What was said of it, as long as the mode that it is of has that key."""
    missed = why_missed(before)
    mode = missed.partition(":")[0]
    old: ModeStatus | None = getattr(before.modes, mode, None) if mode in modes else None
    return missed if old is not None and old.cache_key == modes[mode].cache_key else ""


def conditions(
    subject: Subject, status: Status, phase: Phase, before: Status, missed: str = ""
) -> tuple[Condition, ...]:
    """What `kubectl wait`, kstatus and Argo CD go by; Reconciling and Stalled are there only when true."""
    shown = getattr(status.modes, status.mode, None) if status.mode else None
    reason = (shown.reason if shown is not None else "") or phase.value
    if subject.trouble:
        reason = subject.trouble_reason
    if subject.rejected:
        reason = subject.accepted[0]
    message = status.message
    finished = phase is Phase.SUCCEEDED and not subject.trouble
    stalled = phase in (Phase.FAILED, Phase.BLOCKED)
    found: list[tuple[str, Truth, str, str]] = [
        ("Accepted", "False" if subject.rejected else "True", *subject.accepted),
        ("Ready", "True" if finished else "False", reason, message),
        ("Running", "True" if phase is Phase.RUNNING else "False", reason, message),
        ("Succeeded", "True" if phase is Phase.SUCCEEDED else "False", reason, message),
        ("Failed", "True" if phase is Phase.FAILED else "False", reason, message),
    ]
    if status.cached:
        found.append(("CacheHit", "True", "CacheHit", ""))
    elif missed or status.cached is not None:
        found.append(("CacheHit", "False", "Missed" if status.cached is None else "Made", missed))
    if subject.trouble or phase in (Phase.PENDING, Phase.RUNNING):
        found.append(("Reconciling", "True", reason, message))
    elif stalled:
        found.append(("Stalled", "True", reason, message))
    old = {condition.type: condition for condition in before.conditions}
    return tuple(_condition(subject, entry, old.get(entry[0])) for entry in found)


def rejection(error: InputError) -> tuple[str, str]:
    return error.reason or "Invalid", clip(str(error))


def only_counts_differ(first: Status, second: Status) -> bool:
    """Whether nothing is new but how many processes run or are done: not worth a write each time."""
    return _uncounted(first) == _uncounted(second)


def _uncounted(status: Status) -> dict[str, Any]:
    value = to_value(status)
    for mode in value.get("modes", {}).values():
        for name in ("active", "succeeded"):
            mode.pop(name, None)
    return value


def _condition(subject: Subject, entry: tuple[str, Truth, str, str], old: Condition | None) -> Condition:
    kind, truth, reason, message = entry
    since = old.last_transition_time if old is not None and old.status == truth else subject.now
    return Condition(
        type=kind,
        status=truth,
        observed_generation=subject.generation,
        last_transition_time=since,
        reason=clip(_NO_REASON.sub("", reason), MAX_REASON) or "Unknown",
        message=clip(message, MAX_MESSAGE if kind in ("Ready", "Accepted") else MAX_MESSAGE // 5),
    )


def _speaking(views: Sequence[View], phase: Phase) -> str:
    """The mode that the phase comes from; the last one where all are done."""
    if not views:
        return ""
    return next((view.mode for view in views if mode_phase(view) is phase), views[-1].mode)


def _history(before: Status, modes: Mapping[str, ModeStatus]) -> tuple[HistoryEntry, ...]:
    """What this name had under other keys, the newest last."""
    out = list(before.history)
    for mode in ("train", "valid", "test"):
        old: ModeStatus | None = getattr(before.modes, mode)
        new = modes.get(mode)
        moved = old is not None and old.cache_key and (new is None or new.cache_key not in ("", old.cache_key))
        if old is not None and moved and old.phase in ("Succeeded", "Failed"):
            out.append(HistoryEntry(mode=mode, cache_key=old.cache_key, phase=old.phase, end_time=old.end_time))
    return tuple(out[-MAX_HISTORY:])


def _with_job(view: View) -> bool:
    """Whether all that is to be said is where its Job stands: the same right after the POST as a pass later."""
    plain = isinstance(view.decision, rules.Create | rules.Replace | rules.Join | rules.Record | rules.Suspend)
    plain = plain or (isinstance(view.decision, rules.Wait) and view.decision.cause == "Running")
    return plain and view.job is not None and view.job.phase == "active"


def _reason(view: View, phase: Phase) -> str:
    if _with_job(view) and phase in (Phase.PENDING, Phase.RUNNING):
        return "Running" if phase is Phase.RUNNING else "JobCreated"
    match view.decision:
        case rules.Hit(_, cached):
            return "CacheHit" if cached else "Succeeded"
        case rules.Skip():
            return "Skipped"
        case rules.Block(_, cause):
            return cause
        case rules.Fail(reason, _):
            return reason
        case rules.Pause() | rules.Suspend(_, True):
            return "Suspended"
        case rules.Wait(_, cause):
            return cause
        case rules.Join():
            return "SharedJob"
    return "JobCreated"


def _message(view: View, phase: Phase) -> str:
    if _with_job(view) and phase in (Phase.PENDING, Phase.RUNNING):
        if phase is Phase.RUNNING:
            return ""
        queued = view.job is not None and view.job.queued and view.job.suspended
        return "its Job waits until its queue lets it begin" if queued else "its Job is there, and no pod runs yet"
    match view.decision:
        case rules.Hit(commit, cached):
            other = f"made with nprocesses={commit.total}" if cached and view.total not in (0, commit.total) else ""
            left = f"left to the code's defaults: {', '.join(commit.missing)}" if commit.missing else ""
            return "; ".join(filter(None, (other, left)))
        case rules.Skip(reason) | rules.Block(reason) | rules.Pause(reason) | rules.Wait(reason):
            return reason
        case rules.Fail(reason, failures):
            index = failures[0].index
            return _told(reason, failures) + (f" (logs: {view.logs} --index {index})" if index >= 0 else "")
    return ""


def _told(reason: str, failures: Sequence[Failure]) -> str:
    first = failures[0]
    rank = f"process {first.index}" if first.index >= 0 else "the Job"
    code = "" if first.exit_code is None else f" (exit code {first.exit_code})"
    text = named(first)[1] or next((named(other)[1] for other in failures[1:]), "")
    return f"{rank} ended with {reason}{code}" + (f": {text}" if text else "")


def _failure(view: View, same: ModeStatus, attempt: int) -> FailureStatus | None:
    failures: Sequence[Failure] = ()
    if isinstance(view.decision, rules.Fail):
        failures = view.decision.failures
    elif view.job is not None and (view.job.failing or view.job.phase == "failed"):
        failures = view.job.failures
    if not failures:
        return same.failure
    first = _failure_status(failures[0], max(attempt, 1))
    # After a restart the pods may be gone; what they told before is more, unless it is what shows that another hung.
    known = same.failure
    gone = first.exit_code is None and first.reason != HUNG
    return known if known is not None and gone and known.attempt == first.attempt else first


def _failure_status(failure: Failure, attempt: int) -> FailureStatus:
    return FailureStatus(
        index=failure.index,
        exit_code=failure.exit_code,
        reason=clip(failure.reason, MAX_REASON) or "Error",
        log_tail=tail(failure.log_tail),
        attempt=attempt,
    )


def _name(phase: Phase) -> PhaseName:
    name: PhaseName = phase.value
    return name


# Zero says something here, and a condition without a message is one.
_SPOKEN = ("observedGeneration", "exitCode", "index", "total")


def _without_defaults(value: dict[str, Any]) -> dict[str, Any]:
    """Empty texts, lists and zero counts say nothing."""
    out: dict[str, Any] = {}
    for name, entry in value.items():
        if isinstance(entry, dict):
            inner = _without_defaults(entry)
            if inner:
                out[name] = inner
        elif entry is False or name in _SPOKEN or entry not in ("", 0, []):
            out[name] = entry
    return out
