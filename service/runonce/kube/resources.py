"""A Job's plan as the objects of the Kubernetes API. Pure: plain values in, plain JSON out.

The time to live is not among the fields: it is patched on after the commit, since a Job that vanished before would take
its result with it. A Job is posted once and never applied again: Kueue co-owns fields of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runonce.experiment import contract
from runonce.experiment.canonical import canonical
from runonce.experiment.contract import ATTEMPT, CONFIGURATION, DAMAGED_INPUT, SPEC_FILE, STOPPED
from runonce.experiment.job import JobPlan
from runonce.experiment.machine import DEFAULT_GPU
from runonce.experiment.spec import API_VERSION, KIND, EnvFrom, ExperimentSpec, Volume
from runonce.kube.cluster import Cluster, Profile, StoreAccess

Object = dict[str, Any]

SERVICE = "runonce-pods"
CONTAINER = "worker"
GRACE_S = 120  # from SIGTERM to SIGKILL: to save a checkpoint and to publish it
MASTER_PORT = 29400  # torch's own default; a pod has all its ports to itself

MANAGED_BY = "app.kubernetes.io/managed-by"
COMPONENT = "app.kubernetes.io/component"
CACHE_KEY = "runonce.dev/cache-key"  # annotation: whole; label: the first KEY_DIGITS, since a label holds 63 characters
KEY_DIGITS = 40
MODE = "runonce.dev/mode"
EXPERIMENT = "runonce.dev/experiment"  # name of the creator; others may share the Job
ROUND = "runonce.dev/round"
QUEUE = "kueue.x-k8s.io/queue-name"
LOCK = "foregroundDeletion"  # the finalizer that keeps the name taken until the last pod has ended

_SELECTOR = {MANAGED_BY: "runonce", COMPONENT: CONTAINER}


def build_job(plan: JobPlan, *, namespace: str, cluster: Cluster) -> Object:
    """The Indexed Job of a plan. Raises SpecError for a profile, store or image that the cluster does not have."""
    spec = _spec(plan)
    queue = {QUEUE: spec.queue_name} if spec.queue_name is not None else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": plan.name,
            "namespace": namespace,
            "labels": _labels(plan) | queue,
            "annotations": {
                CACHE_KEY: plan.cache_key,
                EXPERIMENT: plan.owner.name,
                ROUND: canonical(plan.round.to_json()).decode(),
            },
            "finalizers": [LOCK],
            "ownerReferences": [owner_reference(plan.owner.name, plan.owner.uid, controller=True)],
        },
        "spec": {
            "completionMode": "Indexed",
            "completions": plan.shape.completions,
            "parallelism": plan.shape.parallelism,
            # With a queue Kueue alone says when the Job begins.
            "suspend": plan.suspend or bool(queue),
            "podReplacementPolicy": "Failed",
            **(_coupled() if plan.shape.coupled else _independent(plan.retries)),
            "template": {
                "metadata": {
                    "labels": _labels(plan),
                    "annotations": {contract.SPEC_ANNOTATION: plan.spec, CACHE_KEY: plan.cache_key},
                },
                "spec": _pod(plan, spec, namespace, cluster),
            },
        },
    }


def build_service(namespace: str) -> Object:
    """The one headless Service of a namespace: it gives index 0 of every coupled Job a name before it is ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SERVICE, "namespace": namespace, "labels": {MANAGED_BY: "runonce"}},
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": dict(_SELECTOR)},
    }


def is_ours(service: Mapping[str, Any]) -> bool:
    """Whether a Service that has the name is the one that `build_service` makes."""
    spec = service["spec"]
    return spec.get("selector") == _SELECTOR and bool(spec.get("publishNotReadyAddresses"))


def owner_reference(name: str, uid: str, *, controller: bool = False) -> Object:
    """controller: for the creator alone. Nothing blocks the owner's deletion: that would need a right on finalizers."""
    reference: Object = {"apiVersion": API_VERSION, "kind": KIND, "name": name, "uid": uid}
    return reference | ({"controller": True} if controller else {})


def key_label(cache_key: str) -> str:
    return cache_key[:KEY_DIGITS]


