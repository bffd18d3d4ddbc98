"""What is particular to a store in S3: its URL, its refusals by name, connections that break, renewal with versions."""

from __future__ import annotations

import hashlib
import io
import socket
import subprocess
import sys

import pytest
from botocore.awsrequest import AWSResponse

from runonce.errors import Damaged, InputError, PreconditionFailed, StoreError
from runonce.store.backend import blob_name
from runonce.store.check import check_store
from runonce.store.location import parse_location
from runonce.store.s3 import S3Backend
from runonce.store.url import open_store


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- the URL ---


def test_a_url_names_buckets_prefixes_and_options():
    found = parse_location("s3://one/a/b?endpoint=https://s3.example.com:9000&region=eu&blobs=two/c&profile=team")
    assert (found.bucket, found.prefix, found.blobs_bucket, found.blobs_prefix) == ("one", "a/b/", "two", "c/")
    assert (found.endpoint, found.region, found.profile) == ("https://s3.example.com:9000", "eu", "team")
    assert parse_location("s3://one").prefix == parse_location("s3://one/").blobs_prefix == ""


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("s3://", "no bucket's name"),
        ("s3://Bucket", "no bucket's name"),
        ("s3://one//two", "empty part"),
        ("s3://one/a b", "no part of a prefix"),
        ("s3://one/../two", "no part of a prefix"),
        ("s3://one?enpoint=http://x", "unknown option 'enpoint'"),
        ("s3://one?endpoint=ftp://x", "no http:// or https:// address"),
        ("s3://one?addressing=dns", "addressing is none of"),
        ("s3://one#digest", "a #"),
    ],
)
def test_a_url_that_cannot_be_is_refused_with_what_is_wrong(url, what):
    with pytest.raises(InputError, match=what):
        open_store(url)


@pytest.mark.parametrize("url", ["s3://key:topsecret@one/two", "s3://one?endpoint=http://key:topsecret@host"])
def test_a_url_with_credentials_is_refused_and_not_repeated(url):
    with pytest.raises(InputError) as caught:
        open_store(url)
    assert "topsecret" not in str(caught.value)


def test_a_folder_needs_no_boto3():
    code = "import sys; from runonce.store.url import open_store; open_store('x'); print('boto3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# --- refusals: an error by name, and never a miss ---


def calls(backend, tmp_path):
    (tmp_path / "in").write_bytes(b"x")
    name = blob_name(sha256(b"x"))
    return [
        lambda: backend.get("c/aa/x"),
        lambda: backend.stat(name),
        lambda: list(backend.list("w/")),
        lambda: backend.put("c/aa/x", b"x", create=True),
        lambda: backend.put_file(name, tmp_path / "in", sha256=sha256(b"x")),
        lambda: backend.delete("c/aa/x"),
        lambda: backend.get_file(name, tmp_path / "out", sha256=sha256(b"x")),
    ]


@pytest.mark.parametrize("number", range(7))
def test_a_missing_bucket_is_an_error_of_every_call(weed, tmp_path, number):
    backend = open_store(f"s3://no-such-bucket/x?endpoint={weed.endpoint}")
    with pytest.raises(StoreError, match=r"the bucket does not exist .* Create it") as caught:
        calls(backend, tmp_path)[number]()
    assert caught.value.reason == "NoSuchBucket"
    assert not isinstance(caught.value, Damaged)


