"""What the tests of this folder stand on: the control plane comes, is used by several users, and goes with its starter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from control_plane import ADMIN, CONTROLLER, ControlPlane, wait_for
from programs import NAMES, ProgramsMissing, find

TOOLS = Path(__file__).parents[1] / "tools"

STARTER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from control_plane import ControlPlane
with ControlPlane(Path(sys.argv[2])) as plane:
    print(plane.folder, plane.etcd.pid, plane.apiserver.pid, plane.controller_manager.pid, flush=True)
    time.sleep(600)
"""


def test_rights_are_those_that_a_user_was_given(control_plane, namespace):
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    assert control_plane.api(CONTROLLER).request("GET", path).status == 403
    role = {"name": "view", "kind": "ClusterRole", "apiGroup": "rbac.authorization.k8s.io"}
    subject = {"kind": "User", "name": CONTROLLER, "apiGroup": "rbac.authorization.k8s.io"}
    control_plane.api().must(
        "POST",
        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings",
        {"metadata": {"name": "view"}, "roleRef": role, "subjects": [subject]},
    )
    wait_for("the right to list", lambda: control_plane.api(CONTROLLER).request("GET", path).status == 200)
    done = control_plane.kubectl("get", "configmaps", user="somebody", namespace=namespace)
    assert 'User "somebody" cannot list' in done.stderr


def test_the_audit_log_tells_every_call_of_a_user_once(control_plane, namespace):
    since = control_plane.audit_position()
    for number in range(3):
        control_plane.api(CONTROLLER).request("GET", f"/api/v1/namespaces/{namespace}/secrets/s{number}")
    calls = control_plane.calls(CONTROLLER, since=since)
    assert [call["objectRef"]["name"] for call in calls] == ["s0", "s1", "s2"]
    assert {(call["verb"], call["responseStatus"]["code"]) for call in calls} == {("get", 403)}


@pytest.mark.skipif(not Path("/proc").exists(), reason="tells a living process from a dead one by /proc")
def test_nothing_is_left_when_its_starter_is_killed(programs):
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(TOOLS), str(programs)], stdout=subprocess.PIPE, text=True
    )
    try:
        folder, *pids = starter.stdout.readline().split()
    finally:
        starter.kill()
        starter.wait()
        starter.stdout.close()
    wait_for(
        "the end of all", lambda: not any(Path("/proc", pid).exists() for pid in pids) and not Path(folder).exists()
    )


def test_an_api_server_that_was_killed_comes_back_with_what_it_had(own_control_plane):
    plane: ControlPlane = own_control_plane
    plane.api().must("POST", "/api/v1/namespaces", {"metadata": {"name": "kept"}})
    plane.apiserver.kill()
    assert plane.apiserver.ended()
    plane.start_apiserver()
    assert plane.api().get("/api/v1/namespaces/kept") is not None
    plane.apiserver.signal(signal.SIGSTOP)  # and one that is stopped ends too


def test_programs_that_are_named_and_not_there_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with pytest.raises(ProgramsMissing, match=f"has no {', '.join(NAMES)}; unset it"):
        find()


def test_without_go_and_programs_both_ways_are_told(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(ProgramsMissing, match="set KUBEBUILDER_ASSETS .* or install Go"):
        find()


def test_the_first_to_find_nothing_builds_and_the_next_has_it(tmp_path, monkeypatch):
    """A `go` that writes what it was asked for: how the programs are named and when they count as there."""
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\nprintf "#!/bin/sh\\n" >"$2"; chmod +x "$2"\n')
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{go.parent}:{os.environ['PATH']}")
    said: list[str] = []
    folder = find(said.append)
    assert {path.name for path in folder.iterdir()} == {*NAMES, "lock"}
    assert find(said.append) == folder
    assert len(said) == 1
    assert "about 7 minutes" in said[0]


def test_everybody_can_ask_as_the_administrator(control_plane):
    assert control_plane.api(ADMIN).request("GET", "/readyz").status == 200
