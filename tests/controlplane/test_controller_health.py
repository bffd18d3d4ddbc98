"""What a controller tells those who watch over it: probes, metrics, events, and its log."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from control_plane import CONTROLLER, wait_for
from prometheus_client.parser import text_string_to_metric_families
from show_cluster import RUNONCE

from runonce.controller import main
from runonce.kube import events
from runonce.kube.events import Events
from runonce.kube.objects import ExperimentObject
from runonce.kube.transport import Api

ROOT = Path(__file__).parents[2]
MERGE = "application/merge-patch+json"


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def sampled(port: int) -> dict[tuple[str, ...], float]:
    """Name and values of labels to the value."""
    families = text_string_to_metric_families(get(port, "/metrics")[1])
    return {(one.name, *sorted(one.labels.values())): one.value for family in families for one in family.samples}


def named_in(text: str) -> set[str]:
    return set(re.findall(r"\brunonce_[a-z_]+", text))


def test_probes_say_when_it_is_ready_and_alive(place):
    controller = place.start()
    wait_for("full caches", lambda: get(controller.port, "/readyz")[0] == 200)
    assert get(controller.port, "/healthz") == (200, "ok")
    assert get(controller.port, "/nothing")[0] == 404


def test_metrics_tell_what_was_done_and_what_there_is(place):
    controller = place.start()
    place.apply("one")
    with place.working():
        place.until("one", "Succeeded")
    place.apply("two")
    place.until("two", "Succeeded")
    wait_for("the last pass", lambda: sampled(controller.port)[("runonce_cache_hits_total",)] == 1)
    found = sampled(controller.port)
    assert found["runonce_cache_misses_total",] == 1
    assert found["runonce_passes_total",] >= 3
    assert found["runonce_api_calls_total", "POST", "jobs"] == 1
    assert found["runonce_api_calls_total", "PATCH", "experiments/status"] >= 2
    assert found["runonce_store_calls_total", "put"] >= 1
    assert found["runonce_store_calls_total", "get"] >= 2
    assert found["runonce_experiments",] == 2
    assert found["runonce_jobs", "complete"] == 1
    assert found["runonce_leader",] == 1
    assert found["runonce_queue_depth",] >= 0
    assert found["runonce_queue_age_seconds",] >= 0
    for resource in ("experiments", "jobs"):
        assert found["runonce_watch_age_seconds", resource] >= 0


def test_a_follower_says_that_it_does_not_lead(place):
    first = place.start(elect=True)
    wait_for("a leader", first.leads)
    second = place.start(elect=True)
    assert sampled(first.port)["runonce_leader",] == 1
    assert sampled(second.port)["runonce_leader",] == 0


def test_every_metric_is_documented_and_no_other_is_and_the_chart_asks_for_none_that_is_not_there(place):
    controller = place.start()
    place.apply("one")
    with place.working():
        place.until("one", "Succeeded")
    exported = {name for name, *_ in sampled(controller.port)}
    documented = named_in((ROOT / "docs" / "operations.md").read_text())
    assert documented == exported
    files = [path for path in (ROOT / "helm" / "runonce").rglob("*") if path.is_file()]
    asked = set().union(*(named_in(path.read_text()) for path in files))
    assert asked
    assert asked <= exported


def test_a_watch_that_has_gone_silent_ends_the_liveness_until_it_speaks_again(place, monkeypatch):
    """The server has nothing to say, and the limit, else three minutes, is four seconds."""
    controller = place.start()
    place.apply("one")
    job = place.job()["metadata"]["name"]
    wait_for("life", lambda: get(controller.port, "/healthz")[0] == 200)
    monkeypatch.setattr(main, "SILENCE_S", 2.0)
    said = wait_for("silence", lambda: (found := get(controller.port, "/healthz"))[0] == 503 and found)
    assert said == (503, "a watch has gone silent")
    count = 0

    def speaks() -> bool:
        nonlocal count
        count += 1
        note = {"metadata": {"annotations": {"note": str(count)}}}
        for path in (f"{place.experiments}/one", f"{place.jobs_path}/{job}"):
            place.api.must("PATCH", path, note, content=MERGE)
        return get(controller.port, "/healthz")[0] == 200

    wait_for("life again", speaks)


def test_an_event_is_told_once_in_five_minutes_for_each_object_and_reason(place):
    api = Api.connect(kubeconfig=str(place.plane.kubeconfig(CONTROLLER)))
    now = [0.0]
    told = Events(api, "controller-0", clock=lambda: now[0])
    place.apply("one")
    place.apply("two", params={"lr": 2})
    one, two = (ExperimentObject.model_validate(place.get(name)) for name in ("one", "two"))
    for _ in range(3):
        told.warn(one, "AttemptFailed", "process 0 ended with 3")
    told.warn(two, "AttemptFailed", "process 0 ended with 3")
    told.tell(one, "Succeeded", "")
    now[0] = events.EVERY_S
    told.warn(one, "AttemptFailed", "x" * 5000)
    api.close()
    listed = place.api.must("GET", f"/apis/events.k8s.io/v1/namespaces/{place.namespace}/events")["items"]
    found = sorted((each["regarding"]["name"], each["type"], each["reason"], len(each["note"])) for each in listed)
    assert found == [
        ("one", "Normal", "Succeeded", 9),
        ("one", "Warning", "AttemptFailed", 22),
        ("one", "Warning", "AttemptFailed", 1024),
        ("two", "Warning", "AttemptFailed", 22),
    ]


def test_its_log_is_lines_of_json_without_whole_resources_and_credentials(place, tmp_path):
    """Of a process of its own, which makes one result and fails at another."""
    config = {"namespaces": [place.namespace], "stores": {"default": {"url": f"file://{place.folder}"}}}
    path = tmp_path / "runonce.json"
    path.write_text(json.dumps(config))
    command = [RUNONCE, "controller", "--config", str(path), "--host", "127.0.0.1", "--port", "0"]
    command += ["--kubeconfig", str(place.plane.kubeconfig(CONTROLLER)), "--namespace", place.namespace]
    with open(tmp_path / "log", "wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            place.apply("good")
            place.apply("bad", params={"lr": 2}, retries=0)
            names = {place.key("good"): 0, place.key("bad"): 3}
            with place.working(lambda pod: names[pod["metadata"]["annotations"]["runonce.dev/cache-key"]]):
                place.until("good", "Succeeded")
                place.until("bad", "Failed")
        finally:
            process.terminate()
            assert process.wait(60) == 0
    log = (tmp_path / "log").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    for line in lines:
        assert {"time", "level", "logger", "message"} <= line.keys()
        assert line["logger"].startswith("runonce.")
    assert {"caches are filled", "stopped"} <= {line["message"] for line in lines}
    assert not [line for line in lines if line["level"] in ("error", "critical")]
    assert "machineParams" not in log
    assert "token" not in log.lower()
