"""The Experiment as a resource: one model for files, the API server and the controller.

Only here camelCase becomes snake_case. What a schema can say stands in the model; the rest is in `_check`, so
that a file, a class and the controller hear the same words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from runonce.errors import Fault, InputError, SpecError, shown
from runonce.experiment.canonical import canonical, digest
from runonce.experiment.contract import POD_SCRATCH, POD_SPEC_FOLDER, TUNABLE
from runonce.experiment.form import check_form, check_size
from runonce.experiment.key import MODES, KeyParts, cache_key, check_pin, hash_form, params_hash, pointer
from runonce.experiment.machine import (
    DEFAULT_GPU,
    MAX_PROCESSES,
    JobShape,
    MachineParams,
    gpu_id,
    plan_job,
    process_count,
)
from runonce.experiment.render_types import near

API_VERSION = "runonce.dev/v1alpha1"
KIND = "Experiment"
RERUN = "runonce.dev/rerun"
MAX_SPEC_BYTES = 192 * 1024  # an annotation of the pod, all of which take up to 256 KiB together
MAX_LEVELS = 128  # of a whole resource: each level of params may take two, one of them for its tag
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_ENTRY = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"
_CODE_VERSION = re.compile(r"source:[0-9a-f]{64}|image|label:[^\s\x00-\x1f]{1,128}")
_IMAGE_DIGEST = re.compile(r"@(sha256:[0-9a-f]{64})$")
_ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_.-]*$"
_ENV_PREFIX = r"^([A-Za-z_][A-Za-z0-9_.-]*)?$"
_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_LABEL = r"^(([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)$"
_LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
_RESOURCE = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
_QUANTITY = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?$"
_PATH = r"^(/[^/:]+)+$"

# What a text of each form is, in words; an API server says the same, beside the value.
FORMS = {
    _NAME: "a name is lower-case letters, digits and hyphens, and begins and ends with a letter or digit",
    _SUBDOMAIN: "a name is lower-case letters, digits, - and ., and each part begins and ends with a letter or digit",
    _ENTRY: "module:Class is meant, as digits.experiment:DigitsExperiment",
    _ENV_NAME: "the name of a variable is letters, digits, _ . and -, and begins with a letter or _",
    _ENV_PREFIX: "a prefix of variables is letters, digits, _ . and -, and begins with a letter or _",
    _LABEL: "the name of a label or taint is meant, as disk or nvidia.com/gpu.product",
    _LABEL_VALUE: "the value of a label is letters, digits, - _ and ., and begins and ends with a letter or digit",
    _RESOURCE: "the name of a resource with its maker is meant, as nvidia.com/gpu",
    _QUANTITY: "a quantity is meant, as 500m, 2 or 4Gi",
    _PATH: "the whole path of a folder is meant, as /data, without colons or a slash at its end",
}

# Folders and volumes of a pod that are Runonce's own.
OWN_FOLDERS = (POD_SPEC_FOLDER, POD_SCRATCH, "/dev/shm")  # noqa: S108 - of the pod's own
OWN_VOLUMES = "runonce-"


def _whole(value: Any) -> Any:
    """2.0 is 2, as for an API server."""
    return int(value) if type(value) is float and value.is_integer() else value


def _quantity(value: Any) -> Any:
    """2 is "2", as for an API server."""
    value = _whole(value)
    return str(value) if type(value) is int else value


Whole = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[int, BeforeValidator(lambda value: process_count(_whole(value))), Field(ge=0, le=MAX_PROCESSES)]
GpuId = Annotated[int, BeforeValidator(lambda value: gpu_id(_whole(value))), Field(ge=-1)]
Name = Annotated[str, Field(pattern=_NAME, max_length=63)]
Subdomain = Annotated[str, Field(pattern=_SUBDOMAIN, max_length=253)]
Label = Annotated[str, Field(pattern=_LABEL, max_length=317)]
LabelValue = Annotated[str, Field(pattern=_LABEL_VALUE, max_length=63)]
Path = Annotated[str, Field(pattern=_PATH, max_length=253)]
Quantity = Annotated[str, Field(pattern=_QUANTITY, max_length=32), BeforeValidator(_quantity)]
Text = Annotated[str, Field(min_length=1, max_length=253)]
Env = Annotated[
    dict[Annotated[str, Field(pattern=_ENV_NAME, max_length=256)], Annotated[str, Field(max_length=4096)]],
    Field(max_length=64),
]


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class MachineBlock(_Model):
    """One mode's processes. Give nprocesses, or nprocessesPerDevice with one count for each of gpuIds."""

    nprocesses: Count | None = None
    nprocesses_per_device: tuple[Count, ...] | None = Field(None, max_length=1024, strict=False)
    gpu_ids: tuple[GpuId, ...] = Field((), max_length=1024, strict=False)
    gpu_resource: Annotated[str, Field(pattern=_RESOURCE, max_length=253)] | None = None
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
    prefix: Annotated[str, Field(pattern=_ENV_PREFIX, max_length=256)] = ""


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

    config: Annotated[str, Field(pattern=_ENTRY, max_length=253)] | None = None
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
            found = _IMAGE_DIGEST.search(self.image or "")
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
    if _is_deeper(resource, MAX_LEVELS):
        raise SpecError(Fault("", f"is nested more than {MAX_LEVELS} levels deep.", "Flatten it."))
    try:
        experiment = Experiment.model_validate(resource, by_alias=True, by_name=False)
    except ValidationError as error:
        raise SpecError(*spec_faults(error), *_params_faults(resource)) from None
    faults, lost = list(_check(experiment.spec)), _lost_nulls(experiment)
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


