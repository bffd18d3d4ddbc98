"""Why a pod that is there does not run: what the scheduler and the kubelet say of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from runonce.kube.objects import PodObject

_IMAGE = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError")
_CONTAINER = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")

UNSCHEDULABLE, IMAGE, CONTAINER, MOUNT = "Unschedulable", "ImageUnavailable", "ContainerRefused", "PodNotStarting"


def why_waiting(pod: PodObject) -> tuple[str, str] | None:
    """Reason of a condition, and the text for it; None where it runs, or nobody said why it does not yet."""
    if pod.status.phase != "Pending":
        return None
    for condition in pod.status.conditions:
        if condition.type == "PodScheduled" and condition.status == "False":
            return UNSCHEDULABLE, _text(pod, condition.reason or UNSCHEDULABLE, condition.message)
    for container in pod.status.container_statuses:
        waiting = container.state.waiting
        if waiting is not None and waiting.reason in _IMAGE:
            return IMAGE, _text(pod, waiting.reason, waiting.message)
        if waiting is not None and waiting.reason in _CONTAINER:
            return CONTAINER, _text(pod, waiting.reason, waiting.message)
    return None


def is_starting(pod: PodObject) -> bool:
    """On its node, with no container yet: what keeps it from that, a volume say, stands in its events alone."""
    return pod.status.phase == "Pending" and bool(pod.spec.node_name) and why_waiting(pod) is None


def from_events(pod: PodObject, messages: Sequence[str]) -> tuple[str, str] | None:
    """messages: of the pod's warnings, the newest last."""
    return (MOUNT, _text(pod, "", messages[-1])) if messages else None


def _text(pod: PodObject, reason: str, message: str) -> str:
    return f"pod {pod.metadata.name}: " + ": ".join(part for part in (reason, message) if part)
