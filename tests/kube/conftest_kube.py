"""An API server by script: what it answers to each call in turn, and a record of what it was asked."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from kubernetes.client import Configuration

from runonce.kube.transport import Api


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: Any
    at: float = field(default_factory=time.monotonic)

    @property
    def kind(self) -> str:
        """What a script is kept under: list, watch, or the method."""
        if self.method == "GET":
            return "watch" if "watch" in self.query else "get"
        return self.method.lower()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 2**16  # head and body in one packet: else the other side waits for the rest
    server: Scripted

    def _any(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = Asked(self.command, parts.path, query, json.loads(data) if data else None, self.headers)
        try:
            self.server.next(asked)(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any

    def answer(self, code: int, body: Any, **headers: str) -> None:
        data = encoded(body)
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def log_message(self, *_: object) -> None: ...


class Scripted(ThreadingHTTPServer):
    """`script(kind, answer, …)` says what comes next; the last answer of a kind stays."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self._lock = threading.Lock()
        self._answers: dict[str, deque[Callable[[Handler], None]]] = defaultdict(deque)
        self.asked: list[Asked] = []
        self.over = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def script(self, kind: str, *answers: Callable[[Handler], None]) -> None:
        with self._lock:
            self._answers[kind] = deque(answers)

    def next(self, asked: Asked) -> Callable[[Handler], None]:
        with self._lock:
            self.asked.append(asked)
            answers = self._answers[asked.kind]
            assert answers, f"no answer for {asked}"
            return answers.popleft() if len(answers) > 1 else answers[0]

    def of(self, kind: str) -> list[Asked]:
        with self._lock:
            return [asked for asked in self.asked if asked.kind == kind]

    def handle_error(self, request: object, client_address: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Scripted]:
    made = Scripted()
    yield made
    made.over.set()
    made.shutdown()
    made.server_close()


@pytest.fixture
def api(server) -> Iterator[Api]:
    made = Api(Configuration(host=server.url), timeout_s=5)
    yield made
    made.close()


# --- answers ---


def encoded(value: Any) -> bytes:
    """As JSON; the text `300 levels` stands for lists in lists, which Python's own encoder would not write."""
    data = json.dumps(value, separators=(",", ":")).encode()
    return re.sub(rb'"(\d+) levels"', lambda found: b"[" * int(found[1]) + b"]" * int(found[1]), data)


def says(code: int, body: Any = None, **headers: str) -> Callable[[Handler], None]:
    reason = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "AlreadyExists", 410: "Expired"}
    status = {"kind": "Status", "code": code, "reason": reason.get(code, ""), "message": f"said {code}"}
    return lambda handler: handler.answer(code, status if body is None else body, **headers)


def listing(version: int, *objects: Any, more: str = "") -> Callable[[Handler], None]:
    return says(200, {"metadata": {"resourceVersion": str(version), "continue": more}, "items": list(objects)})


def watching(*events: Any, then: str = "silent") -> Callable[[Handler], None]:
    """Events, one chunk each; then `silent`, `ends` (cleanly) or `breaks`."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.flush()
        for event in events:
            handler.chunk(encoded(event) + b"\n")
        if then == "silent":
            handler.server.over.wait(30)
        if then == "breaks":
            handler.close_connection = True
            return
        handler.wfile.write(b"0\r\n\r\n")
        handler.wfile.flush()

    return answer


def job(name: str, version: int, **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "n", "uid": f"uid-{name}", "resourceVersion": str(version)}
    return {"metadata": metadata | more.pop("metadata", {}), "spec": {"completions": 1}, **more}


def told(kind: str, object_: Any) -> dict[str, Any]:
    return {"type": kind, "object": object_}


def bookmark(version: int) -> dict[str, Any]:
    return told("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})
