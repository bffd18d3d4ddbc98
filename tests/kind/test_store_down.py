"""The store is away for a minute while pods train, publish, or wait for the commit, and nothing is made twice."""

from __future__ import annotations

import fcntl
import time

import pytest
from laptop import Laptop
from stores import FRAGILE, STOP
from story import condition, program, train

from runonce.store.url import open_store

WAITS = "echo up; while [ ! -e /tmp/go ]; do sleep 0.2; done; echo $JOB_COMPLETION_INDEX > $RUNONCE_OUTPUT/x"
PATIENT = "It is tried again"  # what a worker says that waits for its store
DOWN_S = 60.0  # long enough that every retry of a single call is over


@pytest.fixture
def store(cluster):
    """One test after the other has it, in whatever process: they put the same server out of action."""
    with (cluster.folder / "store.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield FRAGILE
        FRAGILE.start(cluster)


def _back_after_a_minute(story, store, since):
    """How long it is away is what is tried here, so this alone waits on a clock."""
    time.sleep(max(0.0, since + DOWN_S - time.monotonic()))
    store.start(story.cluster)


def test_the_store_is_down_while_two_processes_train(story, store, tmp_path):
    """They save a checkpoint whenever the one before is written."""
    laptop = Laptop(story, tmp_path)
    often = {"RUNONCE_CHECKPOINT_S": "0.1"}
    laptop.submit(laptop.digits("train", epochs=100, tests=0, env=often, store="fragile", retries=0))
    story.wait("a process that runs", lambda: train(story.experiment("train")).get("phase") == "Running", seconds=300)
    store.stop(story.cluster)
    since = time.monotonic()
    story.told(PATIENT)
    _back_after_a_minute(story, store, since)
    assert train(story.succeeded("train", seconds=400))["attempt"] == 1


def test_the_store_is_down_while_a_pod_publishes(story, store):
    story.apply(program("publish", WAITS, store="fragile", retries=0))
    (pod,) = story.told("up")
    store.stop(story.cluster)
    since = time.monotonic()
    story.tell(pod, "touch /tmp/go")
    story.told(PATIENT)
    _back_after_a_minute(story, store, since)
    assert train(story.succeeded("publish"))["attempt"] == 1
    assert len(story.all("pods")) == 1


def test_the_store_is_down_when_the_result_is_to_be_committed(story, store, monkeypatch):
    """It dies between the pod's last write and the end of the Job, which takes the control plane a second or two."""
    for name, value in store.credentials().items():
        monkeypatch.setenv(name, value)
    for attempt in range(5):
        name = f"commit-{attempt}"
        story.apply(program(name, f"{WAITS} # {attempt}", store="fragile", retries=0))
        (pod,) = story.told("up")
        prefix = f"w/{train(story.experiment(name))['cacheKey']}/"
        with store.forwarded(story.cluster, story.namespace) as url, store.armed(story.cluster) as shell:
            backend = open_store(url)
            story.tell(pod, "touch /tmp/go")
            deadline = time.monotonic() + 120
            while not any(entry.name.endswith("/i0") for entry in backend.list(prefix)):
                assert time.monotonic() < deadline
            shell.stdin.write(f"{STOP}\n")
            since = time.monotonic()
        story.wait("the end of the pod", lambda: not story.all("pods", fieldSelector="status.phase=Running"))
        told = story.wait("word of it", lambda name=name: _settled(story, name), seconds=180)
        in_time = told["reason"].startswith("Store")
        if in_time:
            _back_after_a_minute(story, store, since)
        else:
            store.start(story.cluster)
        done = story.succeeded(name)
        assert (train(done)["attempt"], condition(done, "CacheHit")["status"]) == (1, "False")
        if in_time:
            return
    pytest.fail("the controller was faster each time")


def _settled(story, name):
    ready = condition(story.experiment(name), "Ready")
    return ready if ready.get("reason", "").startswith("Store") or ready.get("status") == "True" else None


def test_an_experiment_that_is_applied_while_the_store_is_down_says_so_and_runs_later(story, store):
    store.stop(story.cluster)
    story.apply(program("later", "echo 1 > $RUNONCE_OUTPUT/x", store="fragile"))
    told = story.wait("word of it", lambda: _settled(story, "later"), seconds=180)
    assert told["reason"] in ("StoreUnreachable", "StoreTimeout")
    assert story.all("jobs") == []
    store.start(story.cluster)
    story.succeeded("later")
