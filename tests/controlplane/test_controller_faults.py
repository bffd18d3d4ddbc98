"""A real API server that dies, hangs, forgets or refuses; two controllers; a clock that jumps; what probes are told."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from control_plane import ControlPlane, wait_for
from kubelet import Kubelet
from place import Place, first_fails, grant

from runonce.controller import reconcile, waits
from runonce.errors import Unreachable
from runonce.kube import transport
from runonce.kube.informer import Informer
from runonce.kube.transport import SILENCE_S, TIMEOUT_S, Api, error_of

MADE = ("create", "jobs")


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.fixture
def own_place(own_control_plane: ControlPlane, tmp_path: Path) -> Iterator[Place]:
    """On a control plane of the test's own."""
    grant(own_control_plane)
    (tmp_path / "store").mkdir()
    with own_control_plane.namespace() as namespace:
        made = Place(own_control_plane, namespace, tmp_path / "store", Kubelet(own_control_plane.api()))
        try:
            yield made
        finally:
            made.stop()


def test_a_run_goes_on_after_the_api_server_died(own_place):
    place, plane = own_place, own_place.plane
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


def test_etcd_that_was_restored_from_an_older_copy_is_noticed_and_nothing_is_believed(own_place, caplog):
    """The copy knows one Experiment with its Job; the other, which has succeeded since, is not in it."""
    place, plane = own_place, own_place.plane
    controller = place.start()
    place.apply("one", params={"lr": 1})
    job = place.job()
    wait_for("its word", lambda: place.status("one").get("job"))
    plane.etcd.kill()
    folder, copy = plane.folder / "etcd", plane.folder / "copy"
    shutil.copytree(folder, copy)
    plane.etcd.start()
    wait_for("a ready server", lambda: place.api.request("GET", "/readyz").status == 200, within_s=120)
    place.apply("two", params={"lr": 2})
    with place.working(lambda pod: 0 if job["metadata"]["name"] not in pod["metadata"]["name"] else None):
        place.until("two", "Succeeded", within_s=120)
    for number in range(30):  # so that the copy is far behind
        place.apply("noise", params={"lr": 2}, annotations={"n": str(number)})
    for program in (plane.apiserver, plane.etcd):
        program.kill()
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)
    plane.etcd.start()
    plane.start_apiserver()
    plane.controller_manager.kill()
    plane.controller_manager.start()
    wait_for("the notice", lambda: "the server went back in time" in caplog.text, within_s=120)
    wait_for("full caches", lambda: get(controller.port, "/readyz")[0] == 200, within_s=120)
    assert place.api.get(f"{place.experiments}/two") is None
    since = place.position()
    with place.working():
        place.apply("three", params={"lr": 3})
        place.apply("two", params={"lr": 2})
        for name in ("one", "two", "three"):
            place.until(name, "Succeeded", within_s=120)
    assert place.status("two")["cached"] is True
    made = [c for c in place.calls(since) if (c["verb"], c["objectRef"]["resource"]) == MADE]
    assert len(made) == 1  # three's; the Job of one is the one it had
    assert job["metadata"]["uid"] in {found["metadata"]["uid"] for found in place.jobs()}


@pytest.mark.parametrize("silence_s", [60, 120])
def test_a_server_that_swallows_everything_for_a_while_is_followed_again(place, monkeypatch, caplog, silence_s):
    """A tenth of it and of all limits: after a minute the watch goes on, after two it was given up and all is listed."""
    monkeypatch.setitem(Informer.__init__.__kwdefaults__, "silence_s", SILENCE_S / 10)
    monkeypatch.setitem(Api.connect.__func__.__kwdefaults__, "timeout_s", TIMEOUT_S / 10)
    place.start()
    place.apply("before", params={"lr": 1})
    place.job()
    place.plane.apiserver.signal(signal.SIGSTOP)
    try:
        time.sleep(silence_s / 10)  # the length of the hole, not a wait for something
        assert ("watch interrupted" in caplog.text) == (silence_s > SILENCE_S)
    finally:
        place.plane.apiserver.signal(signal.SIGCONT)
    place.apply("after", params={"lr": 2})
    with place.working():
        place.until("after", "Succeeded", within_s=120)
        place.until("before", "Succeeded", within_s=120)
    assert (len(place.jobs()), len(place.commits())) == (2, 2)


class Troubled(Api):
    """Each kind of call is answered so the first time, and as it should be from then on."""

    answer: str = ""

    def _once(self, method: str, path: str) -> None:
        kind = (method, path.rpartition("/")[2] if method != "GET" else path)
        if not hasattr(self, "seen"):
            self.seen: set[tuple[str, str]] = set()
        if kind in self.seen:
            return
        self.seen.add(kind)
        if self.answer == "closes":
            raise Unreachable(f"{method} {path}: the answer broke off")
        raise error_of(int(self.answer), '{"message": "so it is today"}', where=f"{method} {path}")

    def _call(self, method, path, *rest, **named):
        self._once(method, path)
        return super()._call(method, path, *rest, **named)

    def lines(self, path, **query):
        self._once("GET", path + "?watch")
        return super().lines(path, **query)


