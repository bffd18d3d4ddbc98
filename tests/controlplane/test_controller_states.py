"""What a user sees after each state of the cluster: one pass brings the status to the row of the table, none before its time.

The states are made by a real API server and its controllers, with a kubelet that the test plays step by step; the passes are
taken one by one. A recorder keeps every status that was ever written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby

import pytest
from control_plane import CONTROLLER, wait_for
from place import condition
from recorder import Recorder
from stage import STRATEGIC, Stage, row_of

from runonce.controller import decide
from runonce.controller.main import Controller
from runonce.experiment.contract import LOST_PEER
from runonce.kube.transport import Api


@pytest.fixture
def stage(place, clock, monkeypatch) -> Iterator[Stage]:
    api = Api.connect(kubeconfig=str(place.plane.kubeconfig(CONTROLLER)))
    controller = Controller(api, place.cluster(), namespace=place.namespace, elect=None, host="127.0.0.1", port=0)
    for informer in controller._all():
        informer.start()
    controller._await_caches()
    yield Stage(place, controller, clock, monkeypatch)
    controller._end()


def made(stage: Stage) -> None:
    stage.apply()
    stage.sees("Pending", "JobCreated")
    first, second = stage.pods()
    stage.sees("Pending", "JobCreated")
    stage.start(first)
    stage.job(ready=1)
    stage.sees("Running", "Running")
    stage.start(second)
    stage.job(ready=2)
    stage.sees("Running", "Running")
    stage.end(first)
    stage.job(succeeded=1)
    stage.sees("Running", "Running")
    stage.end(second)
    stage.job(Complete=True)
    assert condition(stage.sees("Succeeded", "Succeeded"), "CacheHit")["status"] == "False"
    stage.apply(ttlSecondsAfterFinished=3600)
    stage.sees("Succeeded", "Succeeded")


def counted_late(stage: Stage) -> None:
    """What ran and has ended is not Pending again until its Job has counted it, unless that takes long."""
    stage.apply()
    stage.sees("Pending", "JobCreated")
    both = stage.pods()
    stage.run(*both)
    for pod in both:
        stage.place.kubelet.stop(pod)
    stage.job(ready=0, active=2)
    stage.sees("Running", "Running")
    stage.later(6)
    stage.sees("Pending", "JobCreated")
    for pod in both:
        stage.end(pod)
    stage.job(Complete=True)
    stage.sees("Succeeded", "Succeeded")


def hit(stage: Stage) -> None:
    stage.place.apply("other")
    with stage.place.working():
        stage.place.start()
        stage.place.until("other", "Succeeded")
    stage.place.stop()
    stage.apply()
    assert condition(stage.sees("Succeeded", "CacheHit", attempt=0), "CacheHit")["status"] == "True"


def fails_then_made(stage: Stage) -> None:
    stage.apply(retries=1)
    stage.sees("Pending", "JobCreated")
    first, second = stage.pods()
    stage.run(first, second)
    release = stage.hold(first)
    stage.end(first, 3, message="Traceback\nValueError: no\n")
    stage.job(FailureTarget=True, ready=0)
    status = stage.sees("Pending", "Failing")
    assert status["modes"]["train"]["failure"]["exitCode"] == 3
    stage.place.kubelet.remove(second)
    stage.job(Failed=True)
    stage.sees("Pending", "NextAttempt", attempt=2)
    release()
    stage.clear()
    stage.sees("Pending", "JobCreated", attempt=2)
    stage.run(*stage.pods(), attempt=2)
    for pod in stage.place.pods(2):
        stage.end(pod)
    stage.job(Complete=True)
    stage.sees("Succeeded", "Succeeded", attempt=2)


def hangs(stage: Stage) -> None:
    stage.apply(retries=0)
    stage.sees("Pending", "JobCreated")
    first, second = stage.pods()
    stage.run(first, second)
    stage.end(first, LOST_PEER, message="error (LostPeer): another process is gone or hangs: x")
    stage.job(FailureTarget=True, ready=0)
    status = stage.sees("Pending", "Failing")
    assert status["modes"]["train"]["failure"]["index"] == 0
    stage.end(second, 137)
    stage.job(Failed=True)
    status = stage.sees("Failed", "Hung")
    assert status["modes"]["train"]["failure"]["index"] == 1


def fails_for_good(stage: Stage) -> None:
    stage.apply(machineParams={"train": {"nprocesses": 1}})
    stage.sees("Pending", "JobCreated")
    (pod,) = stage.pods(1)
    stage.run(pod)
    release = stage.hold(pod)
    stage.end(pod, 78, message="error (PartialFile): lr is missing\n")
    stage.job(Failed=True)
    status = stage.sees("Failed", "PartialFile")
    assert "lr is missing" in status["message"]
    stage.apply(machineParams={"train": {"nprocesses": 1}}, retries=5)
    stage.rows.append(("Pending", "NextAttempt", 2))  # before the deletion; after it the edit has been looked at
    stage.sees("Pending", "Ending", attempt=2)
    release()
    stage.clear()
    stage.sees("Pending", "JobCreated", attempt=2)


def evicted(stage: Stage) -> None:
    stage.apply(retries=0, machineParams={"train": {"nprocesses": 1}})
    stage.sees("Pending", "JobCreated")
    (pod,) = stage.pods(1)
    stage.run(pod)
    stage.place.kubelet.disrupt(pod)
    release = stage.hold(pod)
    stage.end(pod, 75)
    stage.job(Failed=True)
    stage.sees("Pending", "NextAttempt", attempt=2)
    release()
    stage.clear()
    status = stage.sees("Pending", "JobCreated", attempt=2)
    assert '"charges":{}' in status["modes"]["train"]["round"]


def paused(stage: Stage) -> None:
    stage.apply()
    stage.sees("Pending", "JobCreated")
    stage.run(*stage.pods())
    stage.apply(suspend=True)
    stage.sees("Suspended", "Suspended")
    wait_for(
        "no pods", lambda: not [stage.place.kubelet.remove(p) for p in stage.place.kubelet.pods(stage.place.namespace)]
    )
    stage.job(Suspended=True, terminating=0)
    stage.sees("Suspended", "Suspended")
    stage.apply(suspend=False)
    stage.sees("Pending", "JobCreated")
    stage.run(*stage.pods())


def queued(stage: Stage) -> None:
    stage.apply(queueName="research")
    stage.sees("Pending", "JobCreated")
    stage.job(Suspended=True)
    stage.sees("Pending", "JobCreated")
    path = f"{stage.place.jobs_path}/{stage.job()['metadata']['name']}"
    stage.place.api.must("PATCH", path, {"spec": {"suspend": False}}, content="application/merge-patch+json")
    stage.run(*stage.pods())
    stage.place.api.must("PATCH", path, {"spec": {"suspend": True}}, content="application/merge-patch+json")
    stage.job(Suspended=True, active=0, ready=0)
    stage.sees("Pending", "JobCreated")


def refused(stage: Stage) -> None:
    quota = f"/api/v1/namespaces/{stage.place.namespace}/resourcequotas"
    stage.place.api.must("POST", quota, {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}})
    wait_for("the quota", lambda: stage.place.api.get(f"{quota}/q").get("status", {}).get("hard"))
    stage.apply()
    stage.sees("Pending", "JobCreated")
    events = f"/api/v1/namespaces/{stage.place.namespace}/events"
    wait_for("an event", lambda: stage.place.api.must("GET", events, fieldSelector="reason=FailedCreate")["items"])
    stage.later(6)
    assert "exceeded quota" in stage.sees("Pending", "PodsRefused")["message"]
    stage.place.api.must("DELETE", f"{quota}/q")
    stage.run(*stage.pods())


def without_image(stage: Stage) -> None:
    stage.apply()
    stage.sees("Pending", "JobCreated")
    first, second = stage.pods()
    stage.place.kubelet.hold(first, "ImagePullBackOff", "no such image")
    stage.sees("Pending", "JobCreated")
    stage.later(6)
    assert "no such image" in stage.sees("Pending", "ImageUnavailable")["message"]
    stage.run(first, second)


def deleted(stage: Stage) -> None:
    """By a user, while it runs: the name is a lock until the last pod has gone."""
    stage.apply()
    stage.sees("Pending", "JobCreated")
    stage.run(*stage.pods())
    path = f"{stage.place.jobs_path}/{stage.job()['metadata']['name']}"
    stage.place.api.must("DELETE", path, {"propagationPolicy": "Foreground"})
    wait_for("its end", lambda: "deletionTimestamp" in stage.place.jobs()[0]["metadata"])
    stage._after_a_pass()
    stage.later(6)
    stage.sees("Pending", "Ending")
    stage.clear()
    stage.rows.append(("Pending", "NextAttempt", 2))  # said before the next Job is made
    stage.sees("Pending", "JobCreated", attempt=2)


def two_modes(stage: Stage) -> None:
    block = {"nprocesses": 1}
    stage.apply(machineParams={"train": block, "test": block})
    stage.sees("Pending", "JobCreated")
    (pod,) = stage.pods(1)
    stage.run(pod)
    stage.end(pod)
    stage.job(Complete=True)
    stage.sees("Pending", "JobCreated", mode="test")
    assert stage.place.status("it")["modes"]["train"]["phase"] == "Succeeded"


def blocked(stage: Stage) -> None:
    """A mode that is not run counts as done, but what reads its artifacts cannot begin."""
    none, one = {"nprocesses": 0}, {"nprocesses": 1}
    stage.apply(machineParams={"train": none})
    stage.sees("Succeeded", "Skipped", attempt=0)
    stage.apply(machineParams={"train": none, "test": one})
    status = stage.sees("Blocked", "InputMissing", attempt=0, mode="test")
    assert status["modes"]["train"]["phase"] == "Skipped"
    assert "train is neither run nor cached" in status["message"]
    stage.apply(machineParams={"train": one, "test": none})
    stage.sees("Pending", "JobCreated")
    (pod,) = stage.pods(1)
    stage.run(pod)
    stage.end(pod)
    stage.job(Complete=True)
    status = stage.sees("Succeeded", "Succeeded")
    assert (status["modes"]["test"]["phase"], status["modes"]["test"]["reason"]) == ("Skipped", "Skipped")
    stage.apply(machineParams={"train": none, "test": one})  # cached by now
    stage.sees("Pending", "JobCreated", mode="test")


def fails_before_the_test(stage: Stage) -> None:
    """What failed speaks, and the mode after it has no word of its own."""
    stage.apply(retries=0, machineParams={"train": {"nprocesses": 1}, "test": {"nprocesses": 1}})
    stage.sees("Pending", "JobCreated")
    (pod,) = stage.pods(1)
    stage.run(pod)
    stage.end(pod, 3)
    stage.job(Failed=True)
    status = stage.sees("Failed", "Error")
    assert status["modes"]["test"] == {"phase": "Pending", "message": "waits for its turn", "total": 0}


def rejected(stage: Stage) -> None:
    stage.apply(profile="huge")
    assert "'huge', which this cluster does not have" in stage.refuses("UnknownProfile")["message"]
    assert stage.place.jobs() == []
    stage.apply(profile="big")
    stage.sees("Pending", "JobCreated")
    stage.run(*stage.pods())
    stage.apply(store="elsewhere")  # now a Job is let go of
    stage.refuses("UnknownStore")
    stage.clear()
    wait_for("no Job", lambda: not stage.place.jobs())
    stage.apply()
    stage.sees("Pending", "JobCreated")


def without_store(stage: Stage) -> None:
    folder = stage.place.folder
    moved = folder.with_name("elsewhere")

    def takes_away() -> None:
        folder.rename(moved)
        folder.write_text("not a folder")

    def gives_back() -> None:
        folder.unlink()
        moved.rename(folder)

    takes_away()
    stage.apply(machineParams={"train": {"nprocesses": 1}})
    stage.waits_for_the_store("Pending")
    assert stage.place.jobs() == []
    gives_back()
    stage.sees("Pending", "JobCreated")
    (pod,) = stage.pods(1)
    stage.run(pod)
    stage.end(pod)
    stage.job(Complete=True)
    takes_away()
    before = stage.place.status("it")["modes"]["train"]
    assert stage.waits_for_the_store("Running")["modes"]["train"] == before
    gives_back()
    stage.sees("Succeeded", "Succeeded")


def shared(stage: Stage) -> None:
    """The Job is another one's; when it has as many owners as it may have, its result is waited for."""
    stage.place.apply("other")
    stage.look_at("other")
    stage.patch.setattr(decide, "MAX_OWNERS", 1)
    stage.apply()
    assert "has 1 owners" in stage.sees("Pending", "SharedJob", attempt=0)["message"]
    stage.patch.undo()
    status = stage.sees("Pending", "JobCreated")
    assert condition(status, "Accepted")["reason"] == "SharedJob"
    assert "the Job of other is shared" in condition(status, "Accepted")["message"]
    stage.run(*stage.pods())
    for pod in stage.place.pods(2):
        stage.end(pod)
    stage.job(Complete=True)
    assert condition(stage.sees("Succeeded", "Succeeded"), "Accepted")["reason"] == "Accepted"


