"""Which namespaces a controller works in, and how it ends."""

from __future__ import annotations

import threading
from pathlib import Path

import yaml
from control_plane import wait_for
from place import Place

from runonce.controller import main
from runonce.kube.cluster import StoreAccess
from runonce.kube.transport import Answer, Api

VALUES = Path(__file__).parents[2] / "helm" / "runonce" / "values.yaml"


def beside(place: Place, namespace: str, **options: str) -> Place:
    """Another namespace of the same cluster, which `place`'s controllers may watch too."""
    return Place(place.plane, namespace, place.folder, place.kubelet, **options)


def test_a_controller_of_all_namespaces_makes_a_key_once_in_each(place):
    of_each = StoreAccess(url=f"file://{place.folder}/{{namespace}}")
    place.cluster_changes = {"namespaces": (), "stores": {"default": of_each}}
    place.store = of_each.url_for(place.namespace)
    with place.plane.namespace() as name:
        other = beside(place, name, store=of_each.url_for(name))
        place.start()
        for one in (place, other):
            one.apply("one")
        with place.working(), other.working():
            for one in (place, other):
                one.until("one", "Succeeded")
        assert [(len(one.jobs()), len(one.commits())) for one in (place, other)] == [(1, 1), (1, 1)]


def test_a_controller_of_two_namespaces_leaves_a_third_alone(place):
    with place.plane.namespace() as second, place.plane.namespace() as third:
        place.cluster_changes = {"namespaces": (place.namespace, second)}
        watched, left = beside(place, second), beside(place, third)
        place.start()
        left.apply("one")
        watched.apply("one")
        with watched.working():
            watched.until("one", "Succeeded")
        place.apply("hit")
        assert place.until("hit", "Succeeded")["cached"] is True
        assert (left.jobs(), left.status("one")) == ([], {"observedGeneration": -1})


def test_who_is_told_to_stop_ends_the_pass_that_it_is_in_and_begins_no_other(place):
    class Slow(Api):
        asked, go_on = threading.Event(), threading.Event()

        def apply(self, *given, **named) -> Answer:
            self.asked.set()
            assert self.go_on.wait(60)
            return super().apply(*given, **named)

    place.client = Slow
    place.cluster_changes = {"workers": 1}
    controller = place.start()
    place.apply("first", params={"lr": 1})
    assert Slow.asked.wait(60)
    place.apply("second", params={"lr": 2})
    wait_for("both known", lambda: len(controller._experiments) == 2)
    controller.stop()
    Slow.go_on.set()
    place.stop()
    assert (place.status("first")["phase"], len(place.jobs())) == ("Pending", 1)
    assert place.status("second") == {"observedGeneration": -1}
    place.client = Api
    place.start()
    with place.working():
        for name in ("first", "second"):
            place.until(name, "Succeeded")
    assert place.status("first")["modes"]["train"]["attempt"] == 1


def test_a_pass_that_hangs_does_not_keep_the_lease(place, monkeypatch):
    """A pod has thirty seconds to end, and whoever takes over is not to wait until the lease has run out."""

    class Hanging(Api):
        asked, go_on = threading.Event(), threading.Event()

        def apply(self, *given, **named) -> Answer:
            self.asked.set()
            self.go_on.wait(60)
            return super().apply(*given, **named)

    assert yaml.safe_load(VALUES.read_text())["controller"]["terminationGracePeriodSeconds"] > main.ENDS_WITHIN_S
    monkeypatch.setattr(main, "ENDS_WITHIN_S", 0.5)
    place.client = Hanging
    controller = place.start(elect=True)
    ((_, thread),) = place.controllers
    try:
        place.apply("one")
        assert Hanging.asked.wait(60)
        leases = f"/apis/coordination.k8s.io/v1/namespaces/{place.namespace}/leases"
        (held,) = place.api.must("GET", leases)["items"]
        assert held["spec"]["holderIdentity"].startswith(place.namespace)
        controller.stop()
        thread.join(60)
        assert not thread.is_alive()
        (lease,) = place.api.must("GET", leases)["items"]
        assert not lease["spec"].get("holderIdentity")
    finally:
        Hanging.go_on.set()
