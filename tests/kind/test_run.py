"""Experiments in a real cluster: scheduler, kubelet, containers, network, store."""

from __future__ import annotations

import json
from typing import Any

import yaml
from cluster import DIGITS, ROOT, SITE_PACKAGES, SYSTEM, WORKER, Cluster

PYTHONPATH = {"PYTHONPATH": f"/site/{SITE_PACKAGES}", "OMP_NUM_THREADS": "1"}


def digits(name: str, **params: Any) -> dict[str, Any]:
    """examples/digits, as its file has it, with torch from this machine and what only a cluster needs."""
    experiment: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "digits" / "digits.yaml").read_text())
    experiment["metadata"]["name"] = name
    spec = experiment["spec"]
    spec |= {
        "image": DIGITS,
        "codeVersion": "label:kind",
        "volumes": [{"name": "site", "mountPath": "/site", "persistentVolumeClaim": "site"}],
    }
    spec["params"] |= {"epochs": 2, **params}
    for block in spec["machineParams"].values():
        block["env"] = PYTHONPATH
    return experiment


def program(name: str, script: str, *, nprocesses: int = 1, **fields: Any) -> dict[str, Any]:
    """A command in the shell's language. The script is in the key."""
    spec = {
        "command": ["sh", "-c", script],
        "codeVersion": "label:kind",
        "image": WORKER,
        "machineParams": {"train": {"nprocesses": nprocesses, "coupled": False}},
    }
    return {
        "apiVersion": "runonce.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": name},
        "spec": spec | fields,
    }


def submit(cluster: Cluster, namespace: str, experiment: dict[str, Any]) -> str:
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(experiment))
    return str(experiment["metadata"]["name"])


def condition(experiment: dict[str, Any], kind: str) -> dict[str, Any]:
    found = {one["type"]: one for one in experiment["status"]["conditions"]}
    return dict(found.get(kind, {}))


def pods_ever(cluster: Cluster, namespace: str) -> set[str]:
    events = cluster.get("events", namespace)
    return {event["involvedObject"]["name"] for event in events if event["involvedObject"]["kind"] == "Pod"}


def test_the_chart_is_healthy(cluster):
    cluster.call("helm", "test", "runonce", "--namespace", SYSTEM, "--timeout", "2m")


def test_two_coupled_processes_train_and_the_same_again_is_a_hit_without_a_pod(cluster, namespace):
    submit(cluster, namespace, digits("cold"))
    done = cluster.phase(namespace, "cold", "Succeeded", "Failed", seconds=420)
    assert done["status"]["phase"] == "Succeeded", cluster.report()
    assert condition(done, "CacheHit")["status"] == "False"
    jobs = {job["metadata"]["name"]: job["spec"]["completions"] for job in cluster.get("jobs", namespace)}
    assert sorted(jobs.values()) == [1, 2]
    before = pods_ever(cluster, namespace)
    submit(cluster, namespace, digits("again"))
    again = cluster.phase(namespace, "again", "Succeeded", "Failed", seconds=60)
    assert condition(again, "CacheHit")["status"] == "True"
    assert pods_ever(cluster, namespace) == before
    keys = [{mode: one["cacheKey"] for mode, one in found["status"]["modes"].items()} for found in (done, again)]
    assert keys[0] == keys[1]


def test_gpus_are_asked_for_by_name_and_what_no_node_has_waits_with_the_reason(cluster, namespace):
    cluster.fake_gpus("example.com/gpu", 2)
    experiment = program("some", "echo done > $RUNONCE_OUTPUT/x", nprocesses=4, profile="fake")
    experiment["spec"]["machineParams"]["train"]["gpuIds"] = [0, 1]
    submit(cluster, namespace, experiment)
    cluster.phase(namespace, "some", "Succeeded")
    (job,) = cluster.get("jobs", namespace)
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["example.com/gpu"] in (1, "1")
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (4, 2)
    many = program("many", "echo never", nprocesses=1, profile="fake")
    many["spec"]["machineParams"]["train"]["gpuIds"] = [0, 1, 2]
    submit(cluster, namespace, many)
    waiting = cluster.phase(namespace, "many", "Pending", "Running", "Failed")
    assert waiting["status"]["phase"] == "Pending", waiting["status"]
    unknown = submit(cluster, namespace, program("unknown", "echo never", profile="nothing"))
    refused = cluster.wait("a refusal", lambda: _accepted(cluster, namespace, unknown, "False"))
    assert refused["reason"] == "UnknownProfile"