# --- what the model cannot say ------------------------------------------------------------------------------


def _check(spec: ExperimentSpec) -> Iterator[Fault]:
    yield from _check_entry(spec)
    misformed = list(_guard(lambda: check_form(spec.params, "spec", "params")))
    yield from misformed or _guard(lambda: check_size(spec.params, "spec", "params"))
    yield from _guard(lambda: check_form(spec.hash_as, "spec", "hashAs"))
    yield from _check_names(spec)
    if spec.hash is not None:
        yield from _guard(lambda: check_pin(spec.hash), "spec")
    yield from _check_env(spec)
    yield from _check_sources(spec)
    yield from _check_volumes(spec)
    yield from _check_tolerations(spec)
    size = len(canonical(spec.to_json())) if not misformed else 0
    if size > MAX_SPEC_BYTES:
        what = f"is {size:,} bytes as JSON; pods are told up to {MAX_SPEC_BYTES:,}."
        yield Fault("spec", what, "Keep long texts in files of the image, or in a ConfigMap under envFrom or volumes.")
    for mode in spec.modes():
        yield from _guard(lambda mode=mode: spec.shape(mode, local=True))
    if not any(True for _ in spec.modes()):
        yield Fault("spec.machineParams", "has no mode.", "Give train, valid or test, as in train: {nprocesses: 1}.")


def _check_entry(spec: ExperimentSpec) -> Iterator[Fault]:
    if (spec.config is None) == (spec.command is None):
        what = "are both given" if spec.config is not None else "are both missing"
        yield Fault("spec", f"config and command {what}.", "Give config: module:Class, or command: [program, …].")
    for position, argument in enumerate(spec.command or ()):
        if "\0" in argument:
            fault = Fault("", "holds the character 0, which ends an argument.", "Remove it.")
            yield fault.under("spec", "command", position)
    version = spec.code_version
    if version is not None and not _CODE_VERSION.fullmatch(version):
        yield Fault(
            "spec.codeVersion",
            f"is {shown(version)}; it is source:<64 hex digits>, image, or label:<text without blanks>.",
            "Leave it out and let `runonce render` fill it in.",
        )
    if version == "image" and not _IMAGE_DIGEST.search(spec.image or ""):
        yield Fault(
            "spec.image",
            f"is {shown(spec.image)}; codeVersion: image needs it by digest.",
            "Write name@sha256:<64 hex>.",
        )
    if spec.command is not None and not spec.code and version is None:
        yield Fault(
            "spec.code",
            "is missing: nobody could tell which files the command's result depends on.",
            'Name them, as in code: ["*.sh", "src/**/*.c"], or give a codeVersion.',
        )
    if spec.command is None and spec.code:
        yield Fault("spec.code", "goes with command; a config's code is found by its imports.", "Remove it.")
    if spec.config is None and (spec.code_packages or spec.params_only_in):
        yield Fault("spec", "codePackages and paramsOnlyIn go with config.", "Remove them.")


