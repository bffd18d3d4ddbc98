"""What an S3 service refuses, by name: who has to do what. None of it is ever a miss.

Texts of the server are not repeated: some of them quote keys and signatures.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from botocore import exceptions as aws

from runonce.errors import StoreError

CONFLICT = ("ConditionalRequestConflict", "OperationAborted")  # another writer at this moment: try again
BAD_DIGEST = ("BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch")


@dataclass(frozen=True, slots=True)
class _Refusal:
    reason: str
    what: str
    fix: str


_NO_BUCKET = _Refusal("NoSuchBucket", "the bucket does not exist", "Create it, or correct its name in the store's URL.")
_DENIED = _Refusal(
    "AccessDenied",
    "the credentials do not allow it",
    "Give them the rights of docs/stores.md. (Without that to list the bucket, S3 answers so for what is not there.)",
)
_CREDENTIALS = _Refusal(
    "BadCredentials",
    "the credentials are missing, wrong or expired",
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a web identity; then run again.",
)
_SKEW = _Refusal(
    "ClockSkew", "the clock of this machine is too far from that of the store", "Set the clock (NTP), then run again."
)
_TIMEOUT = _Refusal("StoreTimeout", "it did not answer in time", "Look at the network and the store; then run again.")
_UNREACHABLE = _Refusal(
    "StoreUnreachable", "no connection can be made or kept", "Look at the endpoint, the network and the store."
)
_BUSY = _Refusal("StoreBusy", "it asks to slow down", "Wait, or run fewer at a time; then run again.")
_CONFLICT = _Refusal(
    "StoreConflict", "others write it at the same moment, again and again", "Run again; see who else writes there."
)
_FAILED = _Refusal("StoreFailed", "it failed inside", "Look at the store's own log: a full disk shows so too.")
_FULL = _Refusal("StoreFull", "it has no room left", "Free some space (`runonce gc`), then run again.")
_TLS = _Refusal(
    "TLSFailed", "its certificate is not trusted, or it speaks no TLS", "Set AWS_CA_BUNDLE, or correct the endpoint."
)
_REGION = _Refusal("WrongRegion", "the bucket lies in another region", "Give its region: ?region=… or AWS_REGION.")
_UNSUPPORTED = _Refusal(
    "NotSupported", "it does not know this request", "See what it honours by `runonce store check`."
)
_OTHER = _Refusal("StoreRefused", "it refused", "Look at the store's own log.")

_CODES = {
    **dict.fromkeys(("NoSuchBucket", "404"), _NO_BUCKET),  # to HEAD of a bucket the answer is 404 alone
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled", "AccountProblem", "403"), _DENIED),
    **dict.fromkeys(
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "TokenRefreshRequired"),
        _CREDENTIALS,
    ),
    **dict.fromkeys(("RequestTimeTooSkewed", "RequestExpired"), _SKEW),
    "RequestTimeout": _TIMEOUT,
    **dict.fromkeys(("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded"), _BUSY),
    **dict.fromkeys(("ServiceUnavailable", "TooManyRequests", "503", "429"), _BUSY),
    **dict.fromkeys(CONFLICT, _CONFLICT),
    **dict.fromkeys(("InternalError", "500", "502", "504"), _FAILED),
    **dict.fromkeys(("InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "507"), _FULL),
    **dict.fromkeys(
        ("AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect", "301", "307", "308"), _REGION
    ),
    **dict.fromkeys(("NotImplemented", "MethodNotAllowed", "501", "405"), _UNSUPPORTED),
}

_KINDS: tuple[tuple[tuple[type[Exception], ...], _Refusal], ...] = (
    (
        (
            aws.NoCredentialsError,
            aws.PartialCredentialsError,
            aws.CredentialRetrievalError,
            aws.ProfileNotFound,
            aws.NoAuthTokenError,
            aws.TokenRetrievalError,
        ),
        _CREDENTIALS,
    ),
    ((aws.SSLError,), _TLS),
    ((aws.ReadTimeoutError, aws.ConnectTimeoutError), _TIMEOUT),
    ((aws.ConnectionError, aws.HTTPClientError), _UNREACHABLE),
    ((aws.NoRegionError,), _REGION),
)


@contextlib.contextmanager
def named_errors(what: str, name: str, where: str) -> Iterator[None]:
    """Whatever boto3 raises becomes a StoreError; arguments as of `refusal`."""
    try:
        yield
    except (aws.ClientError, aws.BotoCoreError) as error:
        raise refusal(error, f"{what} {name}", where) from error
    except OSError as error:
        raise StoreError(f"cannot {what} {name} in {where}: {error.strerror or error}.") from error


def refusal(error: Exception, what: str, where: str) -> StoreError:
    """The error by name. what: "write c/aa/…"; where: the store's URL."""
    found, detail = _OTHER, type(error).__name__
    if isinstance(error, aws.ClientError):
        code, status = code_of(error), str(status_of(error))
        found = _CODES.get(code) or _CODES.get(status) or _OTHER
        detail = f"{code}, HTTP {status}"
    else:
        for kinds, one in _KINDS:
            if isinstance(error, kinds):
                found = one
                break
    return StoreError(f"cannot {what} in {where}: {found.what} ({detail}). {found.fix}", reason=found.reason)


def code_of(error: aws.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: aws.ClientError) -> int:
    metadata: dict[str, Any] = dict(error.response.get("ResponseMetadata", {}))
    return int(metadata.get("HTTPStatusCode", 0))


def was_retried(error: aws.ClientError) -> bool:
    """Whether an earlier try of the same request may have been carried out without its answer reaching us."""
    metadata: dict[str, Any] = dict(error.response.get("ResponseMetadata", {}))
    return int(metadata.get("RetryAttempts", 0)) > 0
