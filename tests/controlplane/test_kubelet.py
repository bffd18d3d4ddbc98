"""The kubelet that tests play is believed by the Job controller: what it writes leads to what a real one leads to."""

from __future__ import annotations

import pytest
from control_plane import wait_for
from kubelet import index_of

JOB = {
    "completions": 2,
    "parallelism": 2,
    "completionMode": "Indexed",
    "backoffLimit": 0,
    "podReplacementPolicy": "Failed",
    "podFailurePolicy": {
        "rules": [
            {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [0]}},
        ]
    },
    "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "worker", "image": "x"}]}},
}


@pytest.fixture
def job(api, namespace):
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    api.must("POST", path, {"metadata": {"name": "j", "finalizers": ["foregroundDeletion"]}, "spec": JOB})
    return lambda: api.get(f"{path}/j")


def conditions(job) -> dict[str, str]:
    return {c["type"]: c.get("message", "") for c in job["status"].get("conditions", []) if c["status"] == "True"}


def ended(job) -> dict[str, str] | None:
    found = conditions(job())
    return found if {"Complete", "Failed"} & set(found) else None


def test_pods_that_end_well_complete_the_job(job, kubelet, namespace):
    with kubelet.playing(namespace):
        assert "Complete" in wait_for("the end of the Job", lambda: ended(job))
    assert job()["status"]["completedIndexes"] == "0,1"


def test_an_exit_code_is_what_the_failure_policy_sees(job, kubelet, namespace):
    with kubelet.playing(namespace, lambda pod: 42 if index_of(pod) == 1 else None):
        found = wait_for("the end of the Job", lambda: ended(job))
    assert "failed with exit code 42 matching FailJob rule at index 1" in found["Failed"]


def test_an_eviction_is_a_disruption(job, kubelet, namespace):
    pods = wait_for("two pods", lambda: len(found := kubelet.pods(namespace, "j")) == 2 and found)
    for pod in pods:
        kubelet.start(pod)
    kubelet.disrupt(pods[0])
    kubelet.end(pods[0], 143)
    wait_for("the other's deletion", lambda: "FailureTarget" in conditions(job()))
    with kubelet.playing(namespace, lambda _: None):
        found = wait_for("the end of the Job", lambda: ended(job))
    assert "has condition DisruptionTarget matching FailJob rule at index 0" in found["Failed"]


def test_a_deleted_job_goes_when_its_last_pod_has_ended(job, api, kubelet, namespace):
    pods = wait_for("two pods", lambda: len(found := kubelet.pods(namespace, "j")) == 2 and found)
    for pod in pods:
        kubelet.start(pod)
    api.must("DELETE", f"/apis/batch/v1/namespaces/{namespace}/jobs/j", {"propagationPolicy": "Foreground"})
    kubelet.remove(wait_for("a terminating pod", lambda: _terminating(kubelet.pods(namespace, "j")))[0])
    assert job() is not None
    with kubelet.playing(namespace, lambda _: None):
        wait_for("the Job's end", lambda: job() is None)


def _terminating(pods):
    found = [pod for pod in pods if "deletionTimestamp" in pod["metadata"]]
    return found if len(found) == 2 else None