def _spec(plan: JobPlan) -> ExperimentSpec:
    if plan.experiment is None:
        raise ValueError(f"the plan of {plan.name} has no experiment: a pod is made from more than its text")
    return plan.experiment


def _labels(plan: JobPlan) -> dict[str, str]:
    labels = _SELECTOR | {CACHE_KEY: key_label(plan.cache_key), MODE: plan.shape.mode}
    return labels | ({EXPERIMENT: plan.owner.name} if len(plan.owner.name) <= 63 else {})


# --- how it fails -------------------------------------------------------------------------------------------


def _coupled() -> Object:
    """Any lost rank fails all; the next attempt is another Job.

    No podFailurePolicy: it would count the pods that a suspension ends, and so fail each Job that a queue takes back.
    """
    return {"backoffLimit": 0}


def _independent(retries: int) -> Object:
    """Each index has its retries. What no retry can help ends the Job; what is nobody's fault is not counted."""
    return {
        "backoffLimitPerIndex": retries,
        "backoffLimit": 2**31 - 1,
        "podFailurePolicy": {
            "rules": [
                _exits("FailJob", "In", DAMAGED_INPUT, CONFIGURATION),
                _disrupted("Ignore"),
                _exits("Ignore", "In", STOPPED),
            ]
        },
    }


def _disrupted(action: str) -> Object:
    return {"action": action, "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def _exits(action: str, operator: str, *codes: int) -> Object:
    return {
        "action": action,
        "onExitCodes": {"containerName": CONTAINER, "operator": operator, "values": sorted(codes)},
    }


# --- the pod ------------------------------------------------------------------------------------------------


def _pod(plan: JobPlan, spec: ExperimentSpec, namespace: str, cluster: Cluster) -> Object:
    profile, store = cluster.profile(spec), cluster.store(spec)
    claims = _claims(plan, spec, profile)
    account = spec.service_account_name or store.service_account_name
    tolerations = (*profile.tolerations, *spec.tolerations)
    selector = {**profile.node_selector, **spec.node_selector}
    volumes = list(_volumes(spec))
    pod: Object = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "enableServiceLinks": False,
        # The first process of a container never sees a SIGTERM for which it has no handler yet: a pod that is told to
        # end as its interpreter starts would live out its grace. So the first one is not ours.
        "shareProcessNamespace": True,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_container(plan, spec, namespace, cluster, claims, volumes)],
        "volumes": [volume for volume, _ in volumes],
    }
    optional = {
        # A pod has a host name in DNS only where its template names the Service.
        "subdomain": SERVICE if plan.shape.coupled else None,
        "activeDeadlineSeconds": plan.active_deadline_s,
        "serviceAccountName": account or None,
        # A token of the API server's goes only to who asked for an account of their own.
        "automountServiceAccountToken": None if spec.service_account_name else False,
        "imagePullSecrets": [{"name": name} for name in spec.image_pull_secrets] or None,
        "priorityClassName": spec.priority_class_name,
        "nodeSelector": selector or None,
        "tolerations": [entry.to_json() for entry in tolerations] or None,
        "resourceClaims": [
            {"name": claim, "resourceClaimTemplateName": profile.resource_claim_template_name} for claim in claims
        ]
        or None,
    }
    return pod | {name: value for name, value in optional.items() if value is not None}


