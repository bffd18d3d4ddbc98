"""The status of an Experiment, as a resource has it: the CRD is generated from this model, the controller fills it.

Every list and text has a bound, and the whole has one too: MAX_STATUS.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

MAX_STATUS = 16 * 1024  # bytes, as the server stores it; so are MAX_ROUND, MAX_MESSAGE and MAX_LOG_TAIL
MAX_ROUND = 2048
MAX_MESSAGE = 640
MAX_LOG_TAIL = 1024
MAX_HISTORY = 8

Short = Annotated[str, Field(max_length=256)]
Message = Annotated[str, Field(max_length=MAX_MESSAGE)]
PhaseName = Literal["Pending", "Running", "Suspended", "Blocked", "Skipped", "Failed", "Succeeded"]

_ESCAPED_BY_GO = re.compile("[<>&\u2028\u2029]")


def stored_bytes(value: Any) -> int:
    """What a value takes in the API server: as JSON, where Go writes six bytes for what HTML gives a meaning to."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return len(_ESCAPED_BY_GO.sub("6bytes", text).encode("utf-8", "replace"))


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Condition(_Model):
    """As metav1.Condition has it; lists of them are maps by type."""

    type: Short
    status: Literal["True", "False", "Unknown"]
    observed_generation: int = 0
    last_transition_time: Short = ""
    reason: Short
    message: Message = ""


class FailureStatus(_Model):
    """What is known of the process that ended a mode, or its last attempt. index: -1 where no process is to blame."""

    index: int
    exit_code: int | None = None
    reason: Short
    log_tail: Annotated[str, Field(max_length=MAX_LOG_TAIL)] = ""
    attempt: int = 1


class ModeStatus(_Model):
    """Where one mode stands: its key, the Job of its current attempt, its result or its last failure."""

    # job_uid: none while the next Job is still to be made. round: the record of the Job as JSON, mirrored so that it
    # outlives the Job. manifest: digest of the result. deletions: Jobs in a row that vanished before they ended.
    phase: PhaseName = "Pending"
    reason: Short = ""
    message: Message = ""
    cache_key: Short = ""
    cache_hit: bool | None = None
    job: Short = ""
    job_uid: Short = ""
    attempt: int = 0
    round: Annotated[str, Field(max_length=MAX_ROUND)] = ""
    total: int = 0
    active: int = 0
    succeeded: int = 0
    deletions: int = 0
    start_time: Short = ""
    end_time: Short = ""
    artifacts: Message = ""
    manifest: Short = ""
    failure: FailureStatus | None = None


class ModeStatuses(_Model):
    train: ModeStatus | None = None
    valid: ModeStatus | None = None
    test: ModeStatus | None = None


class HistoryEntry(_Model):
    """A result, or a failure, that this name had under an earlier key."""

    mode: Short
    cache_key: Short
    phase: PhaseName
    end_time: Short = ""


class Status(_Model):
    """How the Experiment stands. What is not of a mode is of that which the phase speaks of."""

    # uid, spec_digest, rerun: of the object that this was computed for; a namesake's status is not believed.
    # mode, cached, key, gpus, job: for the columns of kubectl.
    observed_generation: int = -1
    uid: Short = ""
    spec_digest: Short = ""
    rerun: Short = ""
    phase: PhaseName = "Pending"
    message: Message = ""
    mode: Short = ""
    cached: bool | None = None
    key: Short = ""
    gpus: int = 0
    job: Short = ""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16, strict=False)] = ()
    modes: ModeStatuses = Field(default_factory=ModeStatuses)
    history: Annotated[tuple[HistoryEntry, ...], Field(max_length=MAX_HISTORY, strict=False)] = ()
