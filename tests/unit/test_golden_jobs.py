"""The golden Jobs against the table of docs/machines.md and the fields of a pod, row by row.

What a file holds is made by the code; here stands what it has to say, so that a file that was made anew without a look
at it is found.
"""

from __future__ import annotations

import json
import re
from typing import Any

import golden_jobs
import pytest
import yaml

FILES = {path.stem: path for path in golden_jobs.FILES}

GPU = "nvidia.com/gpu"
POD = "spec.template.spec"
NONE: Any = None  # the field is not there


def gpus(number: int, resource: str = GPU) -> dict[str, Any]:
    return {"worker.resources": {"requests": {resource: str(number)}, "limits": {resource: str(number)}}}


COUPLED = {
    "spec.backoffLimit": 0,
    "spec.backoffLimitPerIndex": NONE,
    "rules": [],
    f"{POD}.subdomain": "runonce-pods",
}
INDEPENDENT = {
    "spec.backoffLimit": 2**31 - 1,
    "spec.backoffLimitPerIndex": 2,
    "rules": ["FailJob In 77 78", "Ignore DisruptionTarget", "Ignore In 75"],
    f"{POD}.subdomain": NONE,
}
ON_CPU = {"worker.resources": NONE, "env.CUDA_VISIBLE_DEVICES": "", "env.NVIDIA_VISIBLE_DEVICES": "void"}


def shape(completions: int, parallelism: int) -> dict[str, Any]:
    return {"spec.completions": completions, "spec.parallelism": parallelism}


# File to what its Job says. The first rows are the table's, then one for each thing that a pod can be told.
ROWS: dict[str, dict[str, Any]] = {
    "cpu": shape(3, 3) | ON_CPU | INDEPENDENT,
    "cpu-minus-one": shape(2, 2) | ON_CPU,
    "gpus-multiple": shape(2, 2) | gpus(2) | COUPLED | {"env.CUDA_VISIBLE_DEVICES": NONE},
    "coupled-gpus": shape(4, 4) | gpus(1) | COUPLED,
    "turns": shape(5, 2) | gpus(1) | INDEPENDENT,
    "shared": shape(3, 3) | gpus(1, "nvidia.com/gpu.shared") | COUPLED,
    "mig": shape(4, 4) | gpus(1, "nvidia.com/mig-1g.10gb") | COUPLED,
    "profile-mig": shape(2, 2) | gpus(1, "nvidia.com/mig-1g.10gb") | COUPLED,
    "other-maker": shape(1, 1) | gpus(1, "amd.com/gpu"),
    "profile-amd": shape(1, 1) | gpus(2, "amd.com/gpu"),
    "profile-claim": {
        "worker.resources": {"claims": [{"name": "gpu-0"}, {"name": "gpu-1"}]},
        f"{POD}.resourceClaims": [
            {"name": "gpu-0", "resourceClaimTemplateName": "one-h200"},
            {"name": "gpu-1", "resourceClaimTemplateName": "one-h200"},
        ],
    },
    "profile-claim-own": gpus(1, "gpu.intel.com/xe") | {f"{POD}.resourceClaims": NONE},
    "per-device": shape(5, 2) | gpus(1) | INDEPENDENT,
    "per-device-zero": shape(3, 1) | gpus(1),
    "per-device-coupled": shape(2, 2) | gpus(1) | COUPLED,
    "coupled-cpu": shape(2, 2) | ON_CPU | COUPLED | {"env.MASTER_PORT": "29400"},
    "coupled-test": shape(2, 2) | COUPLED,
    "independent-train": shape(2, 2) | INDEPENDENT | {"env.MASTER_ADDR": NONE},
    "retries": INDEPENDENT | {"spec.backoffLimitPerIndex": 7},
    "deadline": {f"{POD}.activeDeadlineSeconds": 3600, "spec.activeDeadlineSeconds": NONE},
    "time-to-live": {"spec.ttlSecondsAfterFinished": NONE},
    "suspended": {"spec.suspend": True},
    "queue": {"spec.suspend": True, "labels.kueue.x-k8s.io/queue-name": "research"},
    "names": shape(100_000, 100_000) | {"labels.runonce.dev/experiment": NONE},
    "resources": {
        "worker.resources.requests": {"cpu": "2", "memory": "4Gi", "ephemeral-storage": "10Gi"},
        "worker.resources.limits": {"cpu": "2", "memory": "4Gi", "ephemeral-storage": "10Gi"},
        "volumes.runonce-shm": {"emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        "mounts.runonce-shm": "/dev/shm",
    },
    "selectors": {
        f"{POD}.nodeSelector": {"disk": "ssd"},
        f"{POD}.tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
    },
    "profile": {
        f"{POD}.nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB", "pool": "mine", "disk": "ssd"},
        f"{POD}.tolerations": [
            {"key": GPU, "operator": "Exists", "effect": "NoSchedule"},
            {"key": "spot", "operator": "Equal", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 60},
        ],
    },
    "accounts": {
        "worker.image": f"registry.example.com/digits@sha256:{'0' * 63}1",
        f"{POD}.imagePullSecrets": [{"name": "registry"}],
        f"{POD}.serviceAccountName": "trainer",
        f"{POD}.automountServiceAccountToken": NONE,
        f"{POD}.priorityClassName": "system-cluster-critical",
    },
    "store-identity": {f"{POD}.serviceAccountName": "store", f"{POD}.automountServiceAccountToken": False},
    "places": {
        "worker.envFrom": [
            {"configMapRef": {"name": "settings"}},
            {"secretRef": {"name": "tracker"}, "prefix": "WANDB_"},
            {"secretRef": {"name": "store-access"}},
        ],
        "volumes.data": {"persistentVolumeClaim": {"claimName": "data", "readOnly": True}},
        "mounts.data": "/data",
    },
    "host-path": {"volumes.scratch": {"hostPath": {"path": "/mnt/nvme"}}, "mounts.scratch": "/scratch"},
    "env": {"env.GREETING": "a $$(HOME) b $$$$ c", "env.EMPTY": "", "env.NCCL_DEBUG": "INFO"},
    "command": {"worker.command": ["runonce", "worker"], f"{POD}.subdomain": NONE},
    "inputs": {"labels.runonce.dev/mode": "test", "env.RUNONCE_TOTAL": "1"},
}


