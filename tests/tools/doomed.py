"""Controllers that kill themselves: SIGKILL before the write of a given number, on the API server or in a store.

    python doomed.py KUBECONFIG CLUSTER.json NAMESPACE

On standard input: `start K` (K from 0; -1: it lives), `look`, `end`. Each is answered by one line: the pid; `alive`, or how it
ended; `ended`. One process imports everything, and forks each controller, so that one costs milliseconds. To die before write
K + 1 is to die after write K, so these moments are all there are.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from runonce.controller import main
from runonce.controller.main import Controller, run_controller
from runonce.kube.cluster import Cluster
from runonce.kube.transport import Api
from runonce.logs import log_as_json

_WRITES = ("put", "put_file", "delete")


class Gate:
    """Counts writes, tells of each in a file, and kills this process before the one of the number."""

    def __init__(self, die_at: int, trace: str) -> None:
        self._left, self._lock = die_at, threading.Lock()
        self._trace = open(trace, "a", buffering=1)  # noqa: SIM115 - as long as the process lives

    def __call__(self, what: str) -> None:
        with self._lock:
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1
            self._trace.write(what + "\n")


class DoomedApi(Api):
    gate: Gate

    def _send(self, method: str, path: str, *rest: Any) -> Any:
        if method != "GET":
            self.gate(f"{method} {path.rpartition('/namespaces/')[2].partition('/')[2]}")
        return super()._send(method, path, *rest)


class DoomedStore:
    def __init__(self, backend: Any, gate: Gate) -> None:
        self._backend, self._gate = backend, gate

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._backend, name)
        if name not in _WRITES:
            return found

        def write(target: str, *given: Any, **named: Any) -> Any:
            self._gate(f"{name} {target[:1]}/")
            return found(target, *given, **named)

        return write


def run(kubeconfig: str, cluster: Cluster, namespace: str, die_at: int, trace: str) -> int:
    gate = Gate(die_at, trace)
    open_store = main.open_store
    main.open_store = lambda *given: DoomedStore(open_store(*given), gate)  # type: ignore[assignment,return-value]

    def make() -> Controller:
        api = DoomedApi.connect(kubeconfig=kubeconfig)
        assert isinstance(api, DoomedApi)
        api.gate = gate
        return Controller(api, cluster, namespace=namespace, elect=None, host="127.0.0.1", port=0)

    return run_controller(make)


def serve(kubeconfig: str, config: str, namespace: str) -> None:
    cluster = Cluster.model_validate(json.loads(Path(config).read_text()))
    child = 0
    log_as_json("warning")
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        if word == "start":
            number, _, trace = rest.partition(" ")
            child = os.fork()
            if child == 0:
                os._exit(run(kubeconfig, cluster, namespace, int(number), trace))
            answer = str(child)
        else:
            if word == "end" and child:
                os.kill(child, signal.SIGTERM)
            pid, status = os.waitpid(child, os.WNOHANG if word == "look" else 0) if child else (0, 0)
            child = 0 if pid else child
            answer = "ended" if word == "end" else f"killed {os.WTERMSIG(status)}" if pid else "alive"
        print(answer, flush=True)
    if child:
        os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    serve(*sys.argv[1:])
