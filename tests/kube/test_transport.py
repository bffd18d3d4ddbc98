"""Calls on the API server, and what each of its answers is for the caller."""

from __future__ import annotations

import contextlib
import json
import socket
import time

import pytest
import yaml
from conftest_kube import says, watching
from kubernetes.client import Configuration

from runonce.errors import ApiError, Conflict, Expired, InputError, Invalid, NotFound, Refused, Unreachable
from runonce.kube.transport import CREDENTIALS_S, Api, encoded, error_of

PATH = "/apis/batch/v1/namespaces/n/jobs"


def test_every_write_is_strict_and_says_whose_it_is(server, api):
    """Without `Strict` an older server drops a field that it does not know, with a warning alone."""
    for kind in ("post", "put", "patch"):
        server.script(kind, says(200, {"a": 1}))
    assert api.post(PATH, {"a": 1}).body == b'{"a":1}'
    api.put(PATH, {"a": 1})
    api.patch(PATH, [{"op": "test", "path": "/a", "value": 1}])
    api.apply(PATH + "/x/status", {"a": 1})
    for asked in server.asked:
        assert (asked.query["fieldValidation"], asked.query["fieldManager"]) == ("Strict", "runonce")
    types = [asked.headers["Content-Type"] for asked in server.asked]
    assert types == [
        "application/json",
        "application/json",
        "application/json-patch+json",
        "application/apply-patch+yaml",
    ]
    assert server.asked[2].body == [{"op": "test", "path": "/a", "value": 1}]
    assert server.asked[3].query["force"] == "true"


def test_what_is_sent_is_json_and_yaml_alike(server, api):
    """The server reads what is applied as YAML, in which the JSON of `🧪` as two escapes is an error."""
    server.script("patch", says(200, {}))
    odd = ["".join(map(chr, (*range(0x3000), *range(0xFE00, 0x10010), 0x1F9EA, 0x10FFFF))), {"🧪": "a \u2028 b\x85\n"}]
    data = encoded(odd)
    api.apply(PATH, odd)
    assert server.asked[0].body == json.loads(data) == yaml.safe_load(data.decode()) == odd
    assert json.loads(encoded("\ud800")) == "\ud800"


def test_a_deletion_names_the_object_and_what_becomes_of_its_pods(server, api):
    server.script("delete", says(200, {}))
    api.delete(PATH + "/x", uid="u", version="7")
    preconditions = {"uid": "u", "resourceVersion": "7"}
    assert server.asked[0].body == {"preconditions": preconditions, "propagationPolicy": "Foreground"}


def test_warnings_of_the_server_come_back(server, api):
    server.script("post", says(201, {}, Warning='299 - "would violate PodSecurity \\"restricted\\""'))
    assert api.post(PATH, {}).warnings == ('would violate PodSecurity "restricted"',)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, Invalid),
        (401, Refused),
        (403, Refused),
        (404, NotFound),
        (409, Conflict),
        (410, Expired),
        (422, Invalid),
        (429, Unreachable),
        (500, Unreachable),
        (503, Unreachable),
    ],
)
def test_an_answer_has_its_error(server, api, code, kind):
    server.script("get", says(code, Retry_After="3"))
    with pytest.raises(ApiError) as caught:
        api.get(PATH)
    assert (type(caught.value), caught.value.code, caught.value.retry_after_s) == (kind, code, 3.0)
    assert f"GET {PATH}: {code} said {code}" in str(caught.value)


@pytest.mark.parametrize(
    "message", ["etcdserver: request is too large", "failed: .status.x: field not declared in schema"]
)
def test_what_no_retry_can_help_is_final_whatever_its_code(message):
    assert type(error_of(500, f'{{"message": "{message}"}}', where="x")) is Invalid


def test_the_cause_tells_a_namespace_that_is_being_deleted(server, api):
    body = {"reason": "Forbidden", "message": "m", "details": {"causes": [{"reason": "NamespaceTerminating"}]}}
    server.script("post", says(403, body))
    with pytest.raises(Refused) as caught:
        api.post(PATH, {})
    assert caught.value.cause == "NamespaceTerminating"


def test_an_answer_that_is_no_json_is_told_as_it_is(server, api):
    server.script("get", lambda handler: handler.send_error(502, "a proxy speaks"))
    with pytest.raises(Unreachable, match="a proxy speaks"):
        api.get(PATH)


def test_nobody_there_is_unreachable():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        api = Api(Configuration(host=f"http://127.0.0.1:{free.getsockname()[1]}"))
        with pytest.raises(Unreachable, match="does not answer"):
            api.get(PATH)


