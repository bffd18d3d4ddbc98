"""The URL of a store in S3, read. Nothing secret is ever part of it: it is shown, recorded, and handed to workers.

    s3://bucket/prefix?endpoint=https://s3.example.com&region=eu-1&profile=team&blobs=bucket/prefix&addressing=path

What it leaves out comes from the usual AWS environment, profile and web-identity chain.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from runonce.errors import Fault, InputError

CONTENT = ("b/", "m/")  # named by the digest of what they hold

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_OPTIONS = ("endpoint", "region", "profile", "blobs", "addressing", "conditions")
_FIX = "Write s3://bucket/prefix, with the options of docs/stores.md behind a question mark."


@dataclass(frozen=True, kw_only=True)
class S3Location:
    """bucket, prefix: of records. blobs_bucket, blobs_prefix: of blobs and merged manifests, where versions help.

    Prefixes end in `/`, or are empty. conditions: `ignored` where the user knows that the store ignores them and
    promises one writer at a time.
    """

    url: str
    bucket: str
    prefix: str
    blobs_bucket: str
    blobs_prefix: str
    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None
    addressing: str | None = None
    conditions: str | None = None

    def place(self, name: str) -> tuple[str, str]:
        """Bucket and key of an object, or of a prefix of names."""
        if name.startswith(CONTENT):
            return self.blobs_bucket, self.blobs_prefix + name
        return self.bucket, self.prefix + name


def parse_location(url: str) -> S3Location:
    """Raises InputError, which never repeats a password."""
    if "@" in unquote(url):
        what = "holds a user or a password; a URL is shown and recorded, so it carries no secret."
        raise InputError.of("store", what, "Give credentials by the AWS environment, a profile or a web identity.")
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError as error:
        raise InputError.of("store", "is no URL that can be read.", _FIX) from error
    faults = list(_faults(parts.netloc, parts.path, parts.fragment, options))
    if faults:
        raise InputError(*(Fault("store", f"{what} in {url!r}.", _FIX) for what in faults))
    prefix = _prefix(parts.path)
    blobs_bucket, _, blobs_path = options.get("blobs", "").partition("/")
    return S3Location(
        url=url,
        bucket=parts.netloc,
        prefix=prefix,
        blobs_bucket=blobs_bucket or parts.netloc,
        blobs_prefix=_prefix(blobs_path) if blobs_bucket else prefix,
        endpoint=options.get("endpoint"),
        region=options.get("region"),
        profile=options.get("profile"),
        addressing=options.get("addressing"),
        conditions=options.get("conditions"),
    )


def _prefix(path: str) -> str:
    path = path.strip("/")
    return f"{path}/" if path else ""


def _faults(bucket: str, path: str, fragment: str, options: dict[str, str]) -> list[str]:
    found = []
    blobs_bucket, _, blobs_path = options.get("blobs", bucket).partition("/")
    for name in dict.fromkeys((bucket, blobs_bucket)):
        if not _BUCKET.fullmatch(name):
            found.append(f"{name!r} can be no bucket's name")
    for segment in (*path.strip("/").split("/"), *blobs_path.strip("/").split("/")):
        if segment and not _SEGMENT.fullmatch(segment):
            found.append(f"{segment!r} can be no part of a prefix (letters, digits, dot, dash, underscore)")
    if "//" in path or fragment:
        found.append("there is an empty part of the prefix, or a #")
    found += [f"there is an unknown option {name!r}" for name in options if name not in _OPTIONS]
    if options.get("addressing", "path") not in ("path", "virtual", "auto"):
        found.append("addressing is none of path, virtual, auto")
    if options.get("conditions", "ignored") != "ignored":
        found.append("conditions can only be ignored")
    endpoint = urlsplit(options.get("endpoint", "http://x"))
    if endpoint.scheme not in ("http", "https") or not endpoint.hostname or endpoint.username is not None:
        found.append("endpoint is no http:// or https:// address")
    return found
