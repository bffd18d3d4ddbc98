"""The health check that Argo CD gets, run by a Lua interpreter as Argo CD runs it."""

from __future__ import annotations

from typing import Any

import pytest
from lupa import LuaRuntime
from tests.chart.conftest import CHART, of_kind

CHECK = (CHART / "files" / "argocd-health.lua").read_text()


def health(experiment: dict[str, Any]) -> tuple[str, str]:
    lua = LuaRuntime(unpack_returned_tuples=True)
    lua.globals().obj = lua.table_from(experiment, recursive=True)
    found = lua.execute(CHECK)
    return found["status"], found["message"]


def experiment(*conditions: tuple[str, str], seen: int = 2, suspend: bool = False, **metadata: str) -> dict[str, Any]:
    return {
        "metadata": {"generation": 2, **metadata},
        "spec": {"suspend": suspend},
        "status": {
            "observedGeneration": seen,
            "phase": "Running",
            "conditions": [{"type": t, "status": s, "reason": "R", "message": f"{t} says"} for t, s in conditions],
        },
    }


READY, STALLED, RECONCILING = ("Ready", "True"), ("Stalled", "True"), ("Reconciling", "True")
NOT_READY = ("Ready", "False")


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"metadata": {"generation": 1}, "spec": {}}, "Progressing"),
        ({"metadata": {"generation": 1}, "spec": {}, "status": {"observedGeneration": -1}}, "Progressing"),
        (experiment(READY, seen=1), "Progressing"),
        (experiment(READY, deletionTimestamp="2026-01-01T00:00:00Z"), "Progressing"),
        (experiment(NOT_READY, RECONCILING), "Progressing"),
        (experiment(NOT_READY, STALLED), "Degraded"),
        (experiment(NOT_READY, STALLED, suspend=True), "Degraded"),
        (experiment(NOT_READY, suspend=True), "Suspended"),
        (experiment(NOT_READY), "Progressing"),
        (experiment(READY), "Healthy"),
        (experiment(READY, suspend=True), "Healthy"),
        (experiment(("Stalled", "False"), READY), "Healthy"),
    ],
    ids=str,
)
def test_health_follows_the_conditions(given, status):
    assert health(given)[0] == status


def test_health_says_why():
    assert health(experiment(NOT_READY, STALLED))[1] == "Stalled says"


def test_the_chart_hands_out_the_check(helm):
    found = of_kind(helm.render({"argocd": {"healthCheck": True}}), "ConfigMap")
    (snippet,) = (one["data"] for one in found if one["metadata"]["namespace"] == "argocd")
    assert snippet["resource.customizations.health.runonce.dev_Experiment"].strip() == CHECK.strip()
