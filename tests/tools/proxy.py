"""A relay on loopback before a server: it cuts connections, changes bytes on their way, answers in its place, or speaks TLS."""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable

Change = Callable[[bytes, int], bytes | None]  # bytes and how many went before on this connection; None cuts it


class Proxy:
    """`answers` and `requests` are what happens to the bytes of each direction; they may be set at any time."""

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None, delay_s: float = 0.0) -> None:
        self._to, self._tls, self._delay_s = port, tls, delay_s  # each way
        self.requests: Change = lambda data, _: data
        self.answers: Change = lambda data, _: data
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def refuse(self, status: int, code: str, *, times: int | None = None, headers: str = "") -> list[int]:
        """Answer in the place of the server, as S3 says no; the first `times` requests, or all. The list counts them."""
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        head = f"HTTP/1.1 {status} No\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n{headers}"
        answer, refused = head.encode() + b"Connection: close\r\n\r\n" + body, []

        def answers(data: bytes, _: int) -> bytes | None:
            if times is not None and len(refused) >= times:
                return data
            if not data.startswith(b"HTTP/1.1"):
                return b""
            refused.append(status)
            return answer

        self.answers = answers
        return refused

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self._tls is not None:
                    try:
                        near = self._tls.wrap_socket(near, server_side=True)
                    except OSError:
                        continue  # a client that does not trust it
                far = socket.create_connection(("127.0.0.1", self._to))
                if self._delay_s:
                    for one in (near, far):
                        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    for pair in ((near, far), (far, near)):
                        threading.Thread(target=self._lag, args=pair, daemon=True).start()
                    continue
                for args in ((near, far, True), (far, near, False)):
                    threading.Thread(target=self._relay, args=args, daemon=True).start()

    def _lag(self, source: socket.socket, target: socket.socket) -> None:
        """What has come is handed on after the delay, while more comes."""
        waiting: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

        def hand_on() -> None:
            with contextlib.suppress(OSError):
                while True:
                    due, data = waiting.get()
                    time.sleep(max(0.0, due - time.monotonic()))
                    if not data:
                        target.shutdown(socket.SHUT_WR)
                        return
                    target.sendall(data)

        threading.Thread(target=hand_on, daemon=True).start()
        data = b"x"
        while data:
            try:
                data = source.recv(1 << 18)
            except OSError:
                data = b""
            waiting.put((time.monotonic() + self._delay_s, data))

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