def job_of(row: str) -> dict[str, Any]:
    found: dict[str, Any] = list(yaml.safe_load_all(FILES[row].read_text(encoding="utf-8")))[1]
    return found


def rule(one: dict[str, Any]) -> str:
    codes = one.get("onExitCodes")
    if codes:
        return " ".join([one["action"], codes["operator"], *map(str, codes["values"])])
    (condition,) = one["onPodConditions"]
    return f"{one['action']} {condition['type']}"


def views(job: dict[str, Any]) -> dict[str, Any]:
    """Short ways into a Job: lists of things with a name as mappings."""
    pod = job["spec"]["template"]["spec"]
    (worker,) = pod["containers"]
    return {
        "spec": job["spec"],
        "labels": job["metadata"]["labels"],
        "worker": worker,
        "env": {one["name"]: one.get("value") for one in worker["env"]},
        "volumes": {one["name"]: {k: v for k, v in one.items() if k != "name"} for one in pod["volumes"]},
        "mounts": {one["name"]: one["mountPath"] for one in worker["volumeMounts"]},
        "rules": [rule(one) for one in job["spec"].get("podFailurePolicy", {"rules": []})["rules"]],
    }


def at(job: dict[str, Any], path: str) -> Any:
    """Names hold dots, so the rest of a path is tried whole first."""
    value: Any = views(job)
    while path:
        if path in value:
            return value[path]
        name, _, path = path.partition(".")
        value = value.get(name, {})
    return NONE


@pytest.mark.parametrize(("row", "path"), [(row, path) for row, wanted in ROWS.items() for path in wanted])
def test_a_golden_job_says_what_its_row_of_the_table_says(row, path):
    assert at(job_of(row), path) == ROWS[row][path]


def test_every_golden_file_has_a_row_and_every_row_a_file():
    assert ROWS.keys() == FILES.keys()


@pytest.mark.parametrize("row", FILES)
def test_what_every_job_has(row):
    job = job_of(row)
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (worker,) = pod["containers"]
    assert (spec["completionMode"], spec["podReplacementPolicy"]) == ("Indexed", "Failed")
    assert job["metadata"]["finalizers"] == ["foregroundDeletion"]
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["controller"], "blockOwnerDeletion" in owner) == ("Experiment", True, False)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", job["metadata"]["name"])
    assert len(f"{job['metadata']['name']}-{spec['completions'] - 1}") <= 63
    assert job["metadata"]["annotations"]["runonce.dev/cache-key"].startswith(
        job["metadata"]["labels"]["runonce.dev/cache-key"]
    )
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == ("Never", 120)
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert worker["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert worker["terminationMessagePolicy"] == "FallbackToLogsOnError"


@pytest.mark.parametrize("row", FILES)
def test_the_contract_with_the_pod(row):
    job = job_of(row)
    env, annotations = views(job)["env"], job["spec"]["template"]["metadata"]["annotations"]
    assert (env["RUNONCE_CONTRACT"], env["RUNONCE_MODE"]) == ("1", job["metadata"]["labels"]["runonce.dev/mode"])
    assert env["RUNONCE_CACHE_KEY"] == job["metadata"]["annotations"]["runonce.dev/cache-key"]
    assert env["RUNONCE_TOTAL"] == str(job["spec"]["completions"])
    assert env["RUNONCE_ROUND"] == json.loads(job["metadata"]["annotations"]["runonce.dev/round"])["round"]
    assert env["RUNONCE_STORE"].startswith("s3://results/")
    assert json.loads(annotations["runonce.dev/spec"])["params" if row != "command" else "command"]
    assert env["RUNONCE_SPEC_FILE"] == "/runonce/spec.json"
    assert views(job)["mounts"]["runonce-spec"] == "/runonce"
    inputs = json.loads(env["RUNONCE_INPUTS"])
    assert set(inputs) == ({"train"} if row == "inputs" else set())
    assert "RUNONCE_ATTEMPT" in env


def test_rank_0_is_found_by_the_name_that_its_host_has():
    job = job_of("coupled-cpu")
    assert views(job)["env"]["MASTER_ADDR"] == f"{job['metadata']['name']}-0.runonce-pods.team-a.svc"
    service = list(yaml.safe_load_all(FILES["coupled-cpu"].read_text(encoding="utf-8")))[2]
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
