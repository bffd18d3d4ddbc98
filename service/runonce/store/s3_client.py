"""Connections to S3: what is asked of boto3, and how often something is tried again."""

from __future__ import annotations

import functools
import random
import time
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from runonce import __version__
from runonce.store.backend import MAX_THREADS
from runonce.store.location import S3Location

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

TRIES = 6
CONNECT_S, READ_S = 10, 60


def connect(location: S3Location) -> S3Client:
    session = _session(location.profile)
    style = location.addressing or ("path" if location.endpoint else "auto")
    options: Any = {"payload_signing_enabled": False, "addressing_style": style}
    config = Config(
        s3=options,
        retries={"mode": "standard", "total_max_attempts": TRIES},
        max_pool_connections=MAX_THREADS,
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        tcp_keepalive=True,
        # Every request brings the SHA-256 that is known anyway, and every answer is verified by it.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        user_agent_extra=f"runonce/{__version__}",
    )
    region = location.region or session.region_name or ("us-east-1" if location.endpoint else None)
    client = session.client("s3", endpoint_url=location.endpoint, region_name=region, config=config)
    client.meta.events.register("before-call.s3.HeadBucket", _follow_no_redirect)
    return client


def _follow_no_redirect(context: dict[str, Any], **_: Any) -> None:
    """To a redirect botocore asks for the head of the bucket, and to a redirect of that again, without an end."""
    context.setdefault("s3_redirect", {})["redirected"] = True


def wait(attempt: int) -> None:
    """Before the next try; at random, which spreads those who try at once."""
    time.sleep(random.uniform(0, min(5.0, 0.1 * 2**attempt)))  # noqa: S311 - no secret


@functools.cache
def _session(profile: str | None) -> boto3.session.Session:
    """One for all stores of a process: to read the models of the service takes longer than most requests."""
    return boto3.session.Session(profile_name=profile)
