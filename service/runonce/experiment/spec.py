"""The Experiment as a resource: one model for files, the API server and the controller.

Only here camelCase becomes snake_case. What a schema can say stands in the model; the rest is in `spec_checks`, so
that a file, a class and the controller hear the same words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from runonce.errors import Fault, InputError, SpecError, shown
from runonce.experiment.canonical import digest
from runonce.experiment.form import check_form
from runonce.experiment.key import MODES, KeyParts, cache_key, hash_form, params_hash
from runonce.experiment.machine import DEFAULT_GPU, JobShape, MachineParams, plan_job
from runonce.experiment.nulls import MAX_LEVELS, deep_path, is_deeper, lost_nulls
from runonce.experiment.spec_checks import IMAGE_DIGEST, check_spec, guard
from runonce.experiment.spec_faults import spec_faults
from runonce.experiment.spec_fields import (
    ENTRY,
    ENV_PREFIX,
    RESOURCE,
    Count,
    Env,
    GpuId,
    Label,
    LabelValue,
    Name,
    Path,
    Quantity,
    Subdomain,
    Text,
    Whole,
)

API_VERSION = "runonce.dev/v1alpha1"
KIND = "Experiment"
RERUN = "runonce.dev/rerun"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class MachineBlock(_Model):
    """One mode's processes. Give nprocesses, or nprocessesPerDevice with one count for each of gpuIds."""

    nprocesses: Count | None = None
    nprocesses_per_device: tuple[Count, ...] | None = Field(None, max_length=1024, strict=False)
    gpu_ids: tuple[GpuId, ...] = Field((), max_length=1024, strict=False)
    gpu_resource: Annotated[str, Field(pattern=RESOURCE, max_length=253)] | None = None
    coupled: bool | None = None
    env: Env = Field(default_factory=dict)

    def machine(self) -> MachineParams:
        n = self.nprocesses if self.nprocesses_per_device is None else self.nprocesses_per_device
        if n is None or (self.nprocesses is not None and self.nprocesses_per_device is not None):
            raise SpecError(
                Fault(
                    "nprocesses",
                    "and nprocessesPerDevice are both given." if n is not None else "is missing.",
                    "Give nprocesses, or nprocessesPerDevice with one count for each of gpuIds.",
                )
            )
        return MachineParams(
            nprocesses=n, gpu_ids=self.gpu_ids, gpu_resource=self.gpu_resource, coupled=self.coupled, env=self.env
        )


class Machines(_Model):
    """A mode without a block does not exist; one with 0 processes exists and is not run."""

    train: MachineBlock | None = None
    valid: MachineBlock | None = None
    test: MachineBlock | None = None


class Resources(_Model):
    """What each process asks for, as Kubernetes quantities; requests equal limits."""

    cpu: Quantity | None = None
    memory: Quantity | None = None
    ephemeral_storage: Quantity | None = None
    shm: Quantity | None = None


class Toleration(_Model):
    """A taint of nodes to put up with, as in a pod."""

    key: Label | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Whole | None = Field(None, ge=0, lt=2**31)

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class EnvFrom(_Model):
    """A ConfigMap or Secret whose entries become variables of the process. Never read by the controller."""

    config_map: Subdomain | None = None
    secret: Subdomain | None = None
    prefix: Annotated[str, Field(pattern=ENV_PREFIX, max_length=256)] = ""


class Volume(_Model):
    """A folder of the process from one of four places."""

    mount_path: Path
    name: Name
    persistent_volume_claim: Subdomain | None = None
    config_map: Subdomain | None = None
    secret: Subdomain | None = None
    host_path: Path | None = None
    read_only: bool = True


