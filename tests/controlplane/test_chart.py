"""The chart on a real API server: what it makes is taken there, and a renewed or removed release keeps what runs."""

from __future__ import annotations

import contextlib
import shutil

import pytest
import yaml
from control_plane import wait_for
from kubelet import Kubelet
from place import Place, grant
from tests.chart.conftest import CHART, EVERYTHING, helm_here

CRD = "experiments.runonce.dev"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
OF_PROMETHEUS = ("ServiceMonitor", "PrometheusRule")  # of an operator that is not there


@pytest.fixture
def helm():
    return helm_here()


@pytest.mark.parametrize("everything", [False, True], ids=["defaults", "everything"])
def test_the_api_server_takes_every_object_of_the_chart(control_plane, helm, everything):
    values = yaml.safe_load(EVERYTHING.read_text()) if everything else {}
    with contextlib.ExitStack() as made:
        namespaces = [made.enter_context(control_plane.namespace()) for _ in range(3 if everything else 1)]
        if everything:
            values |= {"namespaces": namespaces[1:]}
            values["argocd"]["namespace"] = namespaces[0]
        objects = [
            found for found in helm.render(values, namespace=namespaces[0]) if found["kind"] not in OF_PROMETHEUS
        ]
        apply = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-")
        done = control_plane.kubectl(*apply, stdin=yaml.safe_dump_all(objects))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(objects)


def _older(folder):
    """The chart of a release that had neither a column nor a field of this one."""
    shutil.copytree(CHART, folder)
    path = folder / "files" / "crds" / "experiments.yaml"
    crd = yaml.safe_load(path.read_text())
    (version,) = crd["spec"]["versions"]
    del version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["startDeadlineSeconds"]
    version["additionalPrinterColumns"] = [c for c in version["additionalPrinterColumns"] if c["name"] != "Image"]
    path.write_text(yaml.safe_dump(crd))
    return folder


def takes_field(place):
    with contextlib.suppress(AssertionError):
        return place.apply("runs", startDeadlineSeconds=600)


def test_an_upgrade_renews_the_crd_and_no_uninstall_takes_what_runs(own_control_plane, helm, tmp_path):
    plane = own_control_plane
    api, where = plane.api(), ("--namespace", "default", "--kubeconfig", str(plane.kubeconfig()))
    api.must("DELETE", f"{CRDS}/{CRD}")  # the release is to have made it
    wait_for("no CRD", lambda: api.get(f"{CRDS}/{CRD}") is None)
    helm.call("install", "lab", str(_older(tmp_path / "older")), *where)
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", f"crd/{CRD}")
    grant(plane)
    with plane.namespace() as namespace:
        (tmp_path / "store").mkdir()
        place = Place(plane, namespace, tmp_path / "store", Kubelet(api))
        columns = ("get", "experiments", "-n", namespace)
        try:
            place.start()
            made = place.apply("runs")
            assert not takes_field(place)
            for pod in place.pods(2):
                place.kubelet.start(pod)
            place.until("runs", "Running")
            job = place.job()["metadata"]["uid"]
            assert "IMAGE" not in plane.kubectl(*columns, "-o", "wide").stdout

            def untouched():
                assert "deletionTimestamp" not in api.get(f"{CRDS}/{CRD}")["metadata"]
                assert place.get("runs")["metadata"]["uid"] == made["metadata"]["uid"]
                assert place.job()["metadata"]["uid"] == job
                assert [pod["status"]["phase"] for pod in place.pods(2)] == ["Running", "Running"]

            helm.call("upgrade", "lab", str(CHART), *where)
            wait_for("the column", lambda: "IMAGE" in plane.kubectl(*columns, "-o", "wide").stdout)
            wait_for("the field", lambda: takes_field(place))
            untouched()
            helm.call("uninstall", "lab", *where)
            assert plane.kubectl("get", "deployments", "-o", "name").stdout == ""
            untouched()
            helm.call("install", "lab", str(CHART), *where)
            assert plane.kubectl("get", "deployments", "-o", "name").stdout != ""
            untouched()
            with place.working():
                status = place.until("runs", "Succeeded")
            assert status["modes"]["train"]["attempt"] == 1
        finally:
            place.stop()
