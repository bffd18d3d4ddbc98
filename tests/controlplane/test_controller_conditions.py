"""What cannot be is told within seconds, with its reason, and heals when the cause goes."""

from __future__ import annotations

import time

import pytest
from control_plane import wait_for
from place import condition, publish

from runonce.controller import waits
from runonce.experiment.job import job_name
from runonce.kube.cluster import Profile

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Where nothing tells that a cause is gone, the controller looks every half minute."""
    monkeypatch.setattr(waits, "POLL_S", 1.0)
    monkeypatch.setattr(waits, "ASK_EVERY_S", 1.0)
    monkeypatch.setattr(waits, "HELD_AFTER_S", 1.0)


def core(place) -> str:
    return f"/api/v1/namespaces/{place.namespace}"


def test_what_the_schema_lets_through_is_told_in_a_condition_and_heals(place):
    place.start()
    place.apply("odd", profile="huge")
    wait_for("a refusal", lambda: condition(place.status("odd"), "Accepted"))
    refused = condition(place.status("odd"), "Accepted")
    assert (refused["status"], refused["reason"]) == ("False", "UnknownProfile")
    assert "huge" in refused["message"]
    assert place.jobs() == []
    place.apply("odd", profile="big")
    with place.working():
        place.until("odd", "Succeeded")


def test_a_profile_that_the_administrator_adds_heals_it(place):
    place.start()
    place.apply("early", profile="later")
    wait_for("a refusal", lambda: (condition(place.status("early"), "Accepted") or {}).get("status") == "False")
    assert condition(place.status("early"), "Stalled")["reason"] == "UnknownProfile"
    place.stop()
    place.cluster_changes = {"profiles": {"later": Profile(gpu_resource="nvidia.com/gpu")}}
    place.start()
    with place.working():
        place.until("early", "Succeeded")


def test_pods_that_are_refused_show_within_seconds_and_heal(place):
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}}
    place.api.must("POST", f"/api/v1/namespaces/{place.namespace}/resourcequotas", quota)
    place.start()
    place.apply("refused")
    wait_for(
        "the reason", lambda: place.status("refused").get("modes", {}).get("train", {}).get("reason") == "PodsRefused"
    )
    assert "exceeded quota" in place.status("refused")["message"]
    place.api.must("DELETE", f"/api/v1/namespaces/{place.namespace}/resourcequotas/q")
    with place.working():
        place.until("refused", "Succeeded", within_s=180)


def enforce(place, level: str) -> None:
    labels = {"pod-security.kubernetes.io/enforce": level}
    place.api.must("PATCH", core(place), {"metadata": {"labels": labels}}, content=MERGE)


def test_what_pod_security_does_not_allow_is_told_in_its_own_words_and_heals(place):
    """All that we write ourselves is allowed at the strictest level; what a user asks for need not be."""
    enforce(place, "restricted")
    place.start()
    place.apply("plain", params={"lr": 1})
    place.pods(2)
    folder = {"name": "data", "mountPath": "/data", "hostPath": "/mnt/data"}
    place.apply("refused", params={"lr": 2}, volumes=[folder])
    wait_for("the reason", lambda: place.reason("refused") == "PodsRefused")
    status = place.status("refused")
    assert 'violates PodSecurity "restricted' in status["message"]
    assert 'volume "data"' in status["message"]
    assert (status["phase"], condition(status, "Ready")["status"]) == ("Pending", "False")
    for kind in ("Ready", "Reconciling"):
        assert condition(status, kind)["reason"] == "PodsRefused"
    assert place.reason("plain") != "PodsRefused"
    enforce(place, "privileged")
    with place.working():
        place.until("refused", "Succeeded", within_s=180)
        place.until("plain", "Succeeded")


def test_pods_that_a_limit_of_the_namespace_refuses_show_it_and_heal(place):
    limit = {"metadata": {"name": "small"}, "spec": {"limits": [{"type": "Container", "max": {"memory": "1Gi"}}]}}
    place.api.must("POST", f"{core(place)}/limitranges", limit)
    place.start()
    place.apply("large", resources={"memory": "4Gi"})
    wait_for("the reason", lambda: place.reason("large") == "PodsRefused")
    assert "maximum memory usage per Container is 1Gi" in place.status("large")["message"]
    place.api.must("DELETE", f"{core(place)}/limitranges/small")
    with place.working():
        place.until("large", "Succeeded", within_s=180)


def test_a_store_that_does_not_answer_is_told_and_healed(place):
    moved = place.folder.with_name("elsewhere")
    place.folder.rename(moved)
    place.folder.write_text("not a folder")
    place.start()
    place.apply("lost")
    wait_for("the trouble", lambda: (condition(place.status("lost"), "Ready") or {}).get("reason") == "StoreError")
    assert place.jobs() == []
    place.folder.unlink()
    moved.rename(place.folder)
    with place.working():
        place.until("lost", "Succeeded")


def test_pods_that_admission_refuses_show_within_seconds_and_heal(place):
    place.start()
    place.apply("refused", serviceAccountName="nobody")
    wait_for("the reason", lambda: place.reason("refused") == "PodsRefused")
    assert 'serviceaccount "nobody" not found' in place.status("refused")["message"]
    assert condition(place.status("refused"), "Reconciling")["reason"] == "PodsRefused"
    place.api.must("POST", f"{core(place)}/serviceaccounts", {"metadata": {"name": "nobody"}})
    with place.working():
        place.until("refused", "Succeeded", within_s=180)


def delete_pod(place, pod) -> str:
    path = f"{core(place)}/pods/{pod['metadata']['name']}"
    place.api.must("DELETE", path)
    return path


@pytest.mark.parametrize("coupled", [True, False])
def test_a_pod_on_a_lost_node_is_named_with_its_node_and_time(place, coupled):
    """Its kubelet is silent: the pod is told to end, does not, and no other may take its place."""
    place.start()
    place.apply("held", machineParams={"train": {"nprocesses": 2, "coupled": coupled}})
    pods = place.pods(2)
    for pod in pods:
        place.kubelet.start(pod)
    place.until("held", "Running")
    path = delete_pod(place, pods[1])
    if coupled:
        place.kubelet.end(pods[0], 76)  # its peer is gone
    wait_for("the reason", lambda: place.reason("held") == "WaitingForPods")
    due = place.api.get(path)["metadata"]["deletionTimestamp"]
    named = f"waits for pod {pods[1]['metadata']['name']} on node node-1, which should have ended at {due}"
    assert named in place.status("held")["modes"]["train"]["message"]
    with place.working():  # the node is back
        status = place.until("held", "Succeeded", within_s=120)
    assert status["modes"]["train"]["attempt"] == (2 if coupled else 1)


def test_a_job_that_a_lost_node_keeps_from_its_end_is_told_by_its_pods(place):
    place.start()
    place.apply("held", machineParams={"train": {"nprocesses": 1}})
    (pod,) = place.pods(1)
    place.kubelet.start(pod)
    place.until("held", "Running")
    job = place.job()
    path = f"{place.jobs_path}/{job['metadata']['name']}"
    place.api.must("DELETE", path, {"propagationPolicy": "Foreground"})
    wait_for("the reason", lambda: place.reason("held") == "WaitingForPods")
    assert f"waits for pod {pod['metadata']['name']} on node node-1" in place.status("held")["message"]
    with place.working():
        place.until("held", "Succeeded", within_s=120)


@pytest.mark.parametrize("labels", [{}, {"app.kubernetes.io/managed-by": "runonce"}])
def test_a_job_of_something_else_under_the_name_is_told_and_heals(place, labels):
    """Whether it looks like one of ours or not: no result of another key is ever taken for it."""
    place.apply("wanted", machineParams={"train": {"nprocesses": 1}})
    name = job_name("digits:Digits", "train", place.key("wanted"))
    container = {"name": "c", "image": "example.org/other:1"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    body = {"metadata": {"name": name, "labels": labels}, "spec": {"suspend": True, "template": template}}
    place.api.must("POST", place.jobs_path, body)
    place.start()
    wait_for("the reason", lambda: place.reason("wanted") == "JobNameTaken")
    status = place.status("wanted")
    assert (status["phase"], condition(status, "Stalled")["reason"]) == ("Blocked", "JobNameTaken")
    assert "remove or rename it" in status["message"]
    since = place.position()
    time.sleep(2)  # that it is not asked for all the time can only be seen in a while
    assert len([call for call in place.calls(since) if call["verb"] == "create"]) <= 4
    place.api.must("DELETE", f"{place.jobs_path}/{name}", {"propagationPolicy": "Background"})
    with place.working():
        place.until("wanted", "Succeeded")


def test_a_miss_says_what_differs_from_the_nearest_result(place):
    place.start()
    with place.working():
        place.apply("digits", params={"lr": 0.1})
        first = place.until("digits", "Succeeded")
        assert condition(first, "CacheHit")["message"] == "train: no earlier result of digits"
        place.apply("digits", params={"lr": 0.2})
        second = place.until("digits", "Succeeded")
        key = first["modes"]["train"]["cacheKey"][:12]
        text = f"train: nearest earlier result {key}: params.lr was 0.1, is 0.2"
        assert condition(second, "CacheHit")["message"] == text
        assert (condition(second, "CacheHit")["status"], condition(second, "CacheHit")["reason"]) == ("False", "Made")
        place.apply("digits", params={"lr": 0.1})
        third = place.until("digits", "Succeeded")
    assert condition(third, "CacheHit")["status"] == "True"
    assert "message" not in condition(third, "CacheHit") or not condition(third, "CacheHit")["message"]


def test_what_was_asked_for_anew_says_so(place):
    place.start()
    with place.working():
        place.apply("digits")
        place.until("digits", "Succeeded")
        place.apply("digits", annotations={"runonce.dev/rerun": "again"})
        wait_for("the second", lambda: place.status("digits").get("rerun") == "again")
        status = place.until("digits", "Succeeded")
    assert condition(status, "CacheHit")["message"] == "train: asked to be made anew"


def test_a_job_that_the_quota_refuses_shows_at_once_and_heals(place):
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    place.api.must("POST", f"{core(place)}/resourcequotas", quota)
    wait_for("the quota", lambda: place.api.get(f"{core(place)}/resourcequotas/q").get("status", {}).get("hard"))
    place.start()
    place.apply("refused")
    wait_for("the reason", lambda: place.reason("refused") == "JobRefused")
    assert "exceeded quota: q" in place.status("refused")["message"]
    place.api.must("DELETE", f"{core(place)}/resourcequotas/q")
    with place.working():
        place.until("refused", "Succeeded")
    assert len(place.commits()) == 1


def test_what_no_node_could_ever_take_is_told_in_the_schedulers_words_and_heals(place):
    place.start()
    place.apply("huge", machineParams={"train": {"nprocesses": 1, "gpuIds": list(range(8))}})
    pod = place.pods(1)[0]
    said = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    unfit = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
    path = f"{core(place)}/pods/{pod['metadata']['name']}/status"
    place.api.must("PATCH", path, {"status": {"conditions": [unfit]}}, content=STRATEGIC)
    wait_for("the reason", lambda: place.reason("huge") == "Unschedulable")
    status = place.status("huge")
    assert said in status["message"]
    assert (status["phase"], condition(status, "Ready")["reason"]) == ("Pending", "Unschedulable")
    with place.working(lambda pod: 0 if place.reason("huge") == "Running" else None):
        place.until("huge", "Succeeded")


def test_a_damaged_input_is_made_anew_and_then_its_reader_once(place):
    place.start()
    block = {"nprocesses": 1}
    jobs: dict[str, int] = {}

    def ends(pod):
        mode = next(e["value"] for e in pod["spec"]["containers"][0]["env"] if e["name"] == "RUNONCE_MODE")
        uid = pod["metadata"]["labels"]["batch.kubernetes.io/controller-uid"]
        if jobs.setdefault(uid, len(jobs)) == 1:
            return 77  # the first test: it found what train left damaged
        assert mode == ("test" if jobs[uid] == 3 else "train")
        return 0

    place.apply("damaged", retries=0, machineParams={"train": block, "test": block})
    with place.working(ends):
        place.until("damaged", "Succeeded")
    assert (len(jobs), len(place.commits())) == (4, 2)


def test_a_store_that_loses_what_it_is_given_is_not_healed_for_ever(place):
    place.start()
    block = {"nprocesses": 1}
    jobs: set[str] = set()

    def ends(pod):
        jobs.add(pod["metadata"]["labels"]["batch.kubernetes.io/controller-uid"])
        return 77 if "-test-" in pod["metadata"]["name"] else 0

    place.apply("lost", retries=3, machineParams={"train": block, "test": block})
    with place.working(ends):
        status = place.until("lost", "Failed")
    assert status["modes"]["test"]["reason"] == "DamagedInput"
    assert len(jobs) == 4


def test_what_a_partial_file_leaves_to_the_code_is_said_with_the_result(place):
    place.start()
    place.apply("partial", params={"lr": 0.5}, codeVersion="source:" + "a" * 64)
    for pod in place.pods(2):
        publish(place.backend, pod, resolvedParams={"lr": 0.5, "epochs": 3, "width": 8})
        place.kubelet.end(pod)
    status = place.until("partial", "Succeeded")
    assert "left to the code's defaults: epochs, width" in status["message"]