def _accepted(cluster: Cluster, namespace: str, name: str, status: str) -> dict[str, Any] | None:
    found = cluster.experiment(namespace, name)
    accepted = condition(found, "Accepted") if found.get("status", {}).get("conditions") else {}
    return accepted if accepted.get("status") == status else None


def test_a_failing_program_is_tried_again_and_its_last_words_are_in_the_status(cluster, namespace):
    submit(cluster, namespace, program("broken", "echo these are the last words; exit 3", retries=1))
    failed = cluster.phase(namespace, "broken", "Failed", "Succeeded")
    failure = failed["status"]["modes"]["train"]["failure"]
    assert failed["status"]["phase"] == "Failed"
    assert (failure["exitCode"], "these are the last words" in failure["logTail"]) == (3, True)


def test_wrong_configuration_is_final(cluster, namespace):
    submit(cluster, namespace, program("wrong", "exit 78", retries=5))
    failed = cluster.phase(namespace, "wrong", "Failed", "Succeeded")
    assert failed["status"]["phase"] == "Failed"
    assert condition(failed, "Failed")["reason"] == "ConfigurationError"


def test_a_deleted_job_is_made_anew(cluster, namespace):
    submit(cluster, namespace, program("again", "test -e /nothing || sleep 5; echo 1 > $RUNONCE_OUTPUT/x"))
    (first,) = cluster.wait("a job", lambda: cluster.get("jobs", namespace))
    cluster.kubectl("delete", "job", "-n", namespace, first["metadata"]["name"])
    cluster.phase(namespace, "again", "Succeeded")
    (second,) = cluster.get("jobs", namespace)
    assert second["metadata"]["uid"] != first["metadata"]["uid"]


def test_a_deleted_experiment_takes_its_pods_along(cluster, namespace):
    submit(cluster, namespace, program("gone", "sleep 600"))
    cluster.wait(
        "a running pod", lambda: [p for p in cluster.get("pods", namespace) if p["status"]["phase"] == "Running"]
    )
    cluster.kubectl("delete", "experiment", "-n", namespace, "gone")
    cluster.wait(
        "no pod", lambda: not cluster.get("pods", namespace) and not cluster.get("jobs", namespace), seconds=150
    )


def test_a_controller_that_is_killed_while_pods_run_finds_their_result(cluster, namespace):
    submit(cluster, namespace, program("survivor", "sleep 8; echo 1 > $RUNONCE_OUTPUT/x"))
    cluster.wait(
        "a running pod", lambda: [p for p in cluster.get("pods", namespace) if p["status"]["phase"] == "Running"]
    )
    cluster.kubectl(
        "delete", "pod", "-n", SYSTEM, "-l", "app.kubernetes.io/component=controller", "--grace-period=0", "--force"
    )
    done = cluster.phase(namespace, "survivor", "Succeeded", "Failed")
    assert done["status"]["phase"] == "Succeeded"
    assert done["status"]["modes"]["train"]["attempt"] == 1


def test_the_same_folder_applied_twice_with_pruning_changes_nothing_and_a_reverted_edit_is_a_hit(cluster, namespace):
    """As Argo CD and Flux do it."""

    def apply(seed: int) -> None:
        experiment = program("git", f"echo {seed} > $RUNONCE_OUTPUT/x")
        experiment["metadata"]["labels"] = {"part-of": "git"}
        prune = ("--prune", "-l", "part-of=git", "--prune-allowlist=runonce.dev/v1alpha1/Experiment")
        cluster.kubectl("apply", "-n", namespace, *prune, "-f", "-", stdin=json.dumps(experiment))

    apply(1)
    first = cluster.phase(namespace, "git", "Succeeded")
    apply(1)
    assert cluster.experiment(namespace, "git")["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    apply(2)
    second = cluster.phase(namespace, "git", "Succeeded")
    assert condition(second, "CacheHit")["status"] == "False"
    apply(1)
    third = cluster.phase(namespace, "git", "Succeeded")
    assert condition(third, "CacheHit")["status"] == "True"
    assert third["status"]["modes"]["train"]["cacheKey"] == first["status"]["modes"]["train"]["cacheKey"]