def _container(
    plan: JobPlan,
    spec: ExperimentSpec,
    namespace: str,
    cluster: Cluster,
    claims: list[str],
    volumes: list[tuple[Object, Object]],
) -> Object:
    container: Object = {
        "name": CONTAINER,
        "image": cluster.image(spec),
        "command": list(contract.POD_COMMAND),
        "env": list(_env(plan, namespace)),
        "volumeMounts": [mount for _, mount in volumes],
        # The end of the log is the message of a failure, so nobody needs the right to read logs.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    resources = _resources(plan, spec, gpus=not claims)
    if claims:
        resources["claims"] = [{"name": claim} for claim in claims]
    sources = [*map(_source, spec.env_from), *_store_secret(cluster.store(spec))]
    return container | ({"resources": resources} if resources else {}) | ({"envFrom": sources} if sources else {})


def _env(plan: JobPlan, namespace: str) -> Iterator[Object]:
    """Literals first. Kubernetes would expand `$(NAME)` in them, one machine would not: every `$` is doubled."""
    values = dict(plan.env) | {SPEC_FILE: contract.POD_SPEC_FILE, "PYTHONUNBUFFERED": "1"}
    if plan.shape.coupled:
        values["MASTER_ADDR"] = f"{plan.name}-0.{SERVICE}.{namespace}.svc"
        values.setdefault("MASTER_PORT", str(MASTER_PORT))
    if not plan.shape.gpus_per_process:
        # Some images and container runtimes hand every GPU of a node to whoever does not decline.
        values |= {"CUDA_VISIBLE_DEVICES": "", "NVIDIA_VISIBLE_DEVICES": "void"}
    for name, value in values.items():
        yield {"name": name, "value": value.replace("$", "$$")}
    # The Job's UID, which nobody knows when the Job is posted.
    yield _field(ATTEMPT, "metadata.labels['batch.kubernetes.io/controller-uid']")
    if not plan.shape.coupled:
        yield _field(contract.STOPS, "metadata.annotations['batch.kubernetes.io/job-index-ignored-failure-count']")


def _field(name: str, path: str) -> Object:
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def _resources(plan: JobPlan, spec: ExperimentSpec, *, gpus: bool) -> Object:
    asked = {
        "cpu": spec.resources.cpu,
        "memory": spec.resources.memory,
        "ephemeral-storage": spec.resources.ephemeral_storage,
    }
    if gpus and plan.shape.gpus_per_process:
        asked[plan.shape.gpu_resource or DEFAULT_GPU] = str(plan.shape.gpus_per_process)
    amounts = {name: amount for name, amount in asked.items() if amount is not None}
    return {"requests": amounts, "limits": dict(amounts)} if amounts else {}


def _claims(plan: JobPlan, spec: ExperimentSpec, profile: Profile) -> list[str]:
    """A claim for each GPU of a pod, where the profile gives claims and the mode names no resource of its own."""
    block = spec.block(plan.shape.mode)
    if not profile.resource_claim_template_name or (block is not None and block.gpu_resource is not None):
        return []
    return [f"gpu-{number}" for number in range(plan.shape.gpus_per_process)]


def _store_secret(store: StoreAccess) -> list[Object]:
    return [{"secretRef": {"name": store.secret_name}}] if store.secret_name else []


def _source(entry: EnvFrom) -> Object:
    kind, name = ("configMapRef", entry.config_map) if entry.config_map is not None else ("secretRef", entry.secret)
    return {kind: {"name": name}} | ({"prefix": entry.prefix} if entry.prefix else {})


def _volumes(spec: ExperimentSpec) -> Iterator[tuple[Object, Object]]:
    """Each volume with its mount: ours, then the user's."""
    field = {"fieldPath": f"metadata.annotations['{contract.SPEC_ANNOTATION}']", "apiVersion": "v1"}
    items = [{"path": contract.POD_SPEC_NAME, "fieldRef": field}]
    yield _volume("runonce-spec", contract.POD_SPEC_FOLDER, {"downwardAPI": {"items": items}}, read_only=True)
    yield _volume("runonce-scratch", contract.POD_SCRATCH, {"emptyDir": {}})
    if spec.resources.shm is not None:
        memory = {"emptyDir": {"medium": "Memory", "sizeLimit": spec.resources.shm}}
        yield _volume("runonce-shm", "/dev/shm", memory)  # noqa: S108 - of the pod's own
    for volume in spec.volumes:
        yield _volume(volume.name, volume.mount_path, _place(volume), read_only=volume.read_only)


def _volume(name: str, path: str, source: Object, *, read_only: bool = False) -> tuple[Object, Object]:
    return {"name": name, **source}, {"name": name, "mountPath": path} | ({"readOnly": True} if read_only else {})


def _place(volume: Volume) -> Object:
    if volume.persistent_volume_claim is not None:
        claim: Object = {"claimName": volume.persistent_volume_claim}
        return {"persistentVolumeClaim": claim | ({"readOnly": True} if volume.read_only else {})}
    if volume.config_map is not None:
        return {"configMap": {"name": volume.config_map}}
    if volume.secret is not None:
        return {"secret": {"secretName": volume.secret}}
    return {"hostPath": {"path": volume.host_path}}
