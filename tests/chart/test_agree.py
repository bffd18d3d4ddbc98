"""Chart and controller agree: configuration, rights, probes, metrics. Each is written in two places and means one thing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml
from tests.chart.conftest import CHART, of_kind

import runonce
from runonce.kube.cluster import parse_cluster
from runonce.kube.rights import LEASE_RULES, RULES

METRICS = (Path(runonce.__file__).parent / "controller" / "metrics.py").read_text()


def configuration(objects: list[dict[str, Any]]) -> str:
    (found,) = (one for one in of_kind(objects, "ConfigMap") if "config.yaml" in one["data"])
    text: str = found["data"]["config.yaml"]
    return text


def test_the_controller_takes_the_configuration_of_the_defaults(helm):
    cluster = parse_cluster(configuration(helm.render()))
    assert (cluster.cluster, cluster.namespaces, cluster.stores, cluster.port) == ("lab", (), {}, 8080)
    assert cluster.worker_image == f"ghcr.io/runonce-dev/worker:{runonce.__version__}"


def test_the_controller_takes_every_value_as_it_was_given(helm, everything):
    cluster = parse_cluster(configuration(helm.render(everything)))
    assert cluster.cluster == everything["clusterName"]
    assert list(cluster.namespaces) == everything["namespaces"]
    for part in ("stores", "profiles"):
        given = {
            name: one.model_dump(mode="json", by_alias=True, exclude_defaults=True)
            for name, one in getattr(cluster, part).items()
        }
        assert given == everything[part]
    assert (cluster.port, cluster.workers, cluster.log_level) == (9090, 4, "debug")
    assert cluster.signing is not None
    assert cluster.signing.required


def rules_of(objects: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    roles = [*of_kind(objects, "Role"), *of_kind(objects, "ClusterRole")]
    (rules,) = (one["rules"] for one in roles if one["metadata"]["name"] == name)
    return list(rules)


def granted(objects: list[dict[str, Any]], name: str) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for rule in rules_of(objects, name)
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize(("name", "calls"), [("lab-runonce", RULES), ("lab-runonce-lease", LEASE_RULES)])
def test_the_controller_may_do_what_it_calls_and_no_more(helm, name, calls):
    asked = {(group, resource, verb) for group, resource, verbs in calls for verb in verbs}
    assert granted(helm.render(), name) == asked


def test_of_leases_the_controller_reads_and_writes_its_own_alone(helm):
    """Two releases of one namespace, each with namespaces of its own to watch, both work."""
    things = helm.render()
    limits = {
        verb: rule.get("resourceNames") for rule in rules_of(things, "lab-runonce-lease") for verb in rule["verbs"]
    }
    lease = yaml.safe_load(configuration(things))["lease"]
    assert limits == {"create": None, "get": [lease], "update": [lease]}  # no create by name in Kubernetes
    assert lease == "lab-runonce"


def test_every_probe_and_scrape_asks_for_what_the_controller_answers(helm, everything):
    from runonce.controller.health import Health

    health = Health("127.0.0.1", 0, alive=lambda: "", ready=lambda: "", metrics=lambda: b"")
    try:
        objects = helm.render(everything)
        (deployment,) = of_kind(objects, "Deployment")
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        paths = {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
        (monitor,) = of_kind(objects, "ServiceMonitor")
        paths |= {endpoint["path"] for endpoint in monitor["spec"]["endpoints"]}
        (test,) = of_kind(objects, "Pod")
        (asked,) = re.findall(r"for path in (.*):", test["spec"]["containers"][0]["args"][0])
        paths |= {f"/{name}" for name in re.findall(r'"(\w+)"', asked)}
        assert len(paths) == 3
        for path in paths:
            with urlopen(f"http://127.0.0.1:{health.port}{path}", timeout=10) as answer:
                assert answer.status == 200
    finally:
        health.close()


def exposed() -> set[str]:
    counters = {
        f"{name}_total"
        for name in re.findall(r'_counter\("(\w+)"|CounterMetricFamily\("(\w+)"', METRICS)
        for name in name
        if name
    }
    gauges = {
        name for pair in re.findall(r'_gauge\("(\w+)"|GaugeMetricFamily\("(\w+)"', METRICS) for name in pair if name
    }
    return counters | gauges


def test_alerts_and_dashboard_ask_for_metrics_that_there_are(helm, everything):
    objects = helm.render(everything)
    (rules,) = of_kind(objects, "PrometheusRule")
    alerts = [rule for group in rules["spec"]["groups"] for rule in group["rules"]]
    (board,) = (one for one in of_kind(objects, "ConfigMap") if "runonce.json" in one["data"])
    panels = json.loads(board["data"]["runonce.json"])["panels"]
    asked = [rule["expr"] for rule in alerts] + [target["expr"] for panel in panels for target in panel["targets"]]
    names = {name for text in asked for name in re.findall(r"runonce_\w+", text)}
    assert names
    assert names <= exposed()
    for rule in alerts:
        assert {"summary", "description"} <= set(rule["annotations"])


def test_the_dashboard_shows_every_metric():
    shown = (CHART / "files" / "dashboard.json").read_text()
    assert {name for name in exposed() if name not in shown} == set()


def test_alerts_are_in_the_operations_guide():
    text = (CHART.parents[1] / "docs" / "operations.md").read_text()
    for group in yaml.safe_load((CHART / "files" / "alerts.yaml").read_text()):
        for rule in group["rules"]:
            assert f"`{rule['alert']}`" in text
