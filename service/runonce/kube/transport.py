"""Calls on the API server: bytes come back, errors have classes. Configuration, credentials, TLS are the client's own.

Its models are not used: they cost fifteen times the time, and drop what a newer server knows. Nor is its way from a
value to bytes, which looks at every part of it, and at the kubeconfig, for each call.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
from kubernetes import config as configuration
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.incluster_config import InClusterConfigLoader
from kubernetes.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION

from runonce.errors import ApiError, Conflict, Expired, InputError, Invalid, NotFound, Refused, Unreachable

MANAGER = "runonce"  # field manager; another name would leave the old one's fields in place for ever
TIMEOUT_S = 30.0
CREDENTIALS_S = 5.0  # how long they are sent before the client, which renews them in time, is asked for them again
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SILENCE_S = 90.0  # bookmarks come every minute: a watch without a byte for so long is dead

_JSON = "application/json"
_PATCH = "application/json-patch+json"
_APPLY = "application/apply-patch+yaml"
_CLASSES = {404: NotFound, 409: Conflict, 410: Expired, 422: Invalid, 400: Invalid, 401: Refused, 403: Refused}
# Answers with 5xx that no retry helps: the object is too large, or the CRD does not know a field.
_PERMANENT = ("request is too large", "ResourceExhausted", "field not declared in schema", "duplicate entries for key")


@dataclass(frozen=True)
class Answer:
    """body: the bytes of the object. warnings: texts of the Warning headers (Pod Security says so what it refuses)."""

    body: bytes
    warnings: tuple[str, ...] = ()


class Api:
    """The API server as one user. Safe in threads; every call has a time limit and none is repeated by itself."""

    def __init__(self, given: Configuration, *, namespace: str = "default", timeout_s: float = TIMEOUT_S) -> None:
        given.retries = False
        given.connection_pool_maxsize = 64
        self._client = ApiClient(given)
        self._pool = self._client.rest_client.pool_manager
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._credentials: tuple[float, dict[str, str]] = (0.0, {})  # until when, and what
        self._dated: tuple[str, float] = ("", 0.0)  # the Date of the last answer, and when it came
        self.namespace = namespace
        self.host: str = given.host
        self.calls: CallCounter = CallCounter()
        self.may_write: Callable[[], bool] = lambda: True  # asked before every call that changes something

    @classmethod
    def connect(
        cls,
        *,
        context: str | None = None,
        kubeconfig: str | None = None,
        timeout_s: float = TIMEOUT_S,
        account: Path = ACCOUNT,
    ) -> Api:
        """As kubectl finds it: a context of the kubeconfig (KUBECONFIG, else ~/.kube/config); where there is none,
        the account of the pod, in this folder. Raises InputError.
        """
        given = Configuration()
        if context is None and kubeconfig is None and not _has_kubeconfig():
            try:
                loader = InClusterConfigLoader(str(account / "token"), str(account / "ca.crt"))  # type: ignore[no-untyped-call]
                loader.load_and_set(given)  # type: ignore[no-untyped-call]
                return cls(given, namespace=(account / "namespace").read_text().strip(), timeout_s=timeout_s)
            except ConfigException:
                pass  # not in a pod
        try:
            configuration.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=kubeconfig, context=context, client_configuration=given
            )
            listed = configuration.list_kube_config_contexts(config_file=kubeconfig)  # type: ignore[no-untyped-call]
        except Exception as error:  # besides its own, whatever the client and its YAML stumble over in a broken file
            raise InputError.of(
                "", f"no cluster can be found: {error}.", "Give --context, or a kubeconfig that kubectl can use."
            ) from error
        contexts, active = listed
        chosen = next((known for known in contexts if known["name"] == context), active)
        return cls(given, namespace=chosen["context"].get("namespace") or "default", timeout_s=timeout_s)

    def get(self, path: str, **query: str) -> bytes:
        """Raises NotFound."""
        return self._call("GET", path, query).body

    def post(self, path: str, body: Mapping[str, Any], *, dry_run: bool = False) -> Answer:
        """Raises Conflict when the name is taken. dry_run: the server only says what it would answer."""
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        return self._call("POST", path, query, body)

    def put(self, path: str, body: Mapping[str, Any]) -> Answer:
        return self._call("PUT", path, {"fieldManager": MANAGER, "fieldValidation": "Strict"}, body)

    def patch(self, path: str, operations: Sequence[Mapping[str, Any]]) -> Answer:
        """JSON patch (RFC 6902). Raises Invalid when one of its tests fails."""
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
        return self._call("PATCH", path, query, list(operations), content=_PATCH)

    def apply(self, path: str, body: Mapping[str, Any], *, manager: str = MANAGER, dry_run: bool = False) -> Answer:
        """Server-side apply, with force. Raises Conflict when metadata.resourceVersion is not the object's."""
        query = {"fieldManager": manager, "force": "true", "fieldValidation": "Strict"}
        query |= {"dryRun": "All"} if dry_run else {}
        return self._call("PATCH", path, query, body, content=_APPLY)

    def delete(self, path: str, *, uid: str, version: str | None = None, propagation: str = "Foreground") -> Answer:
        """Only the object with this uid (and resourceVersion). Raises Conflict, NotFound.

        propagation: always sent, since the server's default for Jobs orphans their pods.
        """
        preconditions = {"uid": uid} | ({"resourceVersion": version} if version else {})
        body = {"preconditions": preconditions, "propagationPolicy": propagation}
        return self._call("DELETE", path, {}, body)

    def watch(self, path: str, *, silence_s: float = SILENCE_S, **query: str) -> Watch:
        """Events as they come, until the server ends it. Raises Unreachable after silence_s without a byte."""
        return self.lines(path, silence_s=silence_s, **query, watch="true")

    def lines(self, path: str, *, silence_s: float = SILENCE_S, **query: str) -> Watch:
        """An answer line by line, while it comes; empty lines are left out."""
        raw = self._send("GET", path, query, None, _JSON, silence_s)
        if raw.status != 200:
            raise self._error("GET", path, raw)
        return Watch(raw, path)

    def now(self) -> float:
        """Unix time by the server's clock, which dates its objects; ours may be another, or jump."""
        text, came = self._dated
        if not text:
            return time.time()
        return parsedate_to_datetime(text).timestamp() + time.monotonic() - came

    def close(self) -> None:
        self._client.close()  # type: ignore[no-untyped-call]

    def _call(
        self, method: str, path: str, query: Mapping[str, str], body: Any = None, *, content: str = _JSON
    ) -> Answer:
        raw = self._send(method, path, query, body, content, self._timeout_s)
        try:
            if raw.status >= 300:
                raise self._error(method, path, raw)
            return Answer(raw.data, tuple(_warning(text) for text in raw.headers.getlist("warning")))
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(f"{method} {path}: the answer broke off: {error}.") from error

    def _send(
        self, method: str, path: str, query: Mapping[str, str], body: Any, content: str, silence_s: float
    ) -> urllib3.BaseHTTPResponse:
        if method != "GET" and not self.may_write():
            raise Unreachable(f"{method} {path}: not sent, since another process leads.")
        self.calls.add(method, path)
        url = f"{self.host}{path}" + (f"?{urlencode(query, quote_via=quote)}" if query else "")
        try:
            headers = {"Accept": _JSON, "User-Agent": "runonce"} | self._authorization()
            answer = self._pool.request(
                method,
                url,
                body=None if body is None else encoded(body),
                headers=headers | ({"Content-Type": content} if body is not None else {}),
                timeout=urllib3.Timeout(connect=self._timeout_s, read=silence_s),
                preload_content=False,
            )
            self._dated = answer.headers.get("Date", ""), time.monotonic()
            return answer
        except (urllib3.exceptions.HTTPError, OSError, ApiException) as error:
            raise Unreachable(f"{method} {path}: {self.host} does not answer: {error}.") from error

    def _authorization(self) -> dict[str, str]:
        """The header with the credentials. The client reads, runs or renews whatever they come from."""
        with self._lock:
            until, headers = self._credentials
            if time.monotonic() >= until:
                token = self._client.configuration.auth_settings().get("BearerToken")
                headers = {token["key"]: token["value"]} if token else {}
                self._credentials = time.monotonic() + CREDENTIALS_S, headers
            return headers

    def _error(self, method: str, path: str, raw: urllib3.BaseHTTPResponse) -> ApiError:
        try:
            text = raw.data.decode("utf-8", "replace")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return Unreachable(f"{method} {path}: the answer broke off: {error}.")
        if raw.status == 401:
            self._credentials = 0.0, {}
        return error_of(raw.status, text, where=f"{method} {path}", retry_after=raw.headers.get("Retry-After"))


