"""Values that the documentation shows are values of the chart, and mean what the page says."""

from __future__ import annotations

import re
from typing import Any

import golden_jobs
import jsonschema
import pytest
import yaml
from tests.chart.conftest import ROOT, of_kind
from tests.chart.test_agree import configuration
from tests.unit.test_docs import blocks, codes, rows

from runonce.experiment.machine import DEFAULT_GPU
from runonce.experiment.spec import parse_experiment
from runonce.kube.cluster import parse_cluster
from runonce.kube.resources import build_job

DOCS = ROOT / "docs"
MACHINES = rows("machines.md", "Machine", "A GPU is", "A profile", "Good to know")


def shown(page: str, title: str) -> dict[str, Any]:
    """The values below a heading, of which there is one block."""
    text = re.split(rf"^##+ {re.escape(title)}\n", (DOCS / page).read_text(), flags=re.MULTILINE)[1]
    found = re.findall(r"^```yaml\n(.*?)^```", re.split(r"^##", text, flags=re.MULTILINE)[0], re.MULTILINE | re.DOTALL)
    (values,) = map(yaml.safe_load, found)
    return dict(values)


def experiment(**spec: Any) -> dict[str, Any]:
    given = {"command": ["./run"], "codeVersion": "label:x", **spec}
    return {"apiVersion": "runonce.dev/v1alpha1", "kind": "Experiment", "metadata": {"name": "x"}, "spec": given}


@pytest.mark.parametrize("place", [("get-started.md", "On your cluster"), ("stores.md", "Workload identity")], ids=str)
def test_values_that_are_shown_are_taken_by_chart_and_controller(helm, schema, place):
    values = shown(*place)
    jsonschema.validate(values, schema)
    cluster = parse_cluster(configuration(helm.render(values)))
    for part in ("stores", "profiles"):
        given = {
            name: one.model_dump(mode="json", by_alias=True, exclude_defaults=True)
            for name, one in getattr(cluster, part).items()
        }
        assert given == values.get(part, {})


def test_the_values_of_a_first_cluster_name_its_registry_and_its_secret(helm):
    values = shown("get-started.md", "On your cluster")
    (deployment,) = of_kind(helm.render(values), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith(f"{values['image']['registry']}/runonce-dev/controller:")
    assert container["envFrom"] == [{"secretRef": {"name": values["credentials"]["secretName"]}}]
    assert parse_cluster(configuration(helm.render(values))).worker_image.startswith(values["image"]["registry"])


def test_with_workload_identity_each_account_has_its_role_and_no_secret_is_named(helm):
    values = shown("stores.md", "Workload identity")
    objects = helm.render(values)
    roles = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): one["metadata"].get("annotations", {})
        for one in of_kind(objects, "ServiceAccount")
    }
    assert roles == {
        ("runonce-system", "lab-runonce"): values["controller"]["serviceAccount"]["annotations"],
        ("team-a", "runonce-worker"): values["workers"]["serviceAccount"]["annotations"],
    }
    (deployment,) = of_kind(objects, "Deployment")
    assert "secretRef" not in str(deployment)
    store = parse_cluster(configuration(objects)).stores["default"]
    assert (store.secret_name, store.service_account_name) == ("", "runonce-worker")


@pytest.mark.parametrize("row", MACHINES, ids=lambda row: row[0])
def test_a_profile_that_is_shown_asks_for_the_resource_of_its_row(schema, row):
    profiles = yaml.safe_load(codes(row[2])[0])
    jsonschema.validate({"profiles": profiles}, schema)
    settled = parse_cluster(yaml.safe_dump({"stores": {"default": {"url": "s3://x"}}, "profiles": profiles}))
    ((name, profile),) = profiles.items()
    resource = experiment(profile=name, image="x", machineParams={"train": {"nprocesses": 1, "gpuIds": [0]}})
    job = build_job(golden_jobs.plan_of(resource, settled), namespace="team-a", cluster=settled)
    pod = job["spec"]["template"]["spec"]
    asked = pod["containers"][0].get("resources", {}).get("limits", {})
    claims = [claim["resourceClaimTemplateName"] for claim in pod.get("resourceClaims", ())]
    if row[1] == "a claim":
        assert (claims, asked) == ([profile["resourceClaimTemplateName"]], {})
    else:
        assert (claims, asked[codes(row[1])[0]]) == ([], "1")
        assert profile.get("gpuResource", DEFAULT_GPU) == codes(row[1])[0]
    assert pod.get("nodeSelector", {}) == profile.get("nodeSelector", {})
    assert pod.get("tolerations", []) == profile.get("tolerations", [])


@pytest.mark.parametrize("row", MACHINES, ids=lambda row: row[0])
def test_what_is_said_to_be_shared_is_taken_for_shared(row):
    """Two processes on one id run at once there; elsewhere they take turns."""
    settled = parse_cluster(yaml.safe_dump({"profiles": yaml.safe_load(codes(row[2])[0])}))
    (name,) = settled.profiles
    resource = experiment(profile=name, machineParams={"test": {"nprocesses": 2, "gpuIds": [0]}})
    at_once = settled.shape(parse_experiment(resource).spec, "test").parallelism
    assert at_once == (2 if "taken for shared" in row[3] else 1)


def test_the_template_of_a_claim_is_the_one_that_the_profile_names():
    (template,) = (one for one in map(yaml.safe_load, blocks(DOCS / "machines.md", "yaml")) if "kind" in one)
    assert (template["apiVersion"], template["kind"]) == ("resource.k8s.io/v1", "ResourceClaimTemplate")
    (row,) = (row for row in MACHINES if row[1] == "a claim")
    (profile,) = yaml.safe_load(codes(row[2])[0]).values()
    assert profile["resourceClaimTemplateName"] == template["metadata"]["name"]
    assert len(template["spec"]["spec"]["devices"]["requests"]) == 1
