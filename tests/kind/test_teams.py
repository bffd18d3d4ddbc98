"""Releases of the chart that watch a namespace each, in a cluster of their own: with a Role there, and no right elsewhere."""

from __future__ import annotations

import os
import textwrap

import pytest
from cluster import SYSTEM, VALUES, WORKER, Cluster
from story import Story, condition, program, train

ACCOUNT = "runonce-worker"

# Two processes that meet: the first one waits for a word of the second.
MEET = textwrap.dedent("""\
    import os, pathlib, socket, time
    rank, port = int(os.environ["RANK"]), int(os.environ["MASTER_PORT"])
    if rank == 0:
        with socket.create_server(("", port)) as server:
            print("up", flush=True)
            word = b""
            while not word:  # of an outsider there is none
                word = server.accept()[0].recv(5)
            while not pathlib.Path("/tmp/go").exists():
                time.sleep(0.1)  # between two looks
    else:
        word = b"hello"
        while True:
            try:
                socket.create_connection((os.environ["MASTER_ADDR"], port), 5).sendall(word)
                break
            except OSError:
                time.sleep(0.2)  # between two tries
    pathlib.Path(os.environ["RUNONCE_OUTPUT"], "word").write_bytes(word)
    """)
CALL = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
PORT = 29400


@pytest.fixture
def teams(cluster, tmp_path):
    """Namespaces a, b and c; two releases, for a and for b, in one namespace."""
    own = Cluster(cluster.programs, f"runonce-teams-{os.getpid()}", tmp_path)
    try:
        own.create()
        own.load()
        for name in ("a", "b", "c"):
            own.namespace(name)
        stores = {"default": {**VALUES["stores"]["default"], "serviceAccountName": ACCOUNT}}
        common = {**VALUES, "stores": stores, "workers": {"serviceAccount": {"create": True, "name": ACCOUNT}}}
        own.install({**common, "namespaces": ["a"]}, release="team-a")
        own.install({**common, "namespaces": ["b"], "crds": {"install": False}}, release="team-b")
        yield own
    finally:
        own.delete()


def test_each_release_has_rights_in_its_namespace_alone_and_goes_without_the_others(teams):
    a, b, c = (Story(teams, name) for name in ("a", "b", "c"))
    for story in (c, b, a):
        story.apply(program("meet", "", nprocesses=2, coupled=True, command=["python", "-c", MEET]))
    (first,) = a.told("up")
    assert first["spec"]["serviceAccountName"] == ACCOUNT
    # The NetworkPolicy of workers keeps outsiders away as one does that lets nobody in. Where the network of a cluster
    # enforces no policy, neither does.
    a.apply(outsider("closed", ["python", "-m", "http.server", str(PORT)]))
    a.apply(nobody("closed"))
    a.wait("a server", lambda: address(a, "closed"))
    assert calls(a, "closed") == calls(a, first["metadata"]["name"])
    a.tell(first, "touch /tmp/go")
    b.tell(*b.told("up"), "touch /tmp/go")
    keys = {train(story.succeeded("meet"))["cacheKey"] for story in (a, b)}
    assert len(keys) == 1  # and each made it: their prefixes of the store are two
    assert [condition(story.experiment("meet"), "CacheHit")["status"] for story in (a, b)] == ["False", "False"]
    assert c.experiment("meet")["status"] == {"observedGeneration": -1}  # nobody has seen it
    assert c.all("jobs") == []
    leases = teams.get(f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases")["items"]
    assert {lease["metadata"]["name"] for lease in leases} == {"team-a-runonce", "team-b-runonce"}
    for namespace, answer in {"a": "yes", "b": "no", SYSTEM: "no"}.items():
        who = f"system:serviceaccount:{SYSTEM}:team-a-runonce"
        told = teams.kubectl("auth", "can-i", "create", "jobs.batch", "--as", who, "-n", namespace, check=False)
        assert told.strip() == answer, namespace
    for release in ("team-a", "team-b"):
        teams.call("helm", "test", release, "--namespace", SYSTEM, "--timeout", "2m")
    teams.call("helm", "uninstall", "team-b", "--namespace", SYSTEM, "--wait")
    a.apply(program("again", "", nprocesses=2, coupled=True, command=["python", "-c", MEET]))
    assert condition(a.succeeded("again"), "CacheHit")["status"] == "True"
    assert b.experiment("meet")["status"]["phase"] == "Succeeded"


def outsider(name, command):
    """A pod that is no Experiment's, as the restricted standard wants it."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {"name": "it", "image": WORKER, "command": command, "securityContext": security}
    pod = {
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    metadata = {"name": name, "labels": {"app": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**pod, "containers": [container]}}


def nobody(name):
    spec = {"podSelector": {"matchLabels": {"app": name}}, "policyTypes": ["Ingress"]}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


def address(story, name):
    (pod,) = (pod for pod in story.all("pods") if pod["metadata"]["name"] == name)
    return pod["status"].get("podIP", "") if pod["status"]["phase"] == "Running" else ""


def calls(story, name):
    """Whether a pod that is no Experiment's reaches one."""
    caller = story.apply(
        outsider(f"calls-{name}"[:60].strip("-"), ["python", "-c", CALL, address(story, name), str(PORT)])
    )
    ends = ("Succeeded", "Failed")

    def ended():
        (pod,) = (pod for pod in story.all("pods") if pod["metadata"]["name"] == caller)
        return pod["status"]["phase"] if pod["status"]["phase"] in ends else ""

    return story.wait("an answer", ended) == "Succeeded"
