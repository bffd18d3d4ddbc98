"""Every answer of a store that is no answer has a name. None is a miss, none is damage, and what helps is tried again."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import re
import socket
import ssl
import threading
import uuid
from pathlib import Path

import pytest
from certificates import Authority
from proxy import Proxy

from runonce.errors import Damaged, PreconditionFailed, StoreError
from runonce.store.backend import blob_name
from runonce.store.commit import probe
from runonce.store.s3_errors import _CODES, CONFLICT
from runonce.store.url import open_store

KEY = "ab" * 32
DATA = b"x" * 3000
DIGEST = hashlib.sha256(DATA).hexdigest()
STATUS = {"StoreBusy": 503, "StoreFailed": 500, "StoreFull": 507, "WrongRegion": 400, "NotSupported": 501, "StoreTimeout": 400,
          "NoSuchBucket": 404, "StoreConflict": 409}  # fmt: skip


@pytest.fixture
def behind(weed, proxy):
    """A store with a record and a blob, reached through the proxy; made anew each time, so that settings count."""
    url = weed.url(f"t/{uuid.uuid4().hex}").replace(f":{weed.port}", f":{proxy.port}")

    def opened(**settings: object):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setattr(f"runonce.store.s3_client.{name}", value)
            return open_store(url)

    opened().put(f"c/ab/{KEY}", b"{}", create=True)
    return opened


@pytest.fixture
def file(tmp_path) -> Path:
    (tmp_path / "file").write_bytes(DATA)
    return tmp_path / "file"


def calls(backend, file):
    name = blob_name(DIGEST)
    return {
        "probe": lambda: probe(backend, KEY),
        "get": lambda: backend.get(f"c/ab/{KEY}"),
        "list": lambda: list(backend.list("w/")),
        "put": lambda: backend.put("w/x", DATA, create=True),
        "put_file": lambda: backend.put_file(name, file, sha256=DIGEST),
        "stat": lambda: backend.stat(name),
        "read": lambda: list(backend.read(name, sha256=DIGEST)),
        "delete": lambda: backend.delete("w/x"),
    }


def refused(call) -> StoreError:
    with pytest.raises(StoreError) as caught:
        call()
    assert not isinstance(caught.value, Damaged | PreconditionFailed), caught.value
    return caught.value


@pytest.mark.parametrize("code", [code for code in _CODES if not code.isdecimal()])
def test_a_refusal_has_its_name_in_every_call(behind, proxy, file, code, monkeypatch):
    monkeypatch.setattr("runonce.store.s3.TRIES", 1)
    backend, expected = behind(TRIES=1), _CODES[code]
    proxy.refuse(STATUS.get(expected.reason, 403), code)
    for name, call in calls(backend, file).items():
        if name in ("stat", "put_file") and STATUS.get(expected.reason, 403) in (400, 404, 409):
            continue  # an answer to HEAD has a status alone
        error = refused(call)
        if name not in ("stat", "put_file"):
            assert (error.reason, expected.fix in str(error)) == (expected.reason, True), (name, error)


@pytest.mark.parametrize("status", [int(code) for code in _CODES if code.isdecimal()])
def test_a_refusal_without_a_code_is_named_by_its_status(behind, proxy, file, status, monkeypatch):
    backend = behind(TRIES=1)
    proxy.refuse(status, "")
    error = refused(calls(backend, file)["get"])
    assert error.reason == _CODES[str(status)].reason


def test_the_names_are_those_of_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "stores.md").read_text()
    table = page[page.index("## What a store refuses") :]
    named = set(
        re.findall(r"`([A-Z]\w+)`", "".join(line.split("|")[1] for line in table.splitlines() if line[:3] == "| `"))
    )
    assert named == {refusal.reason for refusal in _CODES.values()} | {"StoreUnreachable", "TLSFailed"}


# --- what helps is tried again ---


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [(name, *answer) for name in ("put", "put_file", "probe") for answer in ((503, "SlowDown"), (500, "InternalError"))]
    + [("put", 409, code) for code in CONFLICT],
)
def test_what_may_go_better_is_tried_again(behind, proxy, file, name, status, code):
    backend = behind()
    counted = proxy.refuse(status, code, times=2)
    with contextlib.suppress(Damaged):  # the record of this test is none
        calls(backend, file)[name]()
    assert len(counted) == 2
    if name == "put":
        assert backend.get("w/x")[0] == DATA
    if name == "put_file":
        assert backend.stat(blob_name(DIGEST)).size == len(DATA)


def test_who_asks_to_slow_down_for_ever_is_asked_a_bounded_number_of_times(behind, proxy):
    backend = behind(TRIES=3)
    counted = proxy.refuse(503, "SlowDown")
    assert refused(lambda: backend.get(f"c/ab/{KEY}")).reason == "StoreBusy"
    assert len(counted) == 3


def test_what_no_retry_can_help_is_asked_once(behind, proxy):
    backend = behind()
    for status, code in (
        (403, "AccessDenied"),
        (403, "RequestTimeTooSkewed"),
        (404, "NoSuchBucket"),
        (507, "InsufficientStorage"),
    ):
        counted = proxy.refuse(status, code)
        refused(lambda: backend.get(f"c/ab/{KEY}"))
        assert len(counted) == 1, code


# --- the real thing, where this machine has it ---


def test_a_clock_that_is_off_by_an_hour_is_named(behind, file, monkeypatch):
    from botocore import auth

    real = auth.get_current_datetime
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *given: real(*given) - datetime.timedelta(hours=1))
    for name in ("get", "put", "list", "delete"):
        error = refused(calls(behind(), file)[name])
        assert error.reason == "ClockSkew"
        assert "Set the clock" in str(error)


def test_a_store_that_does_not_answer_is_named(behind, proxy, file):
    backend = behind(TRIES=1, READ_S=0.3)
    proxy.answers = lambda data, _: b""
    assert refused(calls(backend, file)["get"]).reason == "StoreTimeout"


def test_a_store_that_hangs_up_is_named(behind, proxy, file):
    backend = behind(TRIES=1)
    proxy.answers = lambda data, _: None
    for name in ("list", "put", "delete"):
        assert refused(calls(backend, file)[name]).reason == "StoreUnreachable"


@pytest.fixture
def tls(weed, tmp_path):
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.server("127.0.0.1"))
    made = Proxy(weed.port, tls=context)
    yield made, authority
    made.close()


def test_a_certificate_that_is_not_trusted_is_named_and_one_that_is_works(weed, tls, monkeypatch):
    proxy, authority = tls
    url = weed.url(f"t/{uuid.uuid4().hex}").replace(f"http://127.0.0.1:{weed.port}", f"https://127.0.0.1:{proxy.port}")
    monkeypatch.setattr("runonce.store.s3_client.TRIES", 1)
    error = refused(lambda: open_store(url).get("c/aa/x"))
    assert error.reason == "TLSFailed"
    assert "AWS_CA_BUNDLE" in str(error)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.certificate))
    assert open_store(url).get("c/aa/x") is None


def test_a_server_without_tls_is_named(weed, monkeypatch):
    monkeypatch.setattr("runonce.store.s3_client.TRIES", 1)
    url = weed.url("x").replace("http://", "https://")
    assert refused(lambda: open_store(url).get("c/aa/x")).reason == "TLSFailed"


def test_a_name_that_no_one_knows_is_named(monkeypatch):
    monkeypatch.setattr("runonce.store.s3_client.TRIES", 1)
    error = refused(lambda: open_store("s3://one/x?endpoint=http://no-such-host.invalid").get("c/aa/x"))
    assert error.reason == "StoreUnreachable"


def test_a_bucket_of_another_region_is_named_and_not_followed_elsewhere(behind, proxy, file):
    elsewhere = socket.create_server(("127.0.0.1", 0))
    asked: list[object] = []
    threading.Thread(target=lambda: asked.append(elsewhere.accept()), daemon=True).start()
    proxy.refuse(307, "TemporaryRedirect", headers=f"Location: http://127.0.0.1:{elsewhere.getsockname()[1]}/x\r\n")
    backend = behind(TRIES=1)
    for name in ("get", "put"):
        assert refused(calls(backend, file)[name]).reason == "WrongRegion"
    assert asked == []
    elsewhere.close()
