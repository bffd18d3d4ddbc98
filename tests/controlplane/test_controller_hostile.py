"""What a hostile review of the design found on a real API server: each case, and what is made of it."""

from __future__ import annotations

import json
import threading

import pytest
from control_plane import CONTROLLER, wait_for
from place import Place, condition, publish
from recorder import Recorder

from runonce.controller.main import Controller
from runonce.controller.passes import look
from runonce.controller.written import Written
from runonce.errors import Conflict, Unreachable
from runonce.experiment.manifest import Commit
from runonce.kube.transport import Answer, Api

MERGE = "application/merge-patch+json"


def made(place: Place, since: int) -> list[int]:
    """The answers to POSTs of Jobs."""
    calls = place.calls(since)
    return [c["responseStatus"]["code"] for c in calls if (c["verb"], c["objectRef"]["resource"]) == ("create", "jobs")]


def test_a_status_that_was_meant_for_the_namesake_before_it_is_not_believed(place):
    place.apply("again")
    status = {"phase": "Succeeded", "observedGeneration": 1, "uid": "of-another", "message": "all is well"}
    place.api.must("PATCH", f"{place.experiments}/again/status", {"status": status}, content=MERGE)
    place.start()
    place.job()
    with place.working():
        uid = place.get("again")["metadata"]["uid"]
        wait_for("a status of its own", lambda: place.status("again")["uid"] == uid)
        place.until("again", "Succeeded")
    assert len(place.commits()) == 1


def test_a_status_for_a_deleted_object_is_refused_and_the_namesake_is_left_alone(place):
    """Server-side apply does not look at a uid: only the version keeps it from the object that has the name by now."""
    controller = place.start()
    place.apply("again", profile="huge")  # refused: no other write follows
    place.until("again", "Failed")
    place.settle()
    key = f"{place.namespace}/again"
    written = Written(controller._experiments.get(key), controller._world)
    place.stop()
    place.delete("again")
    fresh = place.apply("again")
    with pytest.raises(Conflict):
        written.put(written.now)
    assert place.get("again")["metadata"]["uid"] == fresh["metadata"]["uid"]
    assert place.status("again") == {"observedGeneration": -1}  # as the API server fills it


def test_what_is_deleted_while_its_job_is_made_is_no_error_and_leaves_nothing(place, caplog):
    place.start()
    for number in range(15):
        place.apply(f"brief-{number}", params={"lr": number + 0.5})
        place.delete(f"brief-{number}")
    place.apply("last")
    with place.working():
        place.until("last", "Succeeded")
        wait_for("one Job", lambda: len(place.jobs()) == 1)
    assert "a pass broke" not in caplog.text


def test_nothing_is_written_for_an_experiment_that_is_being_deleted(place):
    place.start()
    place.apply("going")
    place.job()
    for pod in place.pods(2):
        place.kubelet.start(pod)
    wait_for("its word", lambda: place.status("going").get("phase") == "Running")
    place.settle()
    place.delete("going", "Foreground")
    since = place.plane.audit_position()
    edit = {"metadata": {"annotations": {"runonce.dev/rerun": "now"}}}
    edited = place.api.request("PATCH", f"{place.experiments}/going", edit, content=MERGE)
    assert edited.status in (200, 404)  # it may be gone already: its Job does not hold it
    place.apply("other", params={"lr": 3})
    wait_for("a pass over another", lambda: place.status("other").get("job"))
    calls = place.calls(since)
    assert not [c for c in calls if c["verb"] != "watch" and c["objectRef"].get("name", "").startswith("going")]
    place.delete("other")
    with place.kubelet.playing(place.namespace, lambda pod: None):
        wait_for("its end", lambda: place.api.get(f"{place.experiments}/going") is None)


