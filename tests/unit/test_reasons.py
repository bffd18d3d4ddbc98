"""Every reason that a condition can have stands in the tables of what to do about it, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runonce.experiment.blame import judge, named
from runonce.kube.job_state import job_state
from runonce.kube.objects import JobObject, PodObject

ROOT = Path(__file__).parents[2]
SERVICE, DOCS = ROOT / "service" / "runonce", ROOT / "docs"

# Where conditions get their reasons from. Every word of theirs that looks like one is one, or is named below.
SOURCES = [
    *sorted((SERVICE / "controller").glob("*.py")),
    *(SERVICE / "kube" / name for name in ("jobs.py", "waiting.py")),
    SERVICE / "experiment" / "blame.py",
    SERVICE / "store" / "s3_errors.py",
]
WORD = re.compile(r"[A-Z][a-z]+(?:[A-Z][A-Za-z]*)*|TLSFailed")

CONDITIONS = {"Accepted", "Ready", "Running", "Succeeded", "Failed", "CacheHit", "Reconciling", "Stalled"}
OF_KUBERNETES = {  # what it says, and what is asked of it
    "Unknown", "True", "False", "Complete", "Pending", "Suspended", "Blocked", "Skipped", "Foreground",
    "DisruptionTarget", "FailureTarget", "PodScheduled", "NamespaceTerminating", "Job",
    "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError",
    "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "FailedCreate",
}  # fmt: skip
OF_S3 = set(re.findall(r'"([A-Za-z0-9]+)"', (SERVICE / "store" / "s3_errors.py").read_text()))
OF_FAILURES = {"PodLost", "SupervisorLost", "EndedWithGroup", "Stopped", "ShardsMissing", "AttemptFailed", "OOMKilled"}
OTHERS = {"Content", "Moved"}  # told in passing, or no condition's
# Words of the kubelet for a pod that failed, which become the reason as they are.
OF_KUBELET = {
    "UnexpectedAdmissionError", "TopologyAffinityError", "NodeAffinity", "OutOfcpu", "OutOfmemory", "OutOfpods",
    "ContainerStatusUnknown",
}  # fmt: skip


def words(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and WORD.fullmatch(node.value):
            yield node.value


def refusals() -> set[str]:
    """First arguments of `_Refusal`: of S3, what a condition shows."""
    tree = ast.parse((SERVICE / "store" / "s3_errors.py").read_text(encoding="utf-8"))
    calls = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_Refusal"
    ]
    return {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}


def told() -> set[str]:
    rows = [
        "".join(line.split("|")[1:3])  # failures.md begins with the exit code
        for page in ("kubernetes.md", "failures.md", "stores.md")
        for line in (DOCS / page).read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    return {word for cell in rows for word in re.findall(r"`([A-Z][A-Za-z]+)`", cell)}


def reasons() -> set[str]:
    found = {word for path in SOURCES for word in words(path)} - OF_S3
    return (found - CONDITIONS - OF_KUBERNETES - OF_FAILURES - OTHERS) | refusals()


def test_every_reason_has_its_row():
    assert reasons() - told() == set()


def test_no_row_is_of_a_reason_that_there_is_not():
    """A row's words are somewhere in the code, as text or as the name of an error."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in SERVICE.rglob("*.py"))
    known = set(re.findall(r"[A-Za-z]+", text))
    others = OF_FAILURES | OF_KUBELET | CONDITIONS | {"OutOf"}
    shown = {word for word in told() if word not in others and not word.startswith("Killed")}
    assert shown - known == set()


def test_the_reasons_are_found_at_all():
    assert {"PodsRefused", "Unschedulable", "InputMissing", "StoreUnreachable", "Hung"} <= reasons()


@pytest.mark.parametrize("word", sorted(OF_KUBELET))
def test_a_word_of_the_kubelet_is_the_reason_and_has_a_row(word):
    assert word in told()
    status: dict[str, Any] = {"phase": "Failed", "reason": word, "message": "said so"}
    if word == "ContainerStatusUnknown":  # of the container, not of its pod
        ended = {"exitCode": 137, "reason": word, "message": "said so"}
        status = {"phase": "Failed", "containerStatuses": [{"name": "worker", "state": {"terminated": ended}}]}
    about = {"name": "x", "uid": "u", "resourceVersion": "1"}
    failed = {"conditions": [{"type": "Failed", "status": "True"}]}
    job = JobObject.model_validate({"metadata": about, "spec": {"completions": 1, "parallelism": 1}, "status": failed})
    index = {"batch.kubernetes.io/job-completion-index": "0"}
    pod = PodObject.model_validate({"metadata": about | {"annotations": index}, "status": status})
    (failure,) = job_state(job, [pod]).failures
    assert named(failure) == (word, "said so")
    assert judge([failure], coupled=True) == "charged"