@pytest.mark.parametrize("answer", ["401", "403", "409", "410", "429", "500", "503", "closes"])
def test_whatever_is_answered_once_to_each_call_the_run_ends_as_it_should(place, answer):
    place.client = type("Troubled", (Troubled,), {"answer": answer})
    since = place.position()
    place.start()
    place.apply("troubled", ttlSecondsAfterFinished=3600)
    with place.working():
        status = place.until("troubled", "Succeeded", within_s=120)
    made = [c for c in place.calls(since) if (c["verb"], c["objectRef"]["resource"]) == MADE]
    assert [call["responseStatus"]["code"] for call in made] == [201]
    assert (status["modes"]["train"]["attempt"], len(place.commits())) == (1, 1)


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_that_jumps_ends_nothing(place, monkeypatch, days):
    place.start()
    place.apply("jumped", startDeadlineSeconds=600)
    place.job()
    jumped = time.time
    clock = type("Clock", (), {"time": lambda: jumped() + days * 86400, "monotonic": time.monotonic})
    for module in (reconcile, transport, waits):
        monkeypatch.setattr(module, "time", clock)
    place.apply("jumped", startDeadlineSeconds=600, annotations={"look": "again"})
    with place.working():
        status = place.until("jumped", "Succeeded")
    assert status["modes"]["train"]["attempt"] == 1


class Later(Api):
    """Of an API server that says it is an hour later."""

    def now(self):
        return super().now() + 3600


def test_a_start_deadline_is_counted_by_the_servers_clock_and_over_a_restart(place, monkeypatch):
    monkeypatch.setattr(waits, "POLL_S", 0.5)
    place.start()
    place.apply("late", startDeadlineSeconds=60)
    place.job()
    place.stop()
    place.client = Later
    back = type("Clock", (), {"time": lambda: 0.0, "monotonic": time.monotonic})
    monkeypatch.setattr(reconcile, "time", back)
    place.start()
    status = place.until("late", "Failed")
    assert status["modes"]["train"]["reason"] == "StartDeadlineExceeded"


def test_a_start_deadline_is_none_for_pods_that_ran_before(place, monkeypatch):
    """An index whose pod was evicted after hours has no time from the start of its Job."""
    monkeypatch.setattr(waits, "POLL_S", 0.2)
    place.client = Later
    place.apply("evicted", startDeadlineSeconds=3700, machineParams={"train": {"nprocesses": 1, "coupled": False}})
    place.start()
    (pod,) = place.pods(1)
    place.kubelet.start(pod)
    place.until("evicted", "Running")
    monkeypatch.setattr(Later, "now", lambda self: Api.now(self) + 7200)
    place.kubelet.disrupt(pod)
    place.api.must("DELETE", f"/api/v1/namespaces/{place.namespace}/pods/{pod['metadata']['name']}")
    place.kubelet.remove(place.api.get(f"/api/v1/namespaces/{place.namespace}/pods/{pod['metadata']['name']}"))
    place.until("evicted", "Pending")
    with place.working():
        status = place.until("evicted", "Succeeded")
    assert status["modes"]["train"]["attempt"] == 1


@contextlib.contextmanager
def process(place: Place, user: str, config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A controller as it is started in a pod, as a user of its own so that the audit log tells them apart."""
    grant(place.plane, user)
    kubeconfig = place.plane.kubeconfig(user)
    options = ["--config", str(config), "--kubeconfig", str(kubeconfig), "-n", place.namespace, "--host", "127.0.0.1"]
    made = subprocess.Popen([sys.executable, "-m", "runonce", "controller", *options, "--port", "0"])
    try:
        yield made
    finally:
        if made.poll() is None:
            made.send_signal(signal.SIGCONT)
            made.kill()
        made.wait()


def written(place, user: str, since: int) -> list[dict]:
    """Its calls since then that change something."""
    return [call for call in place.plane.calls(user, since=since) if call["verb"] not in ("get", "list", "watch")]


def rests(place, user: str) -> bool:
    """Whether it only renews its lease for a second."""
    since = place.position()
    time.sleep(1)  # that nothing is written in a while can only be seen in a while
    return all(call["objectRef"]["resource"] == "leases" for call in written(place, user, since))


def test_a_leader_that_was_frozen_writes_nothing_when_it_wakes_and_ends(place, tmp_path):
    config = tmp_path / "controller.json"
    config.write_text(place.cluster().model_dump_json(by_alias=True, exclude_none=True))
    first, second = f"first-{uuid.uuid4().hex[:6]}", f"second-{uuid.uuid4().hex[:6]}"
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{place.namespace}/leases/runonce-controller"

    def holder() -> str:
        return ((place.api.get(lease) or {}).get("spec") or {}).get("holderIdentity", "")

    with process(place, first, config) as leader:
        leading = wait_for("a leader", holder)
        with process(place, second, config):
            place.apply("one", params={"lr": 1})
            place.job()
            wait_for("a moment of rest", lambda: rests(place, first))
            leader.send_signal(signal.SIGSTOP)
            wait_for("another leader", lambda: holder() not in ("", leading))
            with place.working():
                place.until("one", "Succeeded", within_s=120)
                place.apply("two", params={"lr": 2})
                since = place.position()
                leader.send_signal(signal.SIGCONT)
                assert leader.wait(60) == 1
                place.until("two", "Succeeded", within_s=120)
    # A renewal of its lease may have been on its way when it froze; it is refused, since the lease is another's by now.
    assert not [call for call in written(place, first, since) if call["responseStatus"]["code"] < 300]
    assert (len(place.jobs()), len(place.commits())) == (2, 2)


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


def test_results_in_s3_are_made_and_hit_as_those_in_a_folder(place, weed):
    place.store = weed.url(f"t/{uuid.uuid4().hex}")
    place.start()
    place.apply("first", retries=1)
    with place.working(first_fails()):
        assert place.until("first", "Succeeded")["modes"]["train"]["attempt"] == 2
    place.apply("second")
    status = place.until("second", "Succeeded")
    assert (status["cached"], len(place.commits())) == (True, 1)
    place.apply("second", overwrite=True)
    with place.working():
        wait_for("it anew", lambda: place.status("second").get("cached") is False and place.phase("second"))
    assert len(place.commits()) == 1