# What is applied a server reads as YAML: a pair of surrogates is no character there, and these are none, or a line end.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def encoded(value: Any) -> bytes:
    """JSON that is YAML too."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


class Watch:
    """An open watch: one JSON object an event. `close` may be called by another thread, and wakes the reader."""

    def __init__(self, raw: urllib3.BaseHTTPResponse, path: str) -> None:
        self._raw, self._path = raw, path

    def __iter__(self) -> Iterator[bytes]:
        rest = b""
        try:
            for chunk in self._raw.stream(2**16, decode_content=True):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line for line in lines if line)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise Unreachable(f"the watch of {self._path} broke off: {error!r}.") from error
        finally:
            self._raw.close()

    def close(self) -> None:
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            self._raw.shutdown()


def error_of(code: int, text: str, *, where: str, retry_after: str | None = None) -> ApiError:
    """The error that a Status object, or any other answer, stands for."""
    try:
        status = json.loads(text)
        message, reason = str(status.get("message", text)), str(status.get("reason", ""))
        causes = [str(cause.get("reason", "")) for cause in (status.get("details") or {}).get("causes") or ()]
    except (ValueError, AttributeError):
        message, reason, causes = text, "", []
    kind = _CLASSES.get(code, Unreachable if code >= 500 or code == 429 else Invalid)
    if code >= 500 and any(mark in message for mark in _PERMANENT):
        kind = Invalid
    error = kind(f"{where}: {code} {message.strip()[:2000]}")
    error.code, error.cause = code, causes[0] if causes else reason
    error.retry_after_s = float(retry_after) if retry_after and retry_after.isdecimal() else None
    return error


class CallCounter:
    """How many calls were made, by verb and resource. For metrics."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.by_kind: dict[tuple[str, str], int] = {}

    def add(self, method: str, path: str) -> None:
        kind = method, _resource(path)
        with self._lock:
            self.by_kind[kind] = self.by_kind.get(kind, 0) + 1


def _resource(path: str) -> str:
    """`/apis/batch/v1/namespaces/a/jobs/x` to `jobs`."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    return "/".join([rest[0], *rest[2:]]) if rest else path


def _warning(header: str) -> str:
    """`299 - "text"` to `text`."""
    return header.partition('"')[2].rpartition('"')[0].replace('\\"', '"') or header


def _has_kubeconfig() -> bool:
    return any(Path(name).expanduser().is_file() for name in KUBE_CONFIG_DEFAULT_LOCATION.split(os.pathsep) if name)