def test_a_namespace_that_is_being_deleted_is_left_alone(place, caplog):
    with place.plane.namespace() as doomed:
        there = Place(place.plane, doomed, place.folder, place.kubelet)
        try:
            there.start()
            for number in range(4):
                there.apply(f"e{number}", params={"lr": number + 0.5})
            wait_for("Jobs", lambda: len(there.jobs()) == 4)
            since = there.position()
            place.api.must("DELETE", f"/api/v1/namespaces/{doomed}")
            with place.kubelet.playing(doomed, lambda pod: None):
                wait_for("its end", lambda: place.api.get(f"/api/v1/namespaces/{doomed}") is None, within_s=120)
        finally:
            there.stop()
        assert set(made(place, since)) <= {403, 404}  # is being deleted; is gone
        assert len(made(place, since)) <= 8
    assert "a pass broke" not in caplog.text


def test_a_job_that_ended_while_the_controller_was_away_is_committed_and_not_run_again(place):
    place.start()
    place.apply("away", ttlSecondsAfterFinished=3600)
    wait_for("its word", lambda: place.status("away").get("job"))
    place.stop()
    since = place.position()
    with place.working():
        wait_for("its end", lambda: place.job()["status"].get("completionTime"))
        assert "ttlSecondsAfterFinished" not in place.job()["spec"]
        place.start()
        status = place.until("away", "Succeeded")
    assert (condition(status, "CacheHit")["status"], made(place, since)) == ("False", [])
    assert place.job()["spec"]["ttlSecondsAfterFinished"] == 3600


def test_an_edit_that_keeps_the_key_is_for_the_next_attempt_and_says_so(place):
    place.start()
    place.apply("edited")
    uid = place.job()["metadata"]["uid"]
    for pod in place.pods(2):
        place.kubelet.start(pod)
    wait_for("its word", lambda: place.status("edited").get("phase") == "Running")
    place.apply("edited", machineParams={"train": {"nprocesses": 3}})
    wait_for("the word", lambda: (condition(place.status("edited"), "Accepted") or {}).get("reason") == "PendingChange")
    assert "next attempt" in condition(place.status("edited"), "Accepted")["message"]
    assert place.job()["metadata"]["uid"] == uid
    with place.working():
        assert place.until("edited", "Succeeded")["modes"]["train"]["attempt"] == 1


def test_the_failure_of_a_shared_job_is_not_held_against_one_with_another_machine(place):
    place.start()
    place.apply("small", retries=0)
    place.job()
    place.apply("large", retries=0, machineParams={"train": {"nprocesses": 3}})
    wait_for("two owners", lambda: len(place.job()["metadata"]["ownerReferences"]) == 2)
    with place.working(lambda pod: 0 if json.loads(env(pod, "RUNONCE_TOTAL")) == 3 else 9):
        status = place.until("large", "Succeeded")
        assert (status["modes"]["train"]["attempt"], status["modes"]["train"]["total"]) == (2, 3)
    assert place.phase("small") in ("Failed", "Succeeded")


def test_a_post_whose_answer_was_lost_is_adopted(place):
    class Lossy(Api):
        lost = threading.Event()

        def post(self, path, body) -> Answer:
            answer = super().post(path, body)
            if path.endswith("/jobs") and not self.lost.is_set():
                self.lost.set()
                raise Unreachable("the answer broke off")
            return answer

    place.client = Lossy
    since = place.position()
    place.start()
    place.apply("lossy")
    with place.working():
        status = place.until("lossy", "Succeeded")
    assert status["modes"]["train"]["attempt"] == 1
    assert made(place, since).count(201) == 1


def test_a_process_on_a_node_that_was_cut_off_publishes_in_vain(place):
    """Its pod was ended by force and the next attempt has begun: what it leaves is of another attempt."""
    place.start()
    place.apply("cut", retries=1)
    zombies = place.pods(2)
    for pod in zombies:
        place.kubelet.start(pod)
    place.kubelet.end(zombies[0], 9)
    place.kubelet.end(zombies[1], 76)
    wait_for("the next attempt", lambda: place.status("cut")["modes"]["train"].get("attempt") == 2)
    with place.kubelet.playing(place.namespace, lambda pod: None):
        wait_for("its Job", lambda: [j for j in place.jobs() if '"attempt":2' in annotation(j)])
    second = place.job()["metadata"]["uid"]
    for pod in zombies:
        publish(place.backend, pod)
    with place.working():
        place.until("cut", "Succeeded")
    data, _ = place.backend.get(place.commits()[0])
    assert Commit.decode(data, name="c").attempt == second


