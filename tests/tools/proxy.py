"""A relay on loopback before a server: it cuts connections, or changes bytes on their way."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

Change = Callable[[bytes, int], bytes | None]  # bytes and how many went before on this connection; None cuts it


class Proxy:
    """`answers` and `requests` are what happens to the bytes of each direction; they may be set at any time."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.requests: Change = lambda data, _: data
        self.answers: Change = lambda data, _: data
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                for args in ((near, far, True), (far, near, False)):
                    threading.Thread(target=self._relay, args=args, daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket, asking: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError), source, target:
            while data := source.recv(1 << 16):
                changed = (self.requests if asking else self.answers)(data, passed)
                if changed is None:
                    source.shutdown(socket.SHUT_RDWR)
                    target.shutdown(socket.SHUT_RDWR)
                    return
                passed += len(data)
                target.sendall(changed)
            target.shutdown(socket.SHUT_WR)
