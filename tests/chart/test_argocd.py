"""The health check that Argo CD gets, run by a Lua interpreter as Argo CD runs it."""

from __future__ import annotations

from typing import Any

import pytest
from lupa import LuaRuntime
from tests.chart.conftest import CHART, of_kind
from tests.unit.test_status import ROWS, kstatus, subject

from runonce.controller.status import build_status, to_value
from runonce.experiment.phase import Phase
from runonce.experiment.status import Status

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


# What Argo CD and kstatus (Flux, kubectl) call each phase.
HEALTH = {"Succeeded": "Healthy", "Failed": "Degraded", "Blocked": "Degraded", "Suspended": "Suspended"}
KSTATUS = {"Healthy": "Current", "Degraded": "Failed"}


def resource(status: Status, generation: int = 3) -> dict[str, Any]:
    value = to_value(status)
    return {
        "metadata": {"generation": generation},
        "spec": {"suspend": status.phase == "Suspended"},
        "status": value,
    }


@pytest.mark.parametrize("row", ROWS)
def test_the_health_of_every_row_of_the_phase_table_agrees_with_the_phase_and_with_kstatus(row):
    seen, phase, _ = ROWS[row]
    given = resource(build_status(subject(), [seen], Status()))
    status, message = health(given)
    assert status == HEALTH.get(phase, "Progressing")
    assert kstatus(given["status"]) == KSTATUS.get(status, "InProgress")
    assert message or phase != "Failed"


def test_the_rows_have_every_phase_that_an_experiment_can_be_in():
    assert {phase for _, phase, _ in ROWS.values()} == set(Phase) - {Phase.SKIPPED}


def test_the_health_of_what_was_refused_of_trouble_and_of_an_edit_is_that_of_kstatus():
    done = build_status(subject(), [ROWS["hit"][0]], Status())
    refused = subject(accepted=("UnknownProfile", "spec.profile: is 'x'."), rejected=True)
    given = {
        "Degraded": resource(build_status(refused, [], Status())),
        "Progressing": resource(build_status(subject(trouble="the store is away"), [], done)),
    }
    for word, one in given.items():
        assert health(one)[0] == word
        assert kstatus(one["status"]) == KSTATUS.get(word, "InProgress")
    assert health(given["Degraded"])[1] == "spec.profile: is 'x'."
    edited = resource(done, generation=4)
    assert (health(edited)[0], kstatus(edited["status"], generation=4)) == ("Progressing", "InProgress")


def test_health_says_why():
    assert health(experiment(NOT_READY, STALLED))[1] == "Stalled says"


def test_the_chart_hands_out_the_check(helm):
    found = of_kind(helm.render({"argocd": {"healthCheck": True}}), "ConfigMap")
    (snippet,) = (one["data"] for one in found if one["metadata"]["namespace"] == "argocd")
    assert snippet["resource.customizations.health.runonce.dev_Experiment"].strip() == CHECK.strip()
