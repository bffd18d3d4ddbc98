"""Every reason that a condition can have stands in the tables of what to do about it, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

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
OTHERS = {"Content", "Invalid", "NextAttempt", "Moved"}  # told in passing, or no condition's


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
    shown = {word for word in told() if word not in OF_FAILURES | CONDITIONS and not word.startswith("Killed")}
    assert shown - known == set()


def test_the_reasons_are_found_at_all():
    assert {"PodsRefused", "Unschedulable", "InputMissing", "StoreUnreachable", "Hung"} <= reasons()
