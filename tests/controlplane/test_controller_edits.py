"""What an edit under one name does while the Job runs: the table of what is in the key, what waits, and what is done at once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from control_plane import wait_for
from place import Place, condition

from runonce.experiment.seal import write_record
from runonce.kube.cluster import StoreAccess
from runonce.store.backend import shard_prefix


@pytest.fixture
def running(place: Place) -> dict[str, Any]:
    """The Job of `it`, whose pods run."""
    place.cluster_changes["stores"] = {
        name: StoreAccess(url=f"file://{folder}")
        for name, folder in {"default": place.folder, "other": place.folder.with_name("other")}.items()
    }
    place.start()
    place.apply("it")
    for pod in place.pods(2):
        place.kubelet.start(pod)
    place.until("it", "Running")
    return place.job()


def accepted(place: Place) -> str:
    """What the controller says of the spec as it is now."""
    wait_for("its word", lambda: place.phase("it"))
    said = condition(place.status("it"), "Accepted")
    assert (said["status"], said["observedGeneration"]) == ("True", place.get("it")["metadata"]["generation"])
    return str(said["reason"])


TWO = {"nprocesses": 2}


@pytest.mark.parametrize(
    "edit",
    [
        {"machineParams": {"train": {"nprocesses": 3}}},
        {"machineParams": {"train": TWO | {"env": {"OMP_NUM_THREADS": "4"}}}},
        {"machineParams": {"train": TWO | {"gpuIds": [0, 1]}}},
        {"machineParams": {"train": TWO | {"coupled": False}}},
        {"image": "example.org/digits:2"},
        {"imagePullSecrets": ["registry"]},
        {"resources": {"memory": "4Gi"}},
        {"profile": "big"},
        {"nodeSelector": {"zone": "a"}},
        {"tolerations": [{"key": "spot", "operator": "Exists"}]},
        {"envFrom": [{"secret": "token"}]},
        {"volumes": [{"name": "data", "mountPath": "/data", "hostPath": "/mnt"}]},
        {"serviceAccountName": "trainer"},
        {"priorityClassName": "low"},
        {"queueName": "research"},
        {"store": "other"},
        {"retries": 5},
        {"activeDeadlineSeconds": 3600},
    ],
    ids=json.dumps,
)
def test_what_shapes_the_job_and_is_in_no_key_waits_for_the_next_attempt(place, running, edit):
    place.apply("it", **edit)
    assert accepted(place) == "PendingChange"
    assert (place.job()["metadata"]["uid"], place.job()["spec"]) == (running["metadata"]["uid"], running["spec"])
    place.apply("it")
    assert accepted(place) == "Accepted"


@pytest.mark.parametrize(
    "edit", [{"ttlSecondsAfterFinished": 3600}, {"startDeadlineSeconds": 3600}, {"overwrite": True}], ids=json.dumps
)
def test_what_the_controller_does_itself_holds_at_once(place, running, edit):
    place.apply("it", **edit)
    assert accepted(place) == "Accepted"
    with place.working():
        place.until("it", "Succeeded")
    assert place.job()["metadata"]["uid"] == running["metadata"]["uid"]
    assert place.job()["spec"].get("ttlSecondsAfterFinished") == edit.get("ttlSecondsAfterFinished")
    tokens = json.loads(place.backend.get(place.commits()[0])[0])["tokens"]
    assert tokens == ([place.get("it")["metadata"]["uid"]] if "overwrite" in edit else [])


def test_suspension_holds_at_once(place, running):
    place.apply("it", suspend=True)
    assert (place.until("it", "Suspended") and accepted(place)) == "Accepted"
    assert place.job()["spec"]["suspend"] is True


@pytest.mark.parametrize(
    "edit",
    [
        {"config": "digits:Others"},
        {"config": None, "command": ["train"]},
        {"params": {"lr": 0.2}},
        {"hashExclude": ["lr"]},
        {"hash": "pinned"},
        {"env": {"A": "1"}},
        {"seed": 1},
        {"codeVersion": "label:2"},
        {"cacheKeyExtra": ["data-2"]},
        {"keyMachine": True},
    ],
    ids=json.dumps,
)
def test_what_is_in_the_key_lets_the_job_go_and_says_so(place, running, edit):
    place.apply("it", **edit)
    assert accepted(place) == "KeyChanged"
    with place.working():
        status = place.until("it", "Succeeded")
        wait_for("one Job", lambda: [job["metadata"]["name"] for job in place.jobs()] == [status["job"]])
    assert status["job"] != running["metadata"]["name"]


def test_a_revert_goes_on_in_the_round_whose_checkpoints_are_there(place, running):
    """Each checkpoint is found under its round, so that is what has to be the same."""
    round_ = json.loads(running["metadata"]["annotations"]["runonce.dev/round"])["round"]
    uid, name = running["metadata"]["uid"], running["metadata"]["name"]
    prefix = shard_prefix(place.key("it"), round_)
    for index in range(2):
        record = write_record("checkpoint", step=7, index=index, files=[])
        place.backend.put(f"{prefix}2/k/{7:012d}/{uid}/i{index}", record)
    place.apply("it", params={"lr": 0.2})
    with place.kubelet.playing(place.namespace, lambda pod: None):
        wait_for("the other Job alone", lambda: [j["metadata"]["name"] != name for j in place.jobs()] == [True])
        place.apply("it")
        wait_for("its Job again", lambda: [j["metadata"]["name"] == name for j in place.jobs()] == [True])
    again = place.job()
    assert again["metadata"]["uid"] != uid
    assert json.loads(again["metadata"]["annotations"]["runonce.dev/round"])["round"] == round_
    env = {e["name"]: e.get("value") for e in again["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["RUNONCE_ROUND"] == round_
