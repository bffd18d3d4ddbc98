"""What a user learns and takes of results that a cluster made: explain, logs, pull; out of a folder and out of S3."""

from __future__ import annotations

import json
import os
import uuid

import pytest
from control_plane import wait_for

from runonce.kube.cluster import StoreAccess


def test_a_result_that_a_cluster_made_is_listed_explained_and_pulled_by_the_name_of_its_experiment(
    place, runonce, node, write, tmp_path
):
    place.start()
    script = 'echo "$1" > "$RUNONCE_OUTPUT/word"; echo said "$1"'
    with node.playing(place.namespace, node.run_pod):
        done = runonce("submit", write("first", script), "--wait", "-o", "json")
        assert done.returncode == 0, done.stderr
        logged = runonce("cluster", "logs", "first")
        assert (logged.stdout, logged.returncode) == ("said hello\n", 0), logged.stderr
        second = runonce("submit", write("first-2", script, change=("hello", "bye")), "--wait")
        assert second.returncode == 0, second.stderr
        hit = runonce("submit", write("third", script), "--wait")
        assert hit.stdout.startswith("third  hit"), hit.stdout

    pulled = runonce("cluster", "pull", "first")
    folder = tmp_path / pulled.stdout.split()[0]
    assert (folder / "word").read_text() == "hello\n"
    assert runonce("cluster", "pull", "third", "out", "-o", "json").returncode == 0
    assert (tmp_path / "out" / "word").read_text() == "hello\n"
    again = runonce("cluster", "pull", "third", "out")
    assert (again.returncode, "has files in it" in again.stderr) == (2, True)

    between = runonce("cluster", "explain", "first", "first-2", "-o", "json")
    (difference,) = json.loads(between.stdout)["modes"]["train"]["differences"]
    assert difference == {"path": "/params/word", "first": "bye", "second": "hello"}
    assert runonce("cluster", "explain", "third").stderr == "train: third is a hit\n"
    same = runonce("cluster", "explain", "first", "third")
    assert same.stdout.split()[2] == "is"


def test_of_a_miss_explain_names_the_nearest_earlier_result_in_the_store(place, runonce, node, write):
    place.start()
    with node.playing(place.namespace, node.run_pod):
        assert runonce("submit", write("walk", "true"), "--wait").returncode == 0
        changed = write("walk", "true", change=("hello", "bye"))
        assert runonce("submit", changed, "--wait").returncode == 0
    told = runonce("cluster", "explain", "walk")
    assert 'params.word was "hello", is "bye"' in told.stdout, told.stderr
    shown = runonce("cluster", "show", "walk")
    assert "earlier: train  succeeded" in shown.stdout
    assert "code: label:1  (the user's promise)" in shown.stdout


LONG = 'echo the first line; i=0; while [ $i -lt 60 ]; do echo "line $i of what it did"; i=$((i+1)); done; exit 3'


def test_explain_tells_the_failure_that_the_store_has_kept_whole(place, runonce, node, write):
    """The status has room for the end of one log."""
    place.start()
    with node.playing(place.namespace, node.run_pod):
        assert runonce("submit", write("good-11111111", "true"), "--wait").returncode == 0
        bad = write("good-22222222", LONG, change=("nprocesses: 1", "nprocesses: 2, coupled: false"))
        assert runonce("submit", bad, "--wait").returncode == 1
    assert "the first line" not in place.status("good-22222222")["modes"]["train"]["failure"]["logTail"]
    told = runonce("cluster", "explain", "good-22222222")
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert "train  attempt 1: process 0 ended with Error (exit code 3)" in lines
    assert "train    the first line" in lines
    assert "entry" in told.stdout  # what differs from the nearest result
    found = json.loads(runonce("cluster", "explain", "good-22222222", "-o", "json").stdout)
    assert found["failures"]["train"]["attempt"] == 1
    assert found["failures"]["train"]["failures"][0]["logTail"].startswith("the first line\n")
    unreachable = "s3://none?endpoint=http://127.0.0.1:1&region=us-east-1"
    told = runonce("cluster", "explain", "good-22222222", "--store", unreachable)
    assert told.returncode == 0, told.stderr
    assert "train  attempt 1: process 0 ended with Error (exit code 3)" in told.stdout.splitlines()
    assert "Give --store URL" in told.stdout + told.stderr


def test_explain_tells_the_failure_of_the_status_where_no_store_is_known(place, runonce, write):
    place.start()
    runonce("submit", write("only", "true"))
    (pod,) = place.pods(1)
    place.kubelet.start(pod)
    place.kubelet.end(pod, 78, message="no such data set")
    wait_for("its failure", lambda: place.phase("only") == "Failed")
    told = runonce("cluster", "explain", "only")
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines() == [
        "train  attempt 1: process 0 ended with ConfigurationError (exit code 78)",
        "train    no such data set",
        f"no Experiment in namespace {place.namespace} has a result, so it is not known where the store is. "
        "Give --store URL to compare with others.",
    ]


def test_explain_without_a_result_or_a_failure_asks_for_the_store(place, runonce, write):
    runonce("submit", write("waits", "true"))
    told = runonce("cluster", "explain", "waits")
    assert told.returncode == 2
    assert "Give --store URL" in told.stderr


@pytest.fixture
def in_s3(place, weed) -> str:
    """The namespace's store is a bucket; pods get the credentials from the Secret that the administrator names."""
    url = weed.url(f"t/{uuid.uuid4().hex}")
    place.store = url
    place.cluster_changes["stores"] = {"default": StoreAccess(url=url, secret_name="store-access")}
    given = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    secret = {"metadata": {"name": "store-access"}, "stringData": given}
    place.api.must("POST", f"/api/v1/namespaces/{place.namespace}/secrets", secret)
    return url


def test_results_in_s3_are_made_by_pods_explained_and_pulled(place, runonce, node, write, in_s3, tmp_path):
    place.start()
    script = 'mkdir "$RUNONCE_OUTPUT/deep"; echo "$1" > "$RUNONCE_OUTPUT/deep/word"; head -c 300000 /dev/zero > "$RUNONCE_OUTPUT/zeros"'
    with node.playing(place.namespace, node.run_pod):
        done = runonce("submit", write("first", script), "--wait", "-o", "json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)[0]["modes"]["train"]["artifacts"].startswith("s3://")
        bad = runonce("submit", write("first", "echo no luck; exit 3", change=("hello", "bye")), "--wait")
        assert bad.returncode == 1, bad.stderr
        assert runonce("submit", write("again", script), "--wait").stdout.startswith("again  hit")
    pulled = runonce("cluster", "pull", "again", "out")
    assert pulled.returncode == 0, pulled.stderr
    assert (tmp_path / "out" / "deep" / "word").read_text() == "hello\n"
    assert (tmp_path / "out" / "zeros").read_bytes() == bytes(300_000)
    told = runonce("cluster", "explain", "first")
    assert 'params.word was "hello", is "bye"' in told.stdout, told.stderr
    assert "train    no luck" in told.stdout


def test_credentials_that_the_store_does_not_know_are_told_without_a_traceback(
    place, runonce, node, write, in_s3, monkeypatch
):
    place.start()
    with node.playing(place.namespace, node.run_pod):
        assert runonce("submit", write("first", "true"), "--wait").returncode == 0
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-another")
    for word in ("pull", "explain"):
        told = runonce("cluster", word, "first")
        assert told.returncode in (1, 2), told
        assert "Traceback" not in told.stderr
        assert "AccessDenied" in told.stderr or "SignatureDoesNotMatch" in told.stderr or "refuse" in told.stderr
