"""Experiments handed to a cluster: checked here and by the server, all of them before the first, then applied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runonce.api.cluster import experiments_path
from runonce.api.target import Located, completed, placed, prove_all
from runonce.errors import CodeError, Fault, InputError, Invalid, NotFound, Refused, SpecError, raise_all
from runonce.experiment.canonical import parse
from runonce.experiment.spec import parse_experiment
from runonce.kube.objects import ExperimentObject, shallow
from runonce.kube.transport import MANAGER as API_MANAGER
from runonce.kube.transport import Api
from runonce.settings import Settings
from runonce.store.url import open_yours

MANAGER = "runonce-submit"  # of what a user gave; the controller's own is another


def hand_over(
    found: Sequence[Located], api: Api, namespace: str, settings: Settings, *, code_to: str | None = None
) -> list[ExperimentObject]:
    """Check all of them, keep their code in `code_to` if one is given, then submit. Raises InputError, ApiError."""
    prove_all([located for located in found if located.spec.code_version != "image"], settings.sources)
    _check(found)
    if code_to is not None:
        send_code(found, code_to)
    return submit_all(found, api, namespace)


def namespace_of(found: Sequence[Located], given: str | None, default: str) -> str:
    """As kubectl takes it: `given`, which the files may not contradict; else that of the files; else the context's.

    Raises InputError.
    """
    named = {located.namespace: located for located in found if located.namespace}
    for namespace, located in named.items():
        if given is not None and namespace != given:
            what = f"is {namespace} in {located.where('metadata.namespace')}, and {given} was asked for."
            raise InputError.of("metadata.namespace", what, f"Give -n {namespace}, or take it out of the file.")
    if len(named) > 1:
        names = " and ".join(sorted(named))
        raise InputError.of("metadata.namespace", f"is {names} in one submission.", "Submit one namespace at a time.")
    return given or next(iter(named), default)


def _check(found: Sequence[Located]) -> None:
    """What only a cluster cannot do, and code that nobody names, before the first of them is sent."""
    errors: list[InputError] = []
    for located in found:
        spec = located.spec
        if spec.code_version is None:  # filled in by `locate`, but for what has no code here
            missing = CodeError(Fault("spec.codeVersion", "is missing.", "Give label:<text> or image."))
            errors.append(placed(missing, located.where))
        for mode in spec.modes():
            try:
                spec.shape(mode, local=spec.profile is not None)  # what a profile's GPUs are the cluster knows
            except InputError as error:
                errors.append(placed(error, located.where))
    raise_all(errors)


def submit_all(found: Sequence[Located], api: Api, namespace: str) -> list[ExperimentObject]:
    """Server-side apply of every experiment, complete as `render` writes it. Raises InputError, ApiError.

    The server is asked about all of them before the first is changed.
    """
    resources = [located.resource(completed(located), namespace=namespace) for located in found]
    errors: list[InputError] = []
    for located, resource in zip(found, resources, strict=True):
        try:
            _try(api, namespace, located, resource)
        except InputError as error:
            errors.append(error)
    raise_all(errors)
    answers = [_apply(api, namespace, resource) for resource in resources]
    return [ExperimentObject.read(answer) for answer in answers]


def _try(api: Api, namespace: str, located: Located, resource: dict[str, Any]) -> None:
    """What the server would make of it has the keys that it has here. Raises InputError."""
    try:
        answer = parse(shallow(_apply(api, namespace, resource, dry_run=True)))
    except InputError as error:
        if "does not support dry run" in str(error):  # somebody's webhook; what it thinks is heard when it counts
            return
        raise
    merged = resource | {"spec": answer["spec"]}
    if _keys(merged) == _keys(resource):
        return
    foreign = ", ".join(_more(answer["spec"], resource["spec"], "spec"))
    tools = sorted({entry["manager"] for entry in answer["metadata"].get("managedFields", ())} - {MANAGER, API_MANAGER})
    what = (
        f"is on the cluster, and {' and '.join(tools) or 'another tool'} has set {foreign}: it would have another key."
    )
    fix = "Take that out there with the tool that set it, or give this one another name."
    raise SpecError(Fault(f"{located.where()}: {resource['metadata']['name']}", what, fix))


def _keys(resource: dict[str, Any]) -> dict[str, str] | None:
    try:
        return {mode: key for mode, (_, key) in parse_experiment(resource).spec.keys().items()}
    except InputError:
        return None


def _more(there: Mapping[str, Any], here: Mapping[str, Any], path: str) -> Iterator[str]:
    """Where a value stands that is not here."""
    for name, value in there.items():
        if name not in here:
            yield f"{path}.{name}"
        elif isinstance(value, dict) and isinstance(here[name], dict):
            yield from _more(value, here[name], f"{path}.{name}")


def _apply(api: Api, namespace: str, resource: dict[str, Any], *, dry_run: bool = False) -> bytes:
    path = f"{experiments_path(namespace)}/{resource['metadata']['name']}"
    try:
        return api.apply(path, resource, manager=MANAGER, dry_run=dry_run).body
    except NotFound as error:
        raise InputError.of(
            "",
            f"{api.host} knows no Experiments, or no namespace {namespace}.",
            "Name one that is there (-n), or install the chart of Runonce.",
        ) from error
    except Refused as error:
        raise InputError.of("", str(error), "Ask for the right to patch experiments.") from error
    except Invalid as error:
        raise InputError.of("", str(error)) from error


def code_store(given: str) -> str:
    """The store that code is sent through. Raises InputError for one that no pod reaches."""
    if not given.startswith("s3://"):
        what = f"would keep the code in {given}, which no pod of a cluster reaches."
        fix = "Give --store s3://bucket/prefix, as the administrator's file has it."
        raise InputError.of("--with-source", what, fix)
    return given


def send_code(found: Sequence[Located], store: str) -> list[str]:
    """Keep the code of every experiment in the store, under its digest; returns the digests. Raises InputError."""
    from runonce.author.bundle import pack, with_nonce
    from runonce.store.backend import source_name

    packed = dict(pack(completed(located), located.workdir) for located in found)
    backend = open_yours(Settings.from_env(), store)
    for digest, data in packed.items():
        backend.put(source_name(digest), with_nonce(data))
    return sorted(packed)