def test_a_server_that_accepts_and_says_nothing_is_given_up():
    """A stopped server still accepts: a limit on connecting alone would wait for ever."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        api = Api(Configuration(host=f"http://127.0.0.1:{mute.getsockname()[1]}"), timeout_s=0.2)
        with pytest.raises(Unreachable):
            api.get(PATH)


def test_the_events_of_a_watch_are_whole_lines_however_they_arrive(server, api):
    def answer(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for part in (b'{"type":', b'"A"}\n{"type":"B"}\n{"ty', b'pe":"C"}\n'):
            handler.chunk(part)
            time.sleep(0.01)
        handler.wfile.write(b"0\r\n\r\n")

    server.script("watch", answer)
    assert list(api.watch(PATH)) == [b'{"type":"A"}', b'{"type":"B"}', b'{"type":"C"}']


def test_a_silent_watch_raises(server, api):
    server.script("watch", watching({"type": "A"}))
    watch = iter(api.watch(PATH, silence_s=0.2))
    next(watch)
    with pytest.raises(Unreachable, match="broke off"):
        next(watch)


def test_calls_are_counted_by_verb_and_resource(server, api):
    server.script("get", says(200, {}))
    server.script("patch", says(200, {}))
    api.get("/apis/batch/v1/namespaces/n/jobs/x")
    api.get("/apis/runonce.dev/v1alpha1/experiments")
    api.apply("/apis/runonce.dev/v1alpha1/namespaces/n/experiments/x/status", {})
    api.get("/api/v1/namespaces/n/pods")
    assert api.calls.by_kind == {
        ("GET", "jobs"): 1,
        ("GET", "experiments"): 1,
        ("PATCH", "experiments/status"): 1,
        ("GET", "pods"): 1,
    }


KUBECONFIG = """
apiVersion: v1
kind: Config
clusters:
- {name: c, cluster: {server: "http://127.0.0.1:1"}}
users:
- {name: u, user: {token: secret}}
contexts:
- {name: one, context: {cluster: c, user: u, namespace: team-a}}
- {name: two, context: {cluster: c, user: u}}
current-context: one
"""


def test_contexts_and_namespaces_are_those_of_kubectl(tmp_path):
    path = tmp_path / "config"
    path.write_text(KUBECONFIG)
    assert Api.connect(kubeconfig=str(path)).namespace == "team-a"
    assert Api.connect(kubeconfig=str(path), context="two").namespace == "default"
    with pytest.raises(InputError, match="no cluster can be found"):
        Api.connect(kubeconfig=str(path), context="three")


@pytest.mark.parametrize("text", ["{", "- list", "clusters: 5", "current-context: x"])
def test_a_kubeconfig_that_cannot_be_read_is_told_in_words(tmp_path, text):
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(InputError, match="no cluster can be found"):
        Api.connect(kubeconfig=str(path))


@pytest.fixture
def pod(monkeypatch, tmp_path):
    """The surroundings of a pod: where the API server is, and the folder of its account."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    for name, text in (("token", "t"), ("ca.crt", "c"), ("namespace", "team-b\n")):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_in_a_pod_without_a_kubeconfig_its_account_is_used(pod, monkeypatch):
    monkeypatch.setattr("runonce.kube.transport.KUBE_CONFIG_DEFAULT_LOCATION", str(pod / "config"))
    api = Api.connect(account=pod)
    assert (api.host, api.namespace) == ("https://10.0.0.1:443", "team-b")


def test_a_kubeconfig_wins_over_the_account_of_a_pod_as_with_kubectl(pod, monkeypatch):
    (pod / "config").write_text(KUBECONFIG)
    location = f"{pod / 'other'}:{pod / 'config'}"
    # The client reads KUBECONFIG once, when it is imported.
    for name in ("runonce.kube.transport", "kubernetes.config.kube_config"):
        monkeypatch.setattr(f"{name}.KUBE_CONFIG_DEFAULT_LOCATION", location)
    assert Api.connect(account=pod).namespace == "team-a"


def test_the_token_of_the_kubeconfig_is_sent(server, tmp_path):
    path = tmp_path / "config"
    path.write_text(KUBECONFIG.replace("http://127.0.0.1:1", server.url))
    server.script("get", says(200, {}))
    Api.connect(kubeconfig=str(path)).get(PATH)
    assert server.asked[0].headers["Authorization"] == "Bearer secret"


def test_credentials_are_asked_for_again_after_a_while_and_when_they_are_refused(server, tmp_path):
    path = tmp_path / "config"
    path.write_text(KUBECONFIG.replace("http://127.0.0.1:1", server.url))
    api = Api.connect(kubeconfig=str(path))
    configuration, tokens = api._client.configuration, iter(("one", "two", "three"))
    configuration.refresh_api_key_hook = lambda given: given.api_key.update(BearerToken=f"Bearer {next(tokens)}")
    server.script("get", *(says(code, {}) for code in (200, 200, 200, 401, 200)))

    def sent() -> str:
        with contextlib.suppress(Refused):
            api.get(PATH)
        return server.asked[-1].headers["Authorization"]

    assert (sent(), sent()) == ("Bearer one", "Bearer one")
    until, headers = api._credentials
    api._credentials = until - CREDENTIALS_S, headers  # as it is when that time has passed
    assert (sent(), sent()) == ("Bearer two", "Bearer two")
    assert sent() == "Bearer three"
