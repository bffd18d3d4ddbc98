"""Bytes out of S3, whatever happens on the way: what was cut goes on, what was garbled is asked for again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError

from runonce.errors import Damaged
from runonce.store.s3_client import TRIES, wait
from runonce.store.s3_errors import code_of
from runonce.store.spans import CHUNK

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

SIZE = "content-size"  # metadata of an object that has more bytes than its content


def get_whole(client: S3Client, at: dict[str, Any], what: str) -> tuple[bytes, str] | None:
    """A small object with its ETag; None if there is none. Raises Damaged, and what boto3 raises."""
    for attempt in range(TRIES):
        try:
            answer = client.get_object(**at, ChecksumMode="ENABLED")
            return answer["Body"].read()[: content_size(answer)], answer["ETag"]
        except ClientError as error:
            if code_of(error) == "NoSuchKey":
                return None
            raise
        except FlexibleChecksumError as error:
            if attempt + 1 == TRIES:
                etag = answer["ETag"]
                raise Damaged(f"{what} does not have the checksum that it was stored with.", etag=etag) from error
        except BotoCoreError:  # cut within the body: no client tries that again by itself
            if attempt + 1 == TRIES:
                raise
        wait(attempt)
    raise AssertionError("unreachable")


def stream(client: S3Client, at: dict[str, Any], name: str, url: str) -> Iterator[bytes]:
    """The content from start to end; where a connection is cut, the next goes on from there. Raises as get_whole."""
    position, failures, left = 0, 0, 1
    given: dict[str, Any] = {}
    while left > 0:
        try:
            answer = client.get_object(**at, **given)
        except ClientError as error:
            if code_of(error) == "NoSuchKey":
                raise Damaged(f"{name} is lost from {url}.") from error
            raise
        if not given:
            left = content_size(answer)
        with contextlib.closing(answer["Body"]) as body:
            try:
                while left > 0 and (chunk := body.read(min(CHUNK, left))):
                    position, left, failures = position + len(chunk), left - len(chunk), 0
                    yield chunk
                if left > 0:
                    raise Damaged(f"{name} in {url} is {left} bytes too short.")
            except BotoCoreError:
                failures += 1
                if failures == TRIES:
                    raise
                wait(failures)
                given = {"Range": f"bytes={position}-"}


def content_size(answer: Any) -> int:
    return int(answer.get("Metadata", {}).get(SIZE, answer["ContentLength"]))
