"""Every golden Job is taken by a real API server as it stands, and its pods by the strictest level of pod security."""

from __future__ import annotations

import copy

import golden_jobs
import pytest
import yaml
from control_plane import wait_for
from kubelet import Kubelet

ROWS = {path.stem: path for path in golden_jobs.FILES}


@pytest.fixture(scope="module")
def restricted(control_plane):
    labels = {f"pod-security.kubernetes.io/{level}": "restricted" for level in ("enforce", "warn")}
    with control_plane.namespace(**labels) as name:
        for account in ("trainer", "store"):
            control_plane.api().must(
                "POST", f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": account}}
            )
        yield name


def objects(row: str, namespace: str) -> list[dict]:
    made = list(yaml.safe_load_all(ROWS[row].read_text(encoding="utf-8")))[1:]
    for one in made:
        one["metadata"]["namespace"] = namespace
    return made


def post_job(api, job: dict):
    path = f"/apis/batch/v1/namespaces/{job['metadata']['namespace']}/jobs"
    return api.request("POST", path, job, fieldValidation="Strict")


@pytest.mark.parametrize("row", ROWS)
def test_the_server_takes_the_job_and_adds_no_warning(api, restricted, row):
    answer = post_job(api, objects(row, restricted)[0])
    assert answer.status == 201, answer.message
    warning = answer.headers.get("Warning", "")
    assert ("hostPath" in warning) if row == "host-path" else not warning


@pytest.mark.parametrize("row", ROWS)
def test_its_pods_pass_the_restricted_level(api, restricted, row):
    template = objects(row, restricted)[0]["spec"]["template"]
    metadata = template["metadata"] | {"name": "pod"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    answer = api.request("POST", f"/api/v1/namespaces/{restricted}/pods", pod, dryRun="All", fieldValidation="Strict")
    if row == "host-path":
        assert answer.status == 403
        assert 'violates PodSecurity "restricted' in answer.message
        assert "hostPath" in answer.message
    else:
        assert answer.status == 201, answer.message
        assert not answer.headers.get("Warning", "")


def test_the_service_is_taken_and_a_second_one_is_told(api, namespace):
    service = objects("coupled-cpu", namespace)[1]
    path = f"/api/v1/namespaces/{namespace}/services"
    assert api.request("POST", path, service, fieldValidation="Strict").status == 201
    assert api.request("POST", path, service, fieldValidation="Strict").status == 409


def without_owner(job: dict) -> dict:
    """An owner that does not exist would have the Job collected at once."""
    job = copy.deepcopy(job)
    del job["metadata"]["ownerReferences"]
    return job


def test_pods_of_a_coupled_job_have_the_host_name_that_they_are_told(api, namespace):
    (job, service) = objects("coupled-cpu", namespace)
    api.must("POST", f"/api/v1/namespaces/{namespace}/services", service)
    assert post_job(api, without_owner(job)).status == 201
    kubelet = Kubelet(api)
    name = job["metadata"]["name"]
    pods = wait_for("two pods", lambda: len(found := kubelet.pods(namespace, name)) == 2 and found)
    assert [pod["spec"]["hostname"] for pod in pods] == [f"{name}-0", f"{name}-1"]
    assert {pod["spec"]["subdomain"] for pod in pods} == {"runonce-pods"}
    kubelet.start(pods[0])

    def published():
        slices = api.must("GET", f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices")["items"]
        return [e["hostname"] for s in slices for e in s.get("endpoints") or [] if "hostname" in e]

    assert wait_for("the address of index 0", published) == [f"{name}-0"]


def test_the_uid_that_a_pod_reads_as_its_attempt_is_the_jobs(api, namespace):
    (job, *_) = objects("cpu", namespace)
    uid = post_job(api, without_owner(job)).body["metadata"]["uid"]
    kubelet = Kubelet(api)
    pods = wait_for("pods", lambda: kubelet.pods(namespace, job["metadata"]["name"]))
    assert {pod["metadata"]["labels"]["batch.kubernetes.io/controller-uid"] for pod in pods} == {uid}
    variables = {entry["name"]: entry for entry in pods[0]["spec"]["containers"][0]["env"]}
    assert variables["RUNONCE_ATTEMPT"]["valueFrom"]["fieldRef"]["fieldPath"].endswith(
        "['batch.kubernetes.io/controller-uid']"
    )
    assert "JOB_COMPLETION_INDEX" in variables
