"""What an administrator settles for a cluster: stores, kinds of machines, images. One file, which the chart mounts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from runonce.errors import Fault, InputError, SpecError, near
from runonce.experiment.machine import DEFAULT_GPU, JobShape
from runonce.experiment.spec import ExperimentSpec, Toleration
from runonce.experiment.spec_faults import spec_faults
from runonce.experiment.spec_fields import Name
from runonce.store.signing import NO_KEYS, Keyring, read_keyring


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class StoreAccess(_Model):
    """A store and how pods reach it.

    url: `{namespace}` in it stands for the Experiment's namespace. secret_name: a Secret there, whose entries become
    variables of the pods; the controller never reads it. service_account_name: of pods whose Experiment names none.
    """

    url: Annotated[str, Field(pattern=r"^(s3|file)://")]
    secret_name: str = ""
    service_account_name: str = ""

    def url_for(self, namespace: str) -> str:
        return self.url.replace("{namespace}", namespace)


class Profile(_Model):
    """A kind of machine. gpu_resource: what a GPU is called there. resource_claim_template_name: instead of that, a
    ResourceClaimTemplate of the Experiment's namespace that claims one device; each GPU of a pod is one claim.
    """

    gpu_resource: str = ""
    resource_claim_template_name: str = ""
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = Field((), strict=False)


class Signing(_Model):
    """key_file: keys of commit records, the first one signs. required: a record that none of them signed is none."""

    key_file: str
    required: bool = False


class Cluster(_Model):
    """cluster: its name, for those that share a store. namespaces: those that are watched; none: all.

    worker_image: of Experiments that name none; empty: they have to. workers: threads that reconcile. lease: name
    of the Lease by which one of several controllers works.
    """

    cluster: str = "default"
    namespaces: tuple[Name, ...] = Field((), strict=False)
    stores: dict[str, StoreAccess] = Field(default_factory=dict)
    profiles: dict[str, Profile] = Field(default_factory=dict)
    worker_image: str = ""
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    workers: Annotated[int, Field(ge=1, le=256)] = 8
    lease: Name = "runonce-controller"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    signing: Signing | None = None

    def keyring(self) -> Keyring:
        """The keys of commit records, read anew. Raises InputError."""
        signing = self.signing
        return read_keyring(Path(signing.key_file), required=signing.required) if signing is not None else NO_KEYS

    def profile(self, spec: ExperimentSpec) -> Profile:
        """The kind of machine that the spec names; an empty one where it names none."""
        if spec.profile is None:
            return Profile()
        if spec.profile not in self.profiles:
            raise SpecError(_unknown("profile", spec.profile, self.profiles), reason="UnknownProfile")
        return self.profiles[spec.profile]

    def store(self, spec: ExperimentSpec) -> StoreAccess:
        if spec.store not in self.stores:
            raise SpecError(_unknown("store", spec.store, self.stores), reason="UnknownStore")
        return self.stores[spec.store]

    def image(self, spec: ExperimentSpec) -> str:
        image = spec.image or self.worker_image
        if not image:
            what = "is missing, and this cluster has no image for Experiments that name none."
            raise SpecError(Fault("spec.image", what, "Name the image that has your code."), reason="ImageMissing")
        return image

    def shape(self, spec: ExperimentSpec, mode: str) -> JobShape:
        """The mode's Job, with GPUs called as the spec's profile calls them. Raises MachineError or SpecError."""
        return spec.shape(mode, gpu=self.profile(spec).gpu_resource or DEFAULT_GPU)

    def check(self, spec: ExperimentSpec) -> None:
        """Raises an InputError with everything that this cluster cannot give; its reason is that of the first."""
        found: list[InputError] = []
        for ask in (self.profile, self.store, self.image):
            try:
                ask(spec)
            except InputError as error:
                found.append(error)
        if not any(error.reason == "UnknownProfile" for error in found):
            for mode in spec.modes():
                try:
                    self.shape(spec, mode)
                except InputError as error:
                    found.append(error)
        if found:
            raise SpecError(*(fault for error in found for fault in error.faults), reason=found[0].reason)


def parse_cluster(text: bytes | str) -> Cluster:
    """The configuration file, YAML or JSON. Raises SpecError with every fault."""
    import yaml

    try:
        value: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(Fault("", f"the configuration is no YAML: {error}.")) from None
    try:
        return Cluster.model_validate({} if value is None else value, by_alias=True, by_name=False)
    except ValidationError as error:
        raise SpecError(*spec_faults(error, Cluster)) from None


def _unknown(field: str, name: str, known: dict[str, Any]) -> Fault:
    there = f"It has {', '.join(sorted(known))}." if known else f"It has no {field}s."
    fix = near(name, known)
    return Fault(
        f"spec.{field}", f"is {name!r}, which this cluster does not have.", there if fix.startswith("Known") else fix
    )