def unfit(stage: Stage) -> None:
    """No node could take a pod, and the scheduler says so."""
    stage.apply(machineParams={"train": {"nprocesses": 1}})
    stage.sees("Pending", "JobCreated")
    (pod,) = stage.pods(1)
    said = {"reason": "Unschedulable", "message": "0/3 nodes are available"}
    path = f"/api/v1/namespaces/{stage.place.namespace}/pods/{pod['metadata']['name']}/status"
    conditions = [{"type": "PodScheduled", "status": "False", **said}]
    stage.place.api.must("PATCH", path, {"status": {"conditions": conditions}}, content=STRATEGIC)
    stage.sees("Pending", "JobCreated")
    stage.later(6)
    assert said["message"] in stage.sees("Pending", "Unschedulable")["message"]
    stage.run(pod)


def job_refused(stage: Stage) -> None:
    quota = f"/api/v1/namespaces/{stage.place.namespace}/resourcequotas"
    hard = {"count/jobs.batch": "0"}
    stage.place.api.must("POST", quota, {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    wait_for("the quota", lambda: stage.place.api.get(f"{quota}/q").get("status", {}).get("hard"))
    stage.apply()
    assert "exceeded quota" in stage.sees("Pending", "JobRefused", attempt=0)["message"]
    stage.place.api.must("DELETE", f"{quota}/q")
    stage.sees("Pending", "JobCreated")


STORIES: dict[Callable[[Stage], None], int] = {
    made: 7,
    counted_late: 5,
    hit: 1,
    fails_then_made: 7,
    hangs: 4,
    fails_for_good: 6,
    evicted: 4,
    paused: 6,
    queued: 4,
    refused: 3,
    without_image: 4,
    deleted: 5,
    two_modes: 3,
    blocked: 6,
    fails_before_the_test: 3,
    rejected: 5,
    without_store: 5,
    shared: 4,
    unfit: 4,
    job_refused: 2,
}


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_after_each_state_of_the_cluster_one_pass_brings_the_row_of_the_table(stage, story):
    recorder = Recorder(stage.place.plane, stage.place.experiments)
    story(stage)
    found = [found["status"] for _, found in recorder.close() if found["metadata"]["name"] == "it"]
    written = [row for row, _ in groupby(row_of(status) for status in found if status.get("conditions"))]
    due = [row for row, _ in groupby(stage.rows)]
    assert written == due
    assert len(stage.rows) == STORIES[story]
