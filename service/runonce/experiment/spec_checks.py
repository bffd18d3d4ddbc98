"""What the model of the spec cannot say: fields that go together, names that are taken, sizes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic.alias_generators import to_camel

from runonce.errors import Fault, InputError, near, shown
from runonce.experiment.arguments import decoded, unknown
from runonce.experiment.canonical import canonical
from runonce.experiment.contract import POD_SCRATCH, POD_SPEC_FOLDER, TUNABLE
from runonce.experiment.form import check_form, check_size
from runonce.experiment.key import check_pin, pointer

if TYPE_CHECKING:
    from runonce.experiment.spec import ExperimentSpec

MAX_SPEC_BYTES = 192 * 1024  # an annotation of the pod, all of which take up to 256 KiB together
CODE_VERSION = re.compile(r"source:[0-9a-f]{64}|image|label:[^\s\x00-\x1f]{1,128}")
IMAGE_DIGEST = re.compile(r"@(sha256:[0-9a-f]{64})$")

# Folders and volumes of a pod that are Runonce's own.
OWN_FOLDERS = (POD_SPEC_FOLDER, POD_SCRATCH, "/dev/shm")  # noqa: S108 - of the pod's own
OWN_VOLUMES = "runonce-"


def check_spec(spec: ExperimentSpec) -> Iterator[Fault]:
    yield from _check_entry(spec)
    misformed = list(guard(lambda: check_form(spec.params, "spec", "params")))
    yield from misformed or guard(lambda: check_size(spec.params, "spec", "params"))
    if spec.command is not None and not misformed:
        yield from unknown(spec.command, decoded(spec.params))
    yield from guard(lambda: check_form(spec.hash_as, "spec", "hashAs"))
    yield from _check_names(spec)
    if spec.hash is not None:
        yield from guard(lambda: check_pin(spec.hash), "spec")
    yield from _check_env(spec)
    yield from _check_sources(spec)
    yield from _check_volumes(spec)
    yield from _check_tolerations(spec)
    size = len(canonical(spec.to_json())) if not misformed else 0
    if size > MAX_SPEC_BYTES:
        what = f"is {size:,} bytes as JSON; pods are told up to {MAX_SPEC_BYTES:,}."
        yield Fault("spec", what, "Keep long texts in files of the image, or in a ConfigMap under envFrom or volumes.")
    for mode in spec.modes():
        yield from guard(lambda mode=mode: spec.shape(mode, local=True))
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
    if version is not None and not CODE_VERSION.fullmatch(version):
        yield Fault(
            "spec.codeVersion",
            f"is {shown(version)}; it is source:<64 hex digits>, image, or label:<text without blanks>.",
            "Leave it out and let `runonce render` fill it in.",
        )
    if version == "image" and not IMAGE_DIGEST.search(spec.image or ""):
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
        yield from guard(lambda name=name: pointer(name), "spec", "paramsOnlyIn")
    if not spec.hash_as:
        return
    yield from guard(lambda: spec.hash_form(), "spec")


def guard(check: Any, *path: str) -> Iterator[Fault]:
    try:
        check()
    except InputError as error:
        yield from error.under(*path).faults if path else error.faults
