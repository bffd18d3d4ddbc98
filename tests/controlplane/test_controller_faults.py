"""An API server that dies and comes back; two controllers; what probes and Prometheus are told."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

from control_plane import ControlPlane, wait_for
from kubelet import Kubelet
from place import Place, grant


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_run_goes_on_after_the_api_server_died(own_control_plane: ControlPlane, tmp_path: Path):
    plane = own_control_plane
    grant(plane)
    (tmp_path / "store").mkdir()
    with plane.namespace() as namespace:
        place = Place(plane, namespace, tmp_path / "store", Kubelet(plane.api()))
        try:
            place.start()
            place.apply("one", params={"lr": 1})
            uid = place.job()["metadata"]["uid"]
            plane.apiserver.kill()
            plane.start_apiserver()
            place.apply("two", params={"lr": 2})
            with place.working():
                place.until("one", "Succeeded", within_s=120)
                place.until("two", "Succeeded", within_s=120)
            assert uid in {job["metadata"]["uid"] for job in place.jobs()}
            assert (len(place.jobs()), len(place.commits())) == (2, 2)
        finally:
            place.stop()


def test_of_two_controllers_one_works_and_the_other_takes_over(place):
    first = place.start(elect=True)
    wait_for("a leader", first.leads)
    second = place.start(elect=True)
    place.apply("one", params={"lr": 1})
    with place.working():
        place.until("one", "Succeeded")
        assert (first.leads(), second.leads()) == (True, False)
        first.stop()
        wait_for("the other", second.leads)
        place.apply("two", params={"lr": 2})
        place.until("two", "Succeeded")
    assert len(place.jobs()) == 2


def test_probes_and_metrics_tell_how_it_is(place):
    controller = place.start()
    wait_for("full caches", lambda: get(controller.port, "/readyz")[0] == 200)
    assert get(controller.port, "/healthz") == (200, "ok")
    assert get(controller.port, "/nothing")[0] == 404
    place.apply("one")
    with place.working():
        place.until("one", "Succeeded")
    text = wait_for("the count", lambda: (t := get(controller.port, "/metrics")[1]) and "misses_total 1.0" in t and t)
    for line in (
        "runonce_leader 1.0",
        "runonce_experiments 1.0",
        'runonce_jobs{state="complete"} 1.0',
        'runonce_api_calls_total{resource="jobs",verb="POST"} 1.0',
    ):
        assert line in text
    assert 'runonce_store_calls_total{call="put"}' in text