def _check_env(spec: ExperimentSpec) -> Iterator[Fault]:
    places: list[tuple[tuple[str, ...], Mapping[str, str]]] = [(("spec", "env"), spec.env)]
    for mode in spec.modes():
        block = spec.block(mode)
        places.append((("spec", "machineParams", mode, "env"), block.env if block else {}))
    for path, env in places:
        for name in env:
            if "\0" in env[name]:
                yield Fault("", "holds the character 0, which ends a variable.", "Remove it.").under(*path, name)
            if name in TUNABLE and env is not spec.env:
                continue
            if name.startswith("RUNONCE_") or name == "JOB_COMPLETION_INDEX":
                yield Fault("", "is set by Runonce itself.", "Choose another name.").under(*path, name)
            elif env is not spec.env and name in spec.env:
                fix = "Give it once: there if it can change the result, here if not."
                yield Fault("", "is given in spec.env too, where it is in the key.", fix).under(*path, name)


def _check_sources(spec: ExperimentSpec) -> Iterator[Fault]:
    kinds = {
        "envFrom": (spec.env_from, ("config_map", "secret")),
        "volumes": (spec.volumes, ("persistent_volume_claim", "config_map", "secret", "host_path")),
    }
    for field, (entries, sources) in kinds.items():
        for position, entry in enumerate(entries):
            given = [name for name in sources if getattr(entry, name) is not None]
            if len(given) != 1:
                what = f"has {'several' if given else 'none'} of {', '.join(map(to_camel, sources))}."
                yield Fault("", what, "Give one of them.").under("spec", field, position)


def _check_volumes(spec: ExperimentSpec) -> Iterator[Fault]:
    names, paths = [volume.name for volume in spec.volumes], [volume.mount_path for volume in spec.volumes]
    if len(set(names)) < len(names):
        yield Fault("spec.volumes", "give one name to several volumes.", "Name each differently.")
    if len(set(paths)) < len(paths):
        yield Fault("spec.volumes", "give one mountPath to several volumes.", "Mount each in a folder of its own.")
    for position, (name, path) in enumerate(zip(names, paths, strict=True)):
        if name.startswith(OWN_VOLUMES):
            fault = Fault("name", f"begins with {OWN_VOLUMES}, as Runonce's own volumes do.", "Choose another name.")
            yield fault.under("spec", "volumes", position)
        if path in OWN_FOLDERS:
            what = f"is one of {', '.join(OWN_FOLDERS)}, where Runonce mounts its own."
            yield Fault("mountPath", what, "Choose another folder.").under("spec", "volumes", position)


def _check_tolerations(spec: ExperimentSpec) -> Iterator[Fault]:
    for position, entry in enumerate(spec.tolerations):
        faults = []
        if entry.key is None and entry.operator != "Exists":
            faults.append(Fault("", "has no key, which only operator: Exists allows.", "Give the key of the taint."))
        if entry.operator == "Exists" and entry.value:
            faults.append(Fault("", "has a value, which operator: Exists does not compare.", "Remove one of them."))
        if entry.toleration_seconds is not None and entry.effect != "NoExecute":
            what = "has tolerationSeconds, which go with effect: NoExecute."
            faults.append(Fault("", what, "Give that effect, or remove them."))
        yield from (fault.under("spec", "tolerations", position) for fault in faults)


def _check_names(spec: ExperimentSpec) -> Iterator[Fault]:
    given: dict[tuple[str, ...], str] = {}
    groups = {"hashExclude": spec.hash_exclude, "hashAs": spec.hash_as}
    for field, names in groups.items():
        for name in names:
            try:
                segments = pointer(name)
            except InputError as error:
                yield from error.under("spec", field).faults
                continue
            if segments in given:
                yield Fault(
                    f"spec.{field}", f"names {shown(name)}, which {given[segments]} names too.", "Drop one of them."
                )
            given[segments] = field
            if spec.command is not None and segments[0] not in spec.params and field == "hashExclude":
                yield Fault(
                    f"spec.{field}", f"names {shown(name)}, which params does not have.", near(name, spec.params)
                )
    for name in spec.params_only_in:
        yield from _guard(lambda name=name: pointer(name), "spec", "paramsOnlyIn")
    if not spec.hash_as:
        return
    yield from _guard(lambda: spec.hash_form(), "spec")


