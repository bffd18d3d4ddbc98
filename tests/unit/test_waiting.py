"""Why a pod does not run, out of what the scheduler and the kubelet wrote of it."""

from __future__ import annotations

from typing import Any

import pytest

from runonce.kube.objects import PodObject
from runonce.kube.waiting import from_events, is_starting, why_waiting


def pod(phase: str = "Pending", *, node: str = "", waiting: str = "", said: str = "", **condition: str) -> PodObject:
    status: dict[str, Any] = {"phase": phase}
    if waiting:
        status["containerStatuses"] = [{"name": "worker", "state": {"waiting": {"reason": waiting, "message": said}}}]
    if condition:
        status["conditions"] = [condition]
    return PodObject.model_validate(
        {
            "metadata": {"name": "x-0", "uid": "u", "resourceVersion": "1"},
            "spec": {"nodeName": node} if node else {},
            "status": status,
        }
    )


UNBOUND = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}


@pytest.mark.parametrize(
    ("found", "reason", "text"),
    [
        (
            pod(**UNBOUND, message="0/1 nodes are available: 1 Insufficient nvidia.com/gpu."),
            "Unschedulable",
            "pod x-0: Unschedulable: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
        ),
        (pod(**UNBOUND | {"reason": "SchedulingGated"}), "Unschedulable", "pod x-0: SchedulingGated"),
        (
            pod(node="n", waiting="ErrImagePull", said="not found"),
            "ImageUnavailable",
            "pod x-0: ErrImagePull: not found",
        ),
        (
            pod(node="n", waiting="CreateContainerConfigError", said='secret "store" not found'),
            "ContainerRefused",
            'pod x-0: CreateContainerConfigError: secret "store" not found',
        ),
    ],
    ids=["no-room", "gated", "image", "secret"],
)
def test_a_pod_that_waits_says_why(found, reason, text):
    assert why_waiting(found) == (reason, text)
    assert not is_starting(found)


@pytest.mark.parametrize("phase", ["Running", "Succeeded", "Failed"])
def test_a_pod_that_ran_waits_for_nothing(phase):
    assert why_waiting(pod(phase, node="n", waiting="ImagePullBackOff")) is None


def test_a_pod_without_a_container_yet_says_why_in_its_events_alone():
    young = pod(node="n", waiting="ContainerCreating")
    assert is_starting(young)
    assert why_waiting(young) is None
    assert from_events(young, []) is None
    assert from_events(young, ["first", 'configmap "x" not found']) == (
        "PodNotStarting",
        'pod x-0: configmap "x" not found',
    )


def test_a_pod_that_no_node_has_yet_is_not_starting():
    assert not is_starting(pod())
