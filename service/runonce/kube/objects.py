"""What is kept of the objects that are watched: a few fields each, read from the server's bytes; all else is let go."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from runonce.experiment.canonical import parse
from runonce.experiment.nulls import MAX_LEVELS
from runonce.experiment.spec import API_VERSION, KIND, LAST_APPLIED, RERUN

T = TypeVar("T", bound="Watched")

_KEPT = (RERUN, LAST_APPLIED)


class _Lean(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel, populate_by_name=True)

    @classmethod
    def read(cls, data: bytes) -> Self:
        """From the server's bytes, however deeply they are nested: one object shall not hide the others of its page."""
        try:
            return cls.model_validate_json(data)
        except ValidationError:
            return cls.model_validate_json(shallow(data))


# A resource is the third level of a list; one that is cut here is still deeper than its reader allows, and refused.
_LEVELS = MAX_LEVELS + 3
_BRACKET = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|([\[{])|[\]}]')


def shallow(data: bytes) -> bytes:
    """JSON text, its lists and mappings emptied where no parser goes, so deep are they: pydantic's ends at 200
    levels and Python's at about 1,000, while an API server stores 10,000.
    """
    kept, depth, begin = [], 0, 0
    for found in _BRACKET.finditer(data):
        if found[1]:
            depth += 1
            if depth == _LEVELS:
                kept.append(data[begin : found.end()])
        elif data[found.start()] != ord('"'):
            if depth == _LEVELS:
                begin = found.start()
            depth -= 1
    return b"".join((*kept, data[begin:]))


class OwnerRef(_Lean):
    kind: str
    name: str
    uid: str
    controller: bool | None = None


class Meta(_Lean):
    name: str
    namespace: str = ""
    uid: str
    resource_version: str
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    owner_references: tuple[OwnerRef, ...] = ()


class Watched(_Lean):
    metadata: Meta

    @property
    def key(self) -> str:
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def uid(self) -> str:
        return self.metadata.uid

    @property
    def version(self) -> int:
        """Versions are whole numbers that grow (comparable since Kubernetes 1.35; so they always were)."""
        return int(self.metadata.resource_version)


class Condition(_Lean):
    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None


class JobSpec(_Lean):
    completions: int = 1
    parallelism: int = 1
    suspend: bool = False
    backoff_limit_per_index: int | None = None
    ttl_seconds_after_finished: int | None = None


class JobStatus(_Lean):
    conditions: tuple[Condition, ...] = ()
    active: int = 0
    ready: int = 0
    terminating: int = 0
    succeeded: int = 0
    failed: int = 0
    completed_indexes: str = ""
    failed_indexes: str = ""
    start_time: str | None = None


class JobObject(Watched):
    spec: JobSpec
    status: JobStatus = Field(default_factory=JobStatus)


class _Terminated(_Lean):
    exit_code: int = 0
    reason: str = ""
    message: str = ""


class _Waiting(_Lean):
    reason: str = ""
    message: str = ""


class _State(_Lean):
    terminated: _Terminated | None = None
    waiting: _Waiting | None = None


class _Container(_Lean):
    name: str
    state: _State = Field(default_factory=_State)


class PodStatus(_Lean):
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[_Container, ...] = ()


class _PodSpec(_Lean):
    node_name: str = ""


class PodObject(Watched):
    spec: _PodSpec = Field(default_factory=_PodSpec)
    status: PodStatus = Field(default_factory=PodStatus)

    @property
    def ended(self) -> bool:
        return self.status.phase in ("Succeeded", "Failed")


def _packed(value: Any) -> bytes:
    """JSON text takes a fifth of the memory of the values."""
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


def _annotations_kept(value: Any) -> Any:
    return {name: text for name, text in value.items() if name in _KEPT} if isinstance(value, dict) else value


class _ExperimentMeta(Meta):
    annotations: Annotated[dict[str, str], BeforeValidator(_annotations_kept)] = Field(default_factory=dict)
    labels: Annotated[dict[str, str], BeforeValidator(lambda _: {})] = Field(default_factory=dict)


class ExperimentObject(Watched):
    metadata: _ExperimentMeta
    spec: Annotated[Any, BeforeValidator(_packed)] = b"{}"
    status: Annotated[Any, BeforeValidator(_packed)] = b"{}"

    def document(self) -> dict[str, Any]:
        """The resource as a reader of files would have it; numbers as the API server means them."""
        meta = self.metadata
        metadata = {
            "name": meta.name,
            "namespace": meta.namespace,
            "uid": meta.uid,
            "annotations": dict(meta.annotations),
        }
        return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": parse(self.spec)}

    def status_value(self) -> dict[str, Any]:
        value: dict[str, Any] = parse(self.status)
        return value


class ListMeta(_Lean):
    resource_version: str = ""
    continue_: str = Field("", alias="continue")


class ListOf(_Lean, Generic[T]):
    metadata: ListMeta
    items: list[T]


class EventOf(_Lean, Generic[T]):
    """One line of a watch that tells of an object: ADDED, MODIFIED, DELETED."""

    type: str
    object: T


class OtherEvent(_Lean):
    """BOOKMARK and ERROR."""

    type: str
    object: dict[str, Any]