def test_what_users_do_to_our_job_is_neither_fought_nor_believed(place):
    place.start()
    place.apply("touched")
    job = place.job()
    path = f"{place.jobs_path}/{job['metadata']['name']}"
    wait_for("its word", lambda: place.status("touched").get("job"))
    since, recorder = place.position(), Recorder(place.plane, place.experiments)
    edits = {"metadata": {"labels": {"team": "b", "runonce.dev/experiment": None}}, "spec": {"parallelism": 1}}
    place.api.must("PATCH", path, edits, content=MERGE)
    place.api.must("PATCH", path, {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}, content=MERGE)
    wait_for("its label again", lambda: "app.kubernetes.io/managed-by" in place.job()["metadata"]["labels"])
    assert (place.job()["spec"]["parallelism"], place.job()["metadata"]["labels"]["team"]) == (1, "b")
    with place.working():
        place.until("touched", "Succeeded")
    assert made(place, since).count(201) == 0
    assert place.job()["metadata"]["uid"] == job["metadata"]["uid"]
    # And no status told of an attempt after it: a Job out of sight is looked for before that is written.
    trains = [found["status"]["modes"]["train"] for _, found in recorder.close() if found.get("status")]
    assert {train["attempt"] for train in trains} == {1}
    assert all(train.get("jobUid") == job["metadata"]["uid"] for train in trains)


def test_no_job_is_made_for_an_experiment_whose_status_is_not_found(place):
    """Its Job's end is heard of before its own: two watches have no order."""
    api = Api.connect(kubeconfig=str(place.plane.kubeconfig(CONTROLLER)))
    controller = Controller(api, place.cluster(), namespace=place.namespace, elect=None, host="127.0.0.1", port=0)
    for informer in controller._all():
        informer.start()
    controller._await_caches()
    place.apply("it")
    key = f"{place.namespace}/it"
    wait_for("it", lambda: controller._experiments.get(key))
    look(key, controller._world)
    wait_for("its word", lambda: controller._experiments.get(key).status_value().get("job"))
    for informer in controller._experiments.informers:
        informer.stop()  # its news come later
    place.delete("it")
    with place.kubelet.playing(place.namespace, lambda pod: None):
        wait_for("no Job", lambda: not place.jobs())
        wait_for("the news", lambda: not controller._job_cache.all())
        since = place.plane.audit_position()
        look(key, controller._world)
        calls = [(call["verb"], call["objectRef"]["resource"]) for call in place.plane.calls(CONTROLLER, since=since)]
    controller._end()
    assert ("patch", "experiments") in calls
    assert ("create", "jobs") not in calls


def test_suspending_a_queued_experiment_is_no_deletion_by_hand(place):
    place.start()
    for _ in range(3):
        place.apply("it", queueName="research", suspend=False)
        wait_for("a Job that it names", lambda: place.jobs() and place.reason("it") == "JobCreated")
        train = place.status("it")["modes"]["train"]
        assert (train["attempt"], json.loads(train["round"]).get("deletions")) == (1, None)
        place.apply("it", queueName="research", suspend=True)
        place.until("it", "Suspended")
        with place.kubelet.playing(place.namespace, lambda pod: None):
            wait_for("no Job", lambda: not place.jobs())


def env(pod, name: str) -> str:
    return next(entry["value"] for entry in pod["spec"]["containers"][0]["env"] if entry["name"] == name)


def annotation(job) -> str:
    return job["metadata"]["annotations"]["runonce.dev/round"]