def _guard(check: Any, *path: str) -> Iterator[Fault]:
    try:
        check()
    except InputError as error:
        yield from error.under(*path).faults if path else error.faults


def _is_deeper(value: Any, levels: int) -> bool:
    """Level by level, since a walk into the depth would end at Python's own limit."""
    level = [value]
    for _ in range(levels):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _lost_nulls(experiment: Experiment) -> list[Fault]:
    """Client-side apply drops null entries silently; what it kept in its annotation shows it."""
    import json

    annotation = experiment.metadata.annotations.get(LAST_APPLIED)
    if annotation is None:
        return []
    try:
        applied = json.loads(annotation)["spec"]["params"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    if _is_deeper(applied, MAX_LEVELS):
        return []
    lost = list(_nulls(applied, ("spec", "params")))
    if not lost or _without_nulls(applied) != experiment.spec.params:
        return []
    fix = "Write {$none: true}, or leave the field out where None is its default."
    return [Fault("", "was null in the applied file, and kubectl apply dropped it.", fix).under(*path) for path in lost]


def _nulls(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if value is None:
        yield path
    elif isinstance(value, dict):
        for name, entry in value.items():
            yield from _nulls(entry, (*path, name))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _nulls(entry, (*path, index))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(entry) for name, entry in value.items() if entry is not None}
    return [_without_nulls(entry) for entry in value] if isinstance(value, list) else value


def _params_faults(resource: Mapping[str, Any]) -> list[Fault]:
    spec = resource.get("spec")
    params = spec.get("params") if isinstance(spec, dict) else None
    return list(_guard(lambda: check_form(params, "spec", "params"))) if isinstance(params, dict) else []


# --- pydantic's errors in our words -------------------------------------------------------------------------

_WORDS = {
    "int_type": "a whole number is meant",
    "int_from_float": "a whole number is meant",
    "string_type": "text is meant",
    "bool_type": "true or false is meant",
    "dict_type": "a mapping is meant",
    "model_type": "a mapping is meant",
    "model_attributes_type": "a mapping is meant",
    "tuple_type": "a list is meant",
    "list_type": "a list is meant",
}


def spec_faults(error: ValidationError, root: type[BaseModel] = Experiment) -> Iterator[Fault]:
    """pydantic's errors in our words; `root` is the model that was to be validated."""
    entries = error.errors(include_url=False, include_context=True)
    for entry in entries:
        if entry["type"] == "too_short" and any(len(other["loc"]) > len(entry["loc"]) for other in entries):
            continue  # pydantic counts the items that it found valid
        path = [segment for segment in entry["loc"] if segment != "[key]"]
        kind, given = entry["type"], entry["input"]
        if kind == "extra_forbidden":
            yield Fault("", "is no field here.", _suggest(path, root)).under(*path)
        elif kind == "missing":
            yield Fault("", "is missing.", "Give it.").under(*path)
        elif given is None:
            yield Fault("", "is null.", "Leave it out, or give a value.").under(*path)
        elif kind == "value_error":
            yield Fault("", str(entry["ctx"]["error"])).under(*path)
        elif kind in _WORDS:
            yield Fault("", f"is {shown(given)}; {_WORDS[kind]}.").under(*path)
        elif kind == "string_pattern_mismatch":
            pattern = entry["ctx"]["pattern"]
            words = FORMS.get(pattern, f"the form {pattern} is meant")
            yield Fault("", f"is {shown(given)}; {words}.").under(*path)
        else:
            message = entry["msg"][0].lower() + entry["msg"][1:]
            yield Fault("", f"is {shown(given)}; {message}.").under(*path)


def _suggest(path: list[int | str], root: type[BaseModel]) -> str:
    model: Any = root
    for segment in path[:-1]:
        field = next((f for n, f in model.model_fields.items() if segment in (n, f.alias)), None)
        if field is None:
            continue
        classes = [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = [kind for kind in classes if isinstance(kind, type) and issubclass(kind, BaseModel)]
        model = inner[0] if inner else model
    return near(str(path[-1]), [field.alias or name for name, field in model.model_fields.items()])
