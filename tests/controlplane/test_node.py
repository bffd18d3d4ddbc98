"""The node that tests play runs what a pod asks for, and the API server gets its logs from it as from a kubelet."""

from __future__ import annotations

from control_plane import wait_for

from runonce.experiment.contract import POD_SPEC_FILE, SPEC_ANNOTATION, SPEC_FILE


def post(api, namespace: str, script: str, image: str = "here") -> None:
    env = [{"name": SPEC_FILE, "value": POD_SPEC_FILE}, {"name": "PRICE", "value": "5$$"}]
    container = {"name": "worker", "image": image, "command": ["python", "-c", script], "env": env}
    metadata = {"name": "p", "annotations": {SPEC_ANNOTATION: '{"a":1}'}}
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 30, "containers": [container]}
    api.must("POST", f"/api/v1/namespaces/{namespace}/pods", {"metadata": metadata, "spec": spec})


def status(api, namespace: str):
    return api.must("GET", f"/api/v1/namespaces/{namespace}/pods/p")["status"]


def test_a_pod_is_a_process_with_its_variables_its_file_and_its_exit_code(api, namespace, node, control_plane):
    post(api, namespace, "import os; print(os.environ['PRICE'], open(os.environ['RUNONCE_SPEC_FILE']).read()); exit(3)")
    with node.playing(namespace, node.run_pod):
        wait_for("its end", lambda: status(api, namespace)["phase"] == "Failed")
        done = control_plane.kubectl("logs", "p", namespace=namespace)
    assert done.stdout == '5$ {"a":1}\n', done.stderr
    ended = status(api, namespace)["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["message"]) == (3, '5$ {"a":1}\n')


def test_a_deleted_pod_gets_sigterm_and_goes_when_its_process_has_ended(api, namespace, node, tmp_path):
    script = "import signal, time; signal.signal(15, lambda *_: open('told', 'w').close() or exit(0)); open('up', 'w'); time.sleep(600)"
    post(api, namespace, script)
    with node.playing(namespace, node.run_pod):
        wait_for("its process", lambda: (tmp_path / "up").exists())
        api.must("DELETE", f"/api/v1/namespaces/{namespace}/pods/p")
        wait_for("its end", lambda: api.get(f"/api/v1/namespaces/{namespace}/pods/p") is None)
    assert (tmp_path / "told").exists()


def test_a_pod_of_an_image_that_is_not_there_never_begins_and_can_be_deleted(api, namespace, node):
    post(api, namespace, "exit(0)", image="nowhere")
    with node.playing(namespace, node.run_pod):
        api.must("DELETE", f"/api/v1/namespaces/{namespace}/pods/p")
        wait_for("its end", lambda: api.get(f"/api/v1/namespaces/{namespace}/pods/p") is None)