@pytest.mark.parametrize("number", range(7))
def test_wrong_credentials_are_an_error_of_every_call_and_never_shown(weed, tmp_path, number, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrongsecret")
    monkeypatch.setattr("runonce.store.s3_client._session", _session_of_now)
    backend = open_store(weed.url("x"))
    with pytest.raises(StoreError) as caught:
        calls(backend, tmp_path)[number]()
    # An answer to HEAD has no body that could say more than 403.
    assert caught.value.reason in ("BadCredentials", "AccessDenied")
    assert "wrongsecret" not in str(caught.value)
    assert "testkeyofrunonce" not in str(caught.value)


def _session_of_now(profile):
    import boto3

    return boto3.session.Session(profile_name=profile)


def test_no_credentials_are_named(weed, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setattr("runonce.store.s3_client._session", _session_of_now)
    with pytest.raises(StoreError, match="credentials are missing") as caught:
        open_store(weed.url("x")).get("c/aa/x")
    assert caught.value.reason == "BadCredentials"
    with pytest.raises(StoreError, match="credentials are missing"):
        open_store(weed.url("x") + "&profile=nobody").get("c/aa/x")


def test_a_server_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr("runonce.store.s3_client.TRIES", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        backend = open_store(f"s3://one/x?endpoint=http://127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(StoreError, match="no connection can be made") as caught:
        backend.get("c/aa/x")
    assert caught.value.reason == "StoreUnreachable"


# --- the same bytes again ---


@pytest.mark.parametrize("which", ["s3", "plain_s3"])
def test_bytes_that_are_old_get_a_version_that_no_collector_has_seen(which, request, tmp_path, monkeypatch):
    backend = request.getfixturevalue(which)
    data = b"y" * 1000
    (tmp_path / "in").write_bytes(data)
    name = blob_name(sha256(data))
    backend.put_file(name, tmp_path / "in", sha256=sha256(data))
    (seen,) = backend.list("b/")
    monkeypatch.setattr("runonce.store.s3.RENEW_S", -1.0)
    for _ in range(2):
        backend.put_file(name, tmp_path / "in", sha256=sha256(data))
    backend.delete(name, version=seen.version)
    backend.get_file(name, tmp_path / "out", sha256=sha256(data))
    assert (tmp_path / "out").read_bytes() == data
    (renewed,) = backend.list("b/")
    assert renewed.version == backend.stat(name).version != seen.version
    assert backend.stat(name).size == 1000
    backend.delete(name, version=renewed.version)
    if which == "plain_s3":
        assert backend.stat(name) is None


def test_a_write_whose_answer_was_lost_finds_its_own(s3, monkeypatch):
    """The first try is carried out and answered by a failure, as a cut connection or a gateway's 502 does."""
    s3.put("c/aa/y", b"", create=True)  # what the store honours is found out by the first of these
    real, tries = s3._client.put_object, []

    def lossy(**given):
        real(**given)
        tries.append(1)
        if len(tries) == 1:
            error = {"Error": {"Code": "ConditionalRequestConflict"}, "ResponseMetadata": {"HTTPStatusCode": 409}}
            raise s3._client.exceptions.ClientError(error, "PutObject")
        raise AssertionError("the condition holds no more")

    monkeypatch.setattr(s3._client, "put_object", lossy)
    assert s3.put("c/aa/x", b"mine", create=True) == s3.get("c/aa/x")[1]
    assert len(tries) == 1
    with pytest.raises(PreconditionFailed):
        s3.put("c/aa/x", b"mine", create=True)


def test_a_backend_is_what_its_url_says(weed):
    url = weed.url("t/here")
    assert isinstance(open_store(url), S3Backend)
    assert open_store(url).url == url


def test_a_service_that_does_not_know_versions_has_none(plain_s3, tmp_path):
    """Cloudflare R2 is one: it answers 501, and a store there works as in a bucket without them."""

    def refuse(request, **_):
        body = b"<Error><Code>NotImplemented</Code><Message>no</Message></Error>"
        return AWSResponse(request.url, 501, {"content-type": "application/xml"}, Raw(body))

    class Raw(io.BytesIO):
        def stream(self, **_):
            yield self.getvalue()

    plain_s3._client.meta.events.register("before-send.s3.GetBucketVersioning", refuse)
    (tmp_path / "a").write_bytes(b"a")
    digest = hashlib.sha256(b"a").hexdigest()
    plain_s3.put_file(blob_name(digest), tmp_path / "a", sha256=digest)
    assert [entry.name for entry in plain_s3.list("b/")] == [blob_name(digest)]
    assert list(plain_s3.superseded("b/")) == []
    check_store(plain_s3)
