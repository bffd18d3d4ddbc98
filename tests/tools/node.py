"""A node that runs the processes of pods on this machine, and hands out what they write, as a kubelet does.

The container of a pod is a process of its command: variables, the file of the downward API, SIGTERM, grace and exit code are
as a kubelet has them. An image is a folder, in which the process starts. There are no limits and no network of its own; the
host name of index 0 is this machine, with a port for each Job.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

from control_plane import ControlPlane
from kubelet import MERGE, Kubelet, Pod

from runonce.experiment.contract import POD_SPEC_FILE, SPEC_ANNOTATION, SPEC_FILE

MAX_MESSAGE = 2048  # of a log's end, as FallbackToLogsOnError keeps it
POLL_S = 0.05


@dataclass
class _Container:
    process: subprocess.Popen[bytes]
    log: Path
    scratch: Path
    ends_at: float | None = None  # when the grace is over, once it was asked to end


class Node(Kubelet):
    """images: image to the folder that it stands for; a pod of another image never begins. folder: for logs and scratch."""

    def __init__(self, plane: ControlPlane, images: Mapping[str, Path], folder: Path, name: str = "worker-1") -> None:
        super().__init__(plane.api(), name)
        self._images, self._folder = images, folder
        self._containers: dict[str, _Container] = {}
        self._ports: dict[str, int] = {}
        self._door = _Door(self._log_of, plane)
        address = {"type": "InternalIP", "address": "127.0.0.1"}
        endpoint = {"kubeletEndpoint": {"Port": self._door.port}}
        status = {"addresses": [address], "daemonEndpoints": endpoint}
        plane.api().must("PATCH", f"/api/v1/nodes/{name}/status", {"status": status}, content=MERGE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends every process that is still there."""
        for container in self._containers.values():
            if container.process.poll() is None:
                os.killpg(container.process.pid, signal.SIGKILL)
                container.process.wait()
        self._door.close()

    def run_pod(self, pod: Pod) -> int | None:
        """Of a pod that runs, for `playing`: start its process, the first time; its exit code once it has ended."""
        container = self._containers.get(pod["metadata"]["uid"]) or self._start_process(pod)
        code = container.process.poll()
        if code is None:
            if "deletionTimestamp" in pod["metadata"]:
                self._end_process(container, pod["metadata"].get("deletionGracePeriodSeconds", 0))
            return None
        shutil.rmtree(container.scratch, ignore_errors=True)
        return code if code >= 0 else 128 - code

    def _step(self, pod: Pod, ends: Callable[[Pod], int | None]) -> None:
        phase = pod.get("status", {}).get("phase", "Pending")
        if phase == "Running":
            code = ends(pod)
            if code is not None:
                self.end(pod, code, message=self._tail(pod) if code else "")
            return
        pullable = pod["spec"]["containers"][0]["image"] in self._images
        if phase == "Pending" and not pullable and "deletionTimestamp" not in pod["metadata"]:
            return
        super()._step(pod, ends)

    def _end_process(self, container: _Container, grace_s: float) -> None:
        if container.ends_at is None:
            container.ends_at = time.monotonic() + grace_s
            container.process.terminate()  # the first process alone, as a kubelet does it
        elif time.monotonic() > container.ends_at:
            os.killpg(container.process.pid, signal.SIGKILL)

    def _start_process(self, pod: Pod) -> _Container:
        spec, uid = pod["spec"]["containers"][0], pod["metadata"]["uid"]
        scratch = self._folder / uid
        scratch.mkdir(parents=True)
        (scratch / "spec.json").write_text(pod["metadata"]["annotations"][SPEC_ANNOTATION])
        log = self._folder / f"{uid}.log"
        program, *arguments = spec["command"]
        with log.open("wb") as out:
            process = subprocess.Popen(
                [Path(sys.executable).parent / program, *arguments],
                cwd=self._images[spec["image"]],
                env=self._env(pod, scratch),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._containers[uid] = _Container(process, log, scratch)
        return self._containers[uid]

    def _env(self, pod: Pod, scratch: Path) -> dict[str, str]:
        """An image's own, then the pod's; what stands for a file or host of the pod stands for one of this machine."""
        env = {"PATH": os.environ["PATH"], "HOME": str(scratch), "TMPDIR": str(scratch), "LANG": "C.UTF-8"}
        container = pod["spec"]["containers"][0]
        for source in container.get("envFrom", ()):
            env |= self._secret(pod, source["secretRef"]["name"])
        for entry in container["env"]:
            source = entry.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            env[entry["name"]] = entry.get("value", "").replace("$$", "$") if source is None else _field(pod, source)
        assert env[SPEC_FILE] == POD_SPEC_FILE
        env[SPEC_FILE] = str(scratch / "spec.json")
        if "MASTER_ADDR" in env:
            job = pod["metadata"]["labels"]["batch.kubernetes.io/controller-uid"]
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self._ports.setdefault(job, _free_port()))}
        return env

    def _secret(self, pod: Pod, name: str) -> dict[str, str]:
        found = self._api.must("GET", f"/api/v1/namespaces/{pod['metadata']['namespace']}/secrets/{name}")
        return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}

    def _tail(self, pod: Pod) -> str:
        return self._log_of(pod["metadata"]["uid"]).read_bytes()[-MAX_MESSAGE:].decode("utf-8", "replace")

    def _log_of(self, uid: str) -> Path:
        return self._containers[uid].log


class _Door:
    """What an API server asks of a kubelet for `kubectl logs`: GET /containerLogs/<namespace>/<pod>/<container>."""

    def __init__(self, log_of: Callable[[str], Path], plane: ControlPlane) -> None:
        door = self
        self._closing = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                _, kind, namespace, name, _ = url.path.split("/")
                pod = plane.api().get(f"/api/v1/namespaces/{namespace}/pods/{name}")
                if kind != "containerLogs" or pod is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.end_headers()
                door._send(self, log_of(pod["metadata"]["uid"]), plane, pod, "follow" in parse_qs(url.query))

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*plane.server_certificate())
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="kubelet's door")
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _send(self, handler: BaseHTTPRequestHandler, log: Path, plane: ControlPlane, pod: Pod, follow: bool) -> None:
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
        with log.open("rb") as file:
            while True:
                now = plane.api().get(path) if follow else None
                over = now is None or now["status"]["phase"] in ("Succeeded", "Failed")
                if data := file.read():
                    handler.wfile.write(data)
                    handler.wfile.flush()
                elif over or self._closing.wait(POLL_S):
                    return


def _field(pod: Pod, path: str) -> str:
    """Empty where the pod has none of the name, as a kubelet gives it."""
    kind, _, name = path.removeprefix("metadata.").partition("['")
    value: str = pod["metadata"].get(kind, {}).get(name.removesuffix("']"), "")
    return value


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
