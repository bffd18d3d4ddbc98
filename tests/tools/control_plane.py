"""A real Kubernetes control plane on loopback, without nodes: etcd, kube-apiserver, kube-controller-manager.

    with ControlPlane(find()) as plane:
        plane.kubectl("apply", "-f", "-", stdin=text)

Everything lies in one temporary folder and goes with it, also when the process that started it is killed. RBAC is on. Users:
`ADMIN`, `CONTROLLER` (a token and no rights of its own), and whoever a client certificate is asked for. The chart's CRDs are
there before the garbage collector starts, which otherwise takes half a minute to learn of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from certificates import Authority

from runonce.kube.objects import shallow

CRDS = Path(__file__).parents[2] / "helm" / "runonce" / "files" / "crds"
ADMIN = "admin"
CONTROLLER = "runonce-controller"

_CONTROLLERS = (
    "job-controller",
    "garbage-collector-controller",
    "ttl-after-finished-controller",
    "pod-garbage-collector-controller",
    "serviceaccount-controller",
    "namespace-controller",
    "clusterrole-aggregation-controller",
    "resourcequota-controller",
    "resourceclaim-controller",
    "endpointslice-controller",
)
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


def wait_for(what: str, found: Callable[[], Any], *, within_s: float = 60.0, every_s: float = 0.02) -> Any:
    """What `found` returns as soon as that is true. AssertionError, with `what` and the last value, when time is over."""
    deadline = time.monotonic() + within_s
    while not (value := found()):
        assert time.monotonic() < deadline, f"{what} did not come within {within_s:g} s; last seen: {value!r}"
        time.sleep(every_s)
    return value


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any  # JSON as a value; text where it is none
    headers: Any

    @property
    def message(self) -> str:
        return str(self.body.get("message", "")) if isinstance(self.body, dict) else str(self.body)


class Api:
    """HTTP with JSON to the API server as one user. May be used by several threads."""

    def __init__(self, url: str, ca: Path, *, token: str, timeout_s: float = 60.0) -> None:
        context = ssl.create_default_context(cafile=str(ca))
        self._pool = urllib3.PoolManager(ssl_context=context, retries=False, maxsize=16, timeout=timeout_s)
        self._url, self._headers = url, {"Authorization": f"Bearer {token}"}

    def request(
        self, method: str, path: str, body: Any = None, *, content: str = "application/json", **query: str
    ) -> Answer:
        """Any answer is returned, whatever its status; urllib3's errors where there is none."""
        answer = self._pool.request(
            method,
            self._url + path + ("?" + "&".join(f"{k}={v}" for k, v in query.items()) if query else ""),
            body=None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode(),
            headers=self._headers | {"Content-Type": content},
        )
        try:
            value = json.loads(shallow(answer.data))
        except ValueError:
            value = answer.data.decode("utf-8", "replace")
        return Answer(answer.status, value, answer.headers)

    def get(self, path: str, **query: str) -> Any:
        """The object, or None where there is none; AssertionError for any other answer."""
        answer = self.request("GET", path, **query)
        assert answer.status in (200, 404), answer
        return answer.body if answer.status == 200 else None

    def must(self, method: str, path: str, body: Any = None, *, content: str = "application/json", **query: str) -> Any:
        """The body of an answer that has to be a success."""
        answer = self.request(method, path, body, content=content, **query)
        assert answer.status < 300, f"{method} {path}: {answer.status} {answer.message}"
        return answer.body

    def close(self) -> None:
        self._pool.clear()


class Program:
    """One program that can be killed, stopped and started again with the same arguments."""

    def __init__(self, arguments: list[str], log: Path, reaper: subprocess.Popen[str]) -> None:
        self._arguments, self._log, self._reaper = arguments, log, reaper
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                self._arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._tell(f"+{self.pid}")

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait for its end; also of one that is stopped."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._tell(f"-{self.pid}")
            self._process = None

    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def _tell(self, line: str) -> None:
        assert self._reaper.stdin is not None
        self._reaper.stdin.write(line + "\n")
        self._reaper.stdin.flush()