class ExperimentSpec(_Model):
    """Everything a user may say of an experiment. docs/resource.md tells which fields enter the key."""

    config: Annotated[str, Field(pattern=ENTRY, max_length=253)] | None = None
    command: tuple[Annotated[str, Field(max_length=8192)], ...] | None = Field(
        None, min_length=1, max_length=256, strict=False
    )
    code: tuple[Text, ...] = Field((), max_length=64, strict=False)
    params: dict[str, Any] = Field(default_factory=dict, max_length=1000)
    hash_exclude: tuple[Text, ...] = Field((), max_length=1000, strict=False)
    hash_as: dict[Text, Any] = Field(default_factory=dict, max_length=1000)
    params_only_in: dict[Text, Literal["train", "valid", "test"]] = Field(default_factory=dict, max_length=1000)
    hash: str | None = Field(None, json_schema_extra={"maxLength": 64})
    code_version: str | None = Field(None, json_schema_extra={"maxLength": 134})
    code_packages: tuple[Text, ...] = Field((), max_length=64, strict=False)
    cache_key_extra: tuple[Annotated[str, Field(max_length=256)], ...] = Field((), max_length=16, strict=False)
    key_machine: bool | None = None
    env: Env = Field(default_factory=dict)
    seed: Whole = Field(0, ge=0, lt=2**53)
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    machine_params: Machines
    resources: Resources = Field(default_factory=Resources)
    profile: Name | None = None
    node_selector: dict[Label, LabelValue] = Field(default_factory=dict, max_length=32)
    tolerations: tuple[Toleration, ...] = Field((), max_length=32, strict=False)
    env_from: tuple[EnvFrom, ...] = Field((), max_length=16, strict=False)
    volumes: tuple[Volume, ...] = Field((), max_length=16, strict=False)
    service_account_name: Subdomain | None = None
    image_pull_secrets: tuple[Subdomain, ...] = Field((), max_length=16, strict=False)
    priority_class_name: Subdomain | None = None
    queue_name: Name | None = None
    retries: Whole = Field(2, ge=0, le=100)
    start_deadline_seconds: Whole | None = Field(None, ge=1, lt=2**31)
    active_deadline_seconds: Whole | None = Field(None, ge=1, lt=2**31)
    ttl_seconds_after_finished: Whole | None = Field(None, ge=3600, lt=2**31)
    overwrite: bool = False
    suspend: bool = False
    store: Name = "default"

    def block(self, mode: str) -> MachineBlock | None:
        block: MachineBlock | None = getattr(self.machine_params, mode)
        return block

    def modes(self) -> Iterator[str]:
        """The modes that exist, in the order in which they run."""
        return (mode for mode in MODES if self.block(mode) is not None)

    def shape(self, mode: str, *, local: bool = False, gpu: str = DEFAULT_GPU) -> JobShape:
        """The mode's Job; raises MachineError with paths from the root of the resource."""
        block = self.block(mode)
        if block is None:
            raise KeyError(mode)
        try:
            return plan_job(block.machine(), mode=mode, local=local, gpu=gpu)
        except InputError as error:
            raise error.under("spec", "machineParams", mode) from None

    def hash_form(self, mode: str | None = None) -> Mapping[str, Any]:
        return hash_form(
            self.params, exclude=self.hash_exclude, hash_as=self.hash_as, only_in=self.params_only_in, mode=mode
        )

    def keyed_machine(self) -> bool:
        """Whether the number of processes is part of the key: what a command does with it nobody can know."""
        return self.key_machine if self.key_machine is not None else self.command is not None

    def code_version_part(self) -> str:
        """The code version as the key has it. An image counts by digest, without its repository."""
        if self.code_version is None:
            raise SpecError(Fault("spec.codeVersion", *_NO_CODE_VERSION), reason="CodeVersionMissing")
        if self.code_version == "image":
            found = IMAGE_DIGEST.search(self.image or "")
            return f"image:{found[1]}" if found else "image"
        return self.code_version

    def key_parts(self, mode: str, inputs: Mapping[str, str]) -> KeyParts:
        return KeyParts(
            mode=mode,
            entry=self.config if self.config is not None else (self.command or ()),
            params=self.hash if self.hash is not None else params_hash(self.hash_form(mode)),
            env=self.env,
            seed=self.seed,
            code_version=self.code_version_part(),
            inputs=inputs,
            extra=self.cache_key_extra,
            completions=self.shape(mode, local=True).completions if self.keyed_machine() else None,
        )

    def keys(self) -> dict[str, tuple[KeyParts, str]]:
        """Parts and cache key of each mode, in order. valid and test have the input train where that exists."""
        out: dict[str, tuple[KeyParts, str]] = {}
        for mode in self.modes():
            inputs = {"train": out["train"][1]} if mode != "train" and "train" in out else {}
            parts = self.key_parts(mode, inputs)
            out[mode] = parts, cache_key(parts)
        return out

    def to_json(self) -> dict[str, Any]:
        """As written in a resource: fields at their defaults are left out, lists are lists."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    def digest(self) -> str:
        return digest(self.to_json())


_NO_CODE_VERSION = (
    "is missing, so nobody could tell results of different code apart.",
    "Let `runonce render` fill in source:<digest>, or write image (with the image given by digest) "
    "or label:<text> (your promise that the text changes when the code does).",
)


class Metadata(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Experiment(BaseModel):
    """A whole resource. What the API server adds beside metadata and spec is let through."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)

    api_version: Literal["runonce.dev/v1alpha1"] = Field(alias="apiVersion")
    kind: Literal["Experiment"]
    metadata: Metadata
    spec: ExperimentSpec
    status: dict[str, Any] = Field(default_factory=dict, exclude=True)

    @property
    def name(self) -> str:
        return self.metadata.name


def parse_experiment(resource: Mapping[str, Any]) -> Experiment:
    """The resource as a value. Raises SpecError with every fault found, each with its path."""
    if resource.get("kind") != KIND or resource.get("apiVersion") != API_VERSION:
        given = (resource.get(name) for name in ("apiVersion", "kind"))
        found = ", kind ".join(
            "nothing" if text is None else str(text)[:60] if isinstance(text, str) else shown(text) for text in given
        )
        raise SpecError(
            Fault(
                "",
                f"is no Experiment: apiVersion is {found}.",
                f"Write apiVersion: {API_VERSION} and kind: {KIND}.",
            )
        )
    if is_deeper(resource, MAX_LEVELS):
        path = deep_path(resource, MAX_LEVELS)
        raise SpecError(Fault("", f"is nested more than {MAX_LEVELS} levels deep.", "Flatten it.").under(*path))
    try:
        experiment = Experiment.model_validate(resource, by_alias=True, by_name=False)
    except ValidationError as error:
        raise SpecError(*spec_faults(error, Experiment), *_params_faults(resource)) from None
    faults = list(check_spec(experiment.spec))
    applied = experiment.metadata.annotations.get(LAST_APPLIED)
    lost = lost_nulls(applied, experiment.spec.params) if applied is not None else []
    if faults or lost:
        raise SpecError(*faults, *lost, reason=None if faults else "NullLost")
    return experiment


def to_resource(
    name: str,
    spec: ExperimentSpec,
    *,
    namespace: str = "",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    given = {"name": name, "namespace": namespace, "labels": dict(labels or {}), "annotations": dict(annotations or {})}
    metadata = {key: value for key, value in given.items() if value}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec.to_json()}


def _params_faults(resource: Mapping[str, Any]) -> list[Fault]:
    spec = resource.get("spec")
    params = spec.get("params") if isinstance(spec, dict) else None
    return list(guard(lambda: check_form(params, "spec", "params"))) if isinstance(params, dict) else []
