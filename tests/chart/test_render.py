"""What the chart makes: safe by default, small rights, one registry, and Helm's own check."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from tests.chart.conftest import CHART, of_kind


@pytest.fixture(params=["defaults", "everything"])
def rendered(request, helm, everything) -> list[dict[str, Any]]:
    return helm.render(everything if request.param == "everything" else None)


def test_helm_finds_nothing_to_say_against_it(helm, everything, tmp_path):
    path = tmp_path / "everything.yaml"
    path.write_text(yaml.safe_dump(everything))
    for more in ([], ["--values", str(path)]):
        said = helm.call("lint", "--strict", str(CHART), *more).stdout
        assert "0 chart(s) failed" in said
        assert "[WARNING]" not in said


def test_every_object_has_a_place_and_the_labels_that_tell_whose_it_is(rendered):
    of_cluster = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
    for found in rendered:
        name = f"{found['kind']} {found['metadata']['name']}"
        assert {"app.kubernetes.io/name", "app.kubernetes.io/instance"} <= set(found["metadata"]["labels"]), name
        assert ("namespace" in found["metadata"]) == (found["kind"] not in of_cluster), name
        assert len(found["metadata"]["name"]) <= 63, name
    names = [(found["kind"], found["metadata"].get("namespace"), found["metadata"]["name"]) for found in rendered]
    assert len(names) == len(set(names))


def test_the_labels_that_a_selector_uses_never_change(helm):
    """A selector of a Deployment cannot be changed; a version in it would break the next upgrade."""
    (deployment,) = of_kind(
        helm.render({"commonLabels": {"x": "y"}, "controller": {"podLabels": {"a": "b"}}}), "Deployment"
    )
    assert sorted(deployment["spec"]["selector"]["matchLabels"]) == [
        "app.kubernetes.io/component",
        "app.kubernetes.io/instance",
        "app.kubernetes.io/name",
    ]
    assert {"x", "a"} <= set(deployment["spec"]["template"]["metadata"]["labels"])


def test_every_pod_satisfies_the_restricted_pod_security_standard(rendered):
    pods = [found["spec"] for found in of_kind(rendered, "Pod")]
    pods += [found["spec"]["template"]["spec"] for found in of_kind(rendered, "Deployment")]
    assert len(pods) == 2
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert all("hostPath" not in volume for volume in pod.get("volumes", []))
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def rules(objects: list[dict[str, Any]], component: str = "controller") -> list[dict[str, Any]]:
    roles = [*of_kind(objects, "Role"), *of_kind(objects, "ClusterRole")]
    mine = [role for role in roles if role["metadata"]["labels"]["app.kubernetes.io/component"] == component]
    return [rule for role in mine for rule in role["rules"]]


def test_the_controller_reads_no_secret_creates_no_pod_and_has_no_wildcard(rendered):
    for rule in rules(rendered):
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert not {"secrets", "configmaps", "pods/exec", "pods/log", "serviceaccounts/token"} & set(rule["resources"])
        if "pods" in rule["resources"]:
            assert set(rule["verbs"]) == {"list"}


def test_named_namespaces_need_no_right_on_the_cluster(helm):
    found = helm.render({"namespaces": ["team-a", "team-b"]})
    assert of_kind(found, "ClusterRoleBinding") == []
    roles = {(role["metadata"]["namespace"], role["metadata"]["name"]) for role in of_kind(found, "Role")}
    assert roles == {("team-a", "lab-runonce"), ("team-b", "lab-runonce"), ("runonce-system", "lab-runonce-lease")}
    for binding in of_kind(found, "RoleBinding"):
        assert [subject["namespace"] for subject in binding["subjects"]] == ["runonce-system"]
        assert (binding["metadata"]["namespace"], binding["roleRef"]["name"]) in roles


def test_the_rights_are_the_same_in_a_namespace_and_in_all(helm):
    everywhere, named = helm.render(), helm.render({"namespaces": ["a"]})
    key = str
    assert sorted(rules(everywhere), key=key) == sorted(rules(named), key=key)


def test_those_who_may_edit_a_namespace_may_write_experiments_and_never_their_status(helm):
    users = rules(helm.render(), "users")
    assert {verb for rule in users for verb in rule["verbs"]} == {
        "get", "list", "watch", "create", "update", "patch", "delete",
    }  # fmt: skip
    assert all(rule["resources"] == ["experiments"] for rule in users)


def test_one_registry_is_that_of_all_images(helm):
    text = helm.text({"image": {"registry": "mirror.example.com"}})
    images = {line.split("image: ")[1] for line in text.splitlines() if " image: " in line}
    config = yaml.safe_load(configuration(helm.render({"image": {"registry": "mirror.example.com"}})))
    assert images == {"mirror.example.com/runonce-dev/controller:0.1.0"}
    assert config["workerImage"].startswith("mirror.example.com/")
    (unnamed,) = of_kind(helm.render({"image": {"registry": ""}}), "Deployment")
    assert unnamed["spec"]["template"]["spec"]["containers"][0]["image"] == "runonce-dev/controller:0.1.0"


def configuration(objects: list[dict[str, Any]]) -> str:
    (found,) = (one for one in of_kind(objects, "ConfigMap") if "config.yaml" in one["data"])
    text: str = found["data"]["config.yaml"]
    return text


def test_a_changed_configuration_starts_a_new_controller(helm):
    def checksum(values: dict[str, Any]) -> str:
        (found,) = of_kind(helm.render(values), "Deployment")
        text: str = found["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        return text

    one = {"stores": {"default": {"url": "s3://one"}}}
    assert checksum(one) == checksum({**one, "commonLabels": {"a": "b"}})
    assert checksum(one) != checksum({"stores": {"default": {"url": "s3://two"}}})


def test_a_single_controller_never_keeps_a_node_from_being_drained(helm):
    (budget,) = of_kind(helm.render(), "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    assert "minAvailable" not in budget["spec"]


def test_only_the_controllers_port_is_reached(helm):
    (policy,) = of_kind(helm.render(), "NetworkPolicy")
    assert policy["spec"]["ingress"] == [{"ports": [{"port": "http"}]}]
    assert policy["spec"]["egress"] == [{}]


def test_pods_of_experiments_are_reached_by_their_peers_alone(helm):
    policies = of_kind(helm.render({"namespaces": ["team-a"]}), "NetworkPolicy")
    (policy,) = (found for found in policies if found["metadata"]["namespace"] == "team-a")
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    assert policy["spec"]["ingress"] == [{"from": [{"podSelector": policy["spec"]["podSelector"]}]}]


def test_workers_get_no_token_of_the_api_server(helm):
    values = {"namespaces": ["a"], "workers": {"serviceAccount": {"create": True}}}
    (account,) = (
        found for found in of_kind(helm.render(values), "ServiceAccount") if found["metadata"]["namespace"] == "a"
    )
    assert account["automountServiceAccountToken"] is False


def test_the_notes_say_what_is_missing(helm):
    def notes(*more: str) -> str:
        return helm.call("install", "lab", str(CHART), "--dry-run=client", *more).stdout.partition("NOTES:")[2]

    assert 'no store named "default" yet' in notes()
    given = ("--set", "stores.default.url=s3://bucket")
    assert 'Pods get no credentials for the store "default"' in notes(*given)
    assert "credentials" not in notes(*given, "--set", "stores.default.secretName=x")


def test_the_resource_is_renewed_by_every_upgrade_and_kept_when_the_chart_goes(helm):
    """Helm never touches crds/ again, so the chart's templates bring it."""
    (crd,) = of_kind(helm.render(), "CustomResourceDefinition")
    assert crd["metadata"]["name"] == "experiments.runonce.dev"
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not (CHART / "crds").exists()
    assert of_kind(helm.render({"crds": {"install": False}}), "CustomResourceDefinition") == []
    (mortal,) = of_kind(helm.render({"crds": {"keep": False}}), "CustomResourceDefinition")
    assert "helm.sh/resource-policy" not in mortal["metadata"].get("annotations", {})
