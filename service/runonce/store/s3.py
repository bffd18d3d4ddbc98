"""A store in a bucket of S3, or of a service that speaks its protocol, by boto3.

Objects are whole: one plain PUT each, never a multipart upload, whose conditions some services check too early.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hashlib
import json
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

from botocore.exceptions import ClientError

from runonce.errors import Damaged, NewerFormat, PreconditionFailed, StoreError
from runonce.store.backend import FORMAT, MARKER, RENEW_S, THREADS, Stat, check_name
from runonce.store.check import check_store
from runonce.store.location import CONTENT, S3Location
from runonce.store.s3_client import TRIES, connect, wait
from runonce.store.s3_errors import BAD_DIGEST, CONFLICT, code_of, named_errors, status_of, was_retried
from runonce.store.s3_read import SIZE, content_size, get_whole, stream
from runonce.store.signing import NO_KEYS, Keyring
from runonce.store.spans import Span, SpanReader, digest_of, digests_of, write_whole

BLOB_SIZE = 64 << 20

_UNCONTESTED = ("w/", "s/")  # an attempt's own, and what a check of the store writes


class S3Backend:
    """`Backend` over a prefix for records and one for what is named by its content, best in a bucket with versions.

    A version is an id of such a bucket, else an ETag.
    """

    blob_size: int | None = BLOB_SIZE
    keyring: Keyring = NO_KEYS
    threads: int = THREADS
    renew_all: bool = False

    def __init__(self, location: S3Location) -> None:
        self.url = location.url
        self._location = location
        with self._errors("open", "the store"):
            self._client = connect(location)
        self._buckets_seen: set[str] = set()
        self._first_look = threading.RLock()
        self._trusted = False
        self._keeps_versions = False  # until an answer has shown one

    def get(self, name: str) -> tuple[bytes, str] | None:
        with self._errors("read", name):
            return get_whole(self._client, self._at(name), f"{name} in {self.url}")

    def put(self, name: str, data: bytes, *, create: bool = False, if_match: str | None = None) -> str:
        at = self._at(name)
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if create else {}
        if if_match is not None:
            condition = {"IfMatch": if_match}
        if condition and not name.startswith(_UNCONTESTED):
            self._require_conditions()
            if self._location.conditions == "ignored":
                self._check_first(name, create, if_match)
        attempt, tail = 0, self._tail(name)
        metadata = {SIZE: str(len(data))} if tail else {}
        body, checksum = data + tail, _checksum(data + tail)
        with self._errors("write", name):
            while True:
                try:
                    answer = self._client.put_object(
                        **at, Body=body, ChecksumSHA256=checksum, Metadata=metadata, **condition
                    )
                    self._learn(name, answer)
                    return answer["ETag"]
                except ClientError as error:
                    if status_of(error) == 412 or (if_match is not None and status_of(error) == 404):
                        return self._conditional(name, data, create, error, tried=bool(attempt))
                    if code_of(error) not in (*CONFLICT, *BAD_DIGEST) or attempt + 1 == TRIES:
                        raise
                wait(attempt)
                attempt += 1

    def _require_conditions(self) -> None:
        """Once, before the first record that others may write too: a store that answers 200 to all would lose one.

        What was found is kept in the store, so that one GET is enough for all who come later.
        """
        if self._trusted or self._location.conditions == "ignored":
            return
        found = self.get(MARKER)
        if found is None:
            lost = [check for check in check_store(self) if check.needed and not check.honoured]
            if lost:
                what = "; ".join(f"{check.name}: {check.found}" for check in lost)
                raise StoreError(
                    f"{self.url} does not honour what a result that is shared rests on ({what}). Use another store, or "
                    "add conditions=ignored to the URL and see to it that never two write at a time.",
                    reason="ConditionsIgnored",
                )
            self.put(MARKER, json.dumps({"format": FORMAT, "kind": "store"}).encode())
        else:
            _check_format(found[0], f"{self.url} ({MARKER})")
        self._trusted = True

    def _check_first(self, name: str, create: bool, if_match: str | None) -> None:
        """In two steps what the store does not do in one."""
        found = self.get(name)
        if create and found is not None:
            raise PreconditionFailed(f"{name} is there already.")
        if if_match is not None and (found is None or found[1] != if_match):
            raise PreconditionFailed(f"{name} is {'gone' if found is None else 'another one by now'}.")

    def refuses_wrong_bytes(self, name: str) -> bool:
        """Whether an object that does not have its checksum is refused."""
        with self._errors("write", name):
            try:
                self._client.put_object(**self._at(name), Body=b"right", ChecksumSHA256=_checksum(b"wrong"))
            except ClientError as error:
                if status_of(error) == 400:
                    return True
                raise
        return False

    def keeps_versions(self) -> bool:
        """Whether a blob can be deleted by a version's id."""
        with self._errors("read", "the settings of the blobs' bucket"):
            return self._has_versions(self._location.blobs_bucket)

    def _conditional(self, name: str, data: bytes, create: bool, error: ClientError, *, tried: bool) -> str:
        """The condition does not hold; but what is there may be our own, from a try whose answer was lost."""
        found = self.get(name)
        if found is not None and found[0] == data and (tried or was_retried(error)):
            return found[1]
        if found is None:
            raise PreconditionFailed(f"{name} is gone.") from error
        raise PreconditionFailed(f"{name} is {'there already' if create else 'another one by now'}.") from error

    def put_file(self, name: str, path: Path, *, sha256: str) -> None:
        self.put_spans(name, [Span(path, 0, path.stat().st_size)], sha256=sha256)

    def put_spans(self, name: str, spans: Sequence[Span], *, sha256: str) -> None:
        size = sum(span.size for span in spans)
        with self._errors("write", name):
            found = self._head(name)
            if found is not None and content_size(found) == size and _age(found) < RENEW_S and not self.renew_all:
                return
            self._learn(name, found or {})
            tail, digest, metadata = self._tail(name), sha256, dict[str, str]()
            if tail:
                content, digest = digests_of(spans, tail)
                if content != sha256:
                    raise _changed(spans, sha256)
                metadata = {SIZE: str(size)}
            checksum = base64.b64encode(bytes.fromhex(digest)).decode()
            for attempt in range(TRIES):
                with SpanReader(spans, tail) as body:
                    try:
                        answer = self._client.put_object(
                            **self._at(name),
                            Body=cast(IO[bytes], body),
                            ContentLength=body.size,
                            ChecksumSHA256=checksum,
                            Metadata=metadata,
                        )
                        self._learn(name, answer)
                        return
                    except ClientError as error:
                        if code_of(error) not in (*CONFLICT, *BAD_DIGEST) or attempt + 1 == TRIES:
                            raise
                        if digest_of(spans) != sha256:
                            raise _changed(spans, sha256) from error
                wait(attempt)

    def _tail(self, name: str) -> bytes:
        """Random bytes behind what is named by its content, unless its bucket is known to keep versions.

        Where the ETag alone tells an object from an earlier one, the same bytes put again must have another: else a
        collector that has seen those that another one collected would delete these. None where no ETag is looked at.
        """
        useless = self._keeps_versions or self._location.conditions == "ignored"
        return uuid.uuid4().bytes if name.startswith(CONTENT) and not useless else b""

    def _learn(self, name: str, answer: Mapping[str, Any]) -> None:
        if name.startswith(CONTENT) and answer.get("VersionId", "null") != "null":
            self._keeps_versions = True

    def get_file(self, name: str, path: Path, *, sha256: str) -> None:
        with self._errors("read", name):
            write_whole(self.read(name, sha256=sha256), path)

    def read(self, name: str, *, sha256: str) -> Iterator[bytes]:
        digest = hashlib.sha256()
        with self._errors("read", name):
            for chunk in stream(self._client, self._at(name), name, self.url):
                digest.update(chunk)
                yield chunk
        if digest.hexdigest() != sha256:
            raise Damaged(f"{name} in {self.url} has the digest {digest.hexdigest()}, not {sha256}.")

    def stat(self, name: str) -> Stat | None:
        with self._errors("read", name):
            found = self._head(name)
        if found is None:
            return None
        version = found.get("VersionId") or found["ETag"]
        return Stat(name, content_size(found), found["LastModified"].timestamp(), version)

    def list(self, prefix: str) -> Iterator[Stat]:
        """In the order of names, whatever the order of the service; so all of them are held at once."""
        bucket, key = self._location.place(prefix)
        with self._errors("list", prefix):
            if prefix.startswith(CONTENT) and self._has_versions(bucket):
                found = [self._listed(prefix, entry) for entry in self._versions(prefix) if entry["IsLatest"]]
            else:
                pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
                found = [self._listed(prefix, entry) for page in pages for entry in page.get("Contents", ())]
        yield from sorted(found, key=lambda entry: entry.name)

    def superseded(self, prefix: str) -> Iterator[Stat]:
        with self._errors("list", prefix):
            if not self._has_versions(self._location.place(prefix)[0]):
                return
            entries = list(self._versions(prefix))
        # What someone has deleted without its version can still be brought back, and is left alone.
        live = {entry["Key"] for entry in entries if entry["IsLatest"]}
        for entry in entries:
            if entry["Key"] in live and not entry["IsLatest"]:
                yield self._listed(prefix, entry)

    def _versions(self, prefix: str) -> Iterator[Any]:
        bucket, key = self._location.place(prefix)
        for page in self._client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=key):
            yield from page.get("Versions", ())

    def _listed(self, prefix: str, entry: Any) -> Stat:
        start = len(self._location.place(prefix)[1]) - len(prefix)
        version = entry.get("VersionId") or entry["ETag"]
        return Stat(entry["Key"][start:], entry["Size"], entry["LastModified"].timestamp(), version)

    def delete(self, name: str, *, if_match: str | None = None, version: str | None = None) -> None:
        condition: dict[str, Any] = {}
        if if_match is not None:
            condition["IfMatch"] = if_match
        elif version is not None:
            condition["IfMatch" if version.startswith('"') else "VersionId"] = version
        if if_match is not None and self._location.conditions == "ignored" and not name.startswith(_UNCONTESTED):
            if self.get(name) is None:
                return
            self._check_first(name, create=False, if_match=if_match)
        with self._errors("delete", name):
            try:
                self._client.delete_object(**self._at(name), **condition)
            except ClientError as error:
                if status_of(error) == 404 and code_of(error) != "NoSuchBucket":
                    return
                if status_of(error) != 412:
                    raise
                if if_match is not None and self._head(name) is not None:
                    raise PreconditionFailed(f"{name} is another one by now.") from error

    def _head(self, name: str) -> dict[str, Any] | None:
        at = self._at(name)
        try:
            return dict(self._client.head_object(**at))
        except ClientError as error:
            if status_of(error) != 404:
                raise
        # An answer to HEAD has no body, so it cannot say whether the object or the bucket is missing.
        with self._first_look:
            if at["Bucket"] not in self._buckets_seen:
                try:
                    self._client.get_object(**at)["Body"].close()
                except ClientError as error:
                    if code_of(error) != "NoSuchKey":
                        raise
                else:
                    return self._head(name)  # it came meanwhile
                self._buckets_seen.add(at["Bucket"])
        return None

    def _has_versions(self, bucket: str) -> bool:
        try:
            return self._client.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled"
        except ClientError as error:
            if status_of(error) == 501:  # a service that has no versions need not know the question
                return False
            raise

    def _at(self, name: str) -> dict[str, Any]:
        check_name(name)
        bucket, key = self._location.place(name)
        return {"Bucket": bucket, "Key": key}

    def _errors(self, what: str, name: str) -> contextlib.AbstractContextManager[None]:
        return named_errors(what, name, self.url)


def _check_format(data: bytes, where: str) -> None:
    try:
        format_ = json.loads(data)["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{where} is damaged: {error!r}.") from error
    if format_ != FORMAT:
        raise NewerFormat(f"{where} is a store of format {format_}; this release knows up to {FORMAT}.")


def _age(answer: Any) -> float:
    """By the store's clock alone."""
    now = email.utils.parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    return float((now - answer["LastModified"]).total_seconds())


def _checksum(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def _changed(spans: Sequence[Span], sha256: str) -> Damaged:
    names = ", ".join(sorted({str(span.path) for span in spans})[:3])
    return Damaged(f"{names} has the digest {digest_of(spans)}, not {sha256}: it was changed while it was stored.")
