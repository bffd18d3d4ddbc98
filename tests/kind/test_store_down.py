"""The store is killed while pods train, publish, or wait for the commit; it comes back, and nothing was made twice."""

from __future__ import annotations

import pytest
from stores import FRAGILE
from story import condition, program, train

pytestmark = pytest.mark.xdist_group("store")  # one after the other: they put the same server out of action


@pytest.fixture
def store(cluster):
    yield FRAGILE
    FRAGILE.start(cluster)


WAITS = "echo up; while [ ! -e /tmp/go ]; do sleep 0.2; done; echo $JOB_COMPLETION_INDEX > $RUNONCE_OUTPUT/x; echo over"


def test_the_store_is_down_while_pods_run(story, store):
    story.apply(program("train", WAITS, store="fragile"))
    (pod,) = story.told("up")
    store.stop(story.cluster)
    story.wait("word of it", lambda: "Running" in story.experiment("train")["status"]["phase"])
    store.start(story.cluster)
    story.tell(pod, "touch /tmp/go")
    assert train(story.succeeded("train"))["attempt"] == 1


def test_the_store_is_down_while_a_pod_publishes(story, store):
    story.apply(program("publish", WAITS, store="fragile", retries=0))
    (pod,) = story.told("up")
    store.stop(story.cluster)
    story.tell(pod, "touch /tmp/go")
    story.told("over")
    story.wait("a try", lambda: True)
    store.start(story.cluster)
    done = story.succeeded("publish")
    assert train(done)["attempt"] == 1
    assert len(story.all("pods")) == 1


def test_the_store_is_down_when_the_result_is_to_be_committed(story, store):
    """One index has published; the store goes before the controller can know of the end."""
    story.apply(program("commit", WAITS, store="fragile"))
    (pod,) = story.told("up")
    story.kubectl("patch", "experiment", "commit", "--type=merge", "-p", '{"spec":{"priorityClassName":null}}')
    story.tell(pod, "touch /tmp/go")
    story.wait("the end of the pod", lambda: story.all("pods", fieldSelector="status.phase=Succeeded"))
    store.stop(story.cluster)
    store.start(story.cluster)
    done = story.succeeded("commit")
    assert (train(done)["attempt"], condition(done, "CacheHit")["status"]) == (1, "False")


def test_an_experiment_that_is_applied_while_the_store_is_down_says_so_and_runs_later(story, store):
    store.stop(story.cluster)
    story.apply(program("later", "echo 1 > $RUNONCE_OUTPUT/x", store="fragile"))
    told = story.wait("the trouble", lambda: _trouble(story, "later"), seconds=120)
    assert "fragile" in told["message"]
    assert story.all("jobs") == []
    store.start(story.cluster)
    story.succeeded("later")


def _trouble(story, name):
    ready = condition(story.experiment(name), "Ready")
    return ready if ready.get("reason") == "Error" else None