class ControlPlane:
    def __init__(self, programs: Path) -> None:
        self.programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="runonce-control-plane-"))
        reaper = [sys.executable, "-I", "-S", str(Path(__file__).with_name("reaper.py")), str(self.folder)]
        self._reaper = subprocess.Popen(reaper, stdin=subprocess.PIPE, text=True, start_new_session=True)
        self._authority = Authority(self.folder)
        self.tokens = {ADMIN: "admin-token", CONTROLLER: "controller-token"}
        etcd, peer, port = _free_ports(3)
        self.url = f"https://127.0.0.1:{port}"
        self.ca = self._authority.certificate
        self.etcd = self._program("etcd", self._etcd_arguments(etcd, peer))
        self.apiserver = self._program("kube-apiserver", self._apiserver_arguments(port, etcd))
        self.controller_manager = self._program("kube-controller-manager", self._manager_arguments())
        self._apis: dict[str, Api] = {}

    def __enter__(self) -> ControlPlane:
        try:
            self.etcd.start()
            self.start_apiserver()
            self.apply_crds(CRDS)
            self.controller_manager.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        for api in self._apis.values():
            api.close()
        for program in (self.controller_manager, self.apiserver, self.etcd):
            program.kill()
        assert self._reaper.stdin is not None
        self._reaper.stdin.close()
        self._reaper.wait()

    def start_apiserver(self) -> None:
        """Start it, the first time or again, and wait until it serves everything."""
        self.apiserver.start()
        # One that is starting may take a connection and say nothing on it for ever.
        api = Api(self.url, self.ca, token=self.tokens[ADMIN], timeout_s=3.0)
        wait_for("a ready kube-apiserver", lambda: self._ready(api))
        api.close()

    def api(self, user: str = ADMIN) -> Api:
        if user not in self._apis:
            self._apis[user] = Api(self.url, self.ca, token=self.tokens[user])
        return self._apis[user]

    def kubeconfig(self, user: str = ADMIN, *, groups: tuple[str, ...] = (), namespace: str = "default") -> Path:
        """A file for kubectl and clients: with the token of a user that has one, else with a client certificate."""
        path = self.folder / f"{user}-{namespace}.kubeconfig"
        if user in self.tokens:
            credentials = {"token": self.tokens[user]}
        else:
            certificate, key = self._authority.client(user, groups)
            credentials = {"client-certificate": str(certificate), "client-key": str(key)}
        cluster = {"server": self.url, "certificate-authority": str(self.ca)}
        context = {"cluster": "local", "user": user, "namespace": namespace}
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "local", "cluster": cluster}],
                    "users": [{"name": user, "user": credentials}],
                    "contexts": [{"name": "local", "context": context}],
                    "current-context": "local",
                }
            )
        )
        return path

    def server_certificate(self) -> tuple[Path, Path]:
        """Certificate and key of a server on loopback."""
        return self.folder / "server.crt", self.folder / "server.key"

    def kubectl(
        self, *arguments: str, stdin: str | bytes = "", user: str = ADMIN, namespace: str = "default"
    ) -> subprocess.CompletedProcess[str]:
        """Any end is returned; standard output and error are text."""
        config = self.kubeconfig(user, namespace=namespace)
        done = subprocess.run(
            [self.programs / "kubectl", f"--kubeconfig={config}", *arguments],
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=120,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def apply_crds(self, folder: Path) -> None:
        """The kinds that a folder defines, until they are served."""
        for path in sorted(folder.glob("*.yaml")):
            applied = self.kubectl("apply", "--server-side", "-f", str(path))
            if applied.returncode:
                raise RuntimeError(f"{path.name}: {applied.stderr}")
            # It gives up at once on one that has no conditions yet.
            established = ("wait", "--for=condition=Established", "--timeout=60s", "-f", str(path))
            wait_for(path.name, lambda words=established: self.kubectl(*words).returncode == 0)

    def calls(self, user: str, *, since: int = 0) -> list[dict[str, Any]]:
        """The audit events of one user's requests, one for each, oldest first; `since` is an earlier `audit_position`.

        A request of ours that is in the log closes the list, so what was answered before the call is in it.
        """
        mark = f"/version?mark={time.monotonic_ns()}"
        self.api().must("GET", mark)
        wait_for("the audit log", lambda: mark in self._audit_text(since))
        events = {}
        for line in self._audit_text(since).splitlines():
            event = json.loads(line)
            if event["user"]["username"] == user:
                events[event["auditID"]] = event
        return list(events.values())

    def audit_position(self) -> int:
        return (self.folder / "audit.log").stat().st_size

    @contextlib.contextmanager
    def namespace(self, **labels: str) -> Iterator[str]:
        """A namespace that pods can be made in; it is deleted at the end, which nobody waits for."""
        api = self.api()
        metadata = {"generateName": "test-", "labels": labels}
        name: str = api.must("POST", "/api/v1/namespaces", {"metadata": metadata})["metadata"]["name"]
        wait_for("the default service account", lambda: api.get(f"/api/v1/namespaces/{name}/serviceaccounts/default"))
        try:
            yield name
        finally:
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                api.request("DELETE", f"/api/v1/namespaces/{name}")

    # --- the programs -------------------------------------------------------------------------------------------

    def _program(self, name: str, arguments: list[str]) -> Program:
        return Program([str(self.programs / name), *arguments], self.folder / f"{name}.log", self._reaper)

    def _etcd_arguments(self, port: int, peer: int) -> list[str]:
        return [
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{port}",
            f"--advertise-client-urls=http://127.0.0.1:{port}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
            "--log-level=error",
        ]

    def _apiserver_arguments(self, port: int, etcd: int) -> list[str]:
        certificate, key = self._authority.server("127.0.0.1", "localhost")
        tokens, policy = self.folder / "tokens.csv", self.folder / "audit-policy.json"
        tokens.write_text(
            f'{self.tokens[ADMIN]},{ADMIN},{ADMIN},"system:masters"\n'
            f"{self.tokens[CONTROLLER]},{CONTROLLER},{CONTROLLER}\n"
        )
        policy.write_text(json.dumps(_AUDIT_POLICY))
        return [
            f"--etcd-servers=http://127.0.0.1:{etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={port}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={self.ca}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            f"--service-account-key-file={self._authority.key}",
            f"--service-account-signing-key-file={self._authority.key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--endpoint-reconciler-type=none",  # it may not be a loopback address, and no pod asks for it
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.folder / 'audit.log'}",
            "--audit-log-mode=blocking",
            "--profiling=false",
        ]

    def _manager_arguments(self) -> list[str]:
        return [
            f"--kubeconfig={self.kubeconfig('kube-controller-manager', groups=('system:masters',))}",
            f"--service-account-private-key-file={self._authority.key}",
            f"--controllers={','.join(_CONTROLLERS)}",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
            "--profiling=false",
        ]

    def _ready(self, api: Api) -> bool:
        if self.apiserver.ended():
            raise RuntimeError(f"kube-apiserver ended: {self.apiserver.log()[-2000:]}")
        try:
            return api.request("GET", "/readyz").status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def _audit_text(self, since: int) -> str:
        with open(self.folder / "audit.log", "rb") as log:
            log.seek(since)
            return log.read().decode()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
