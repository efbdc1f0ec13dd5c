"""What an object store's refusals mean, and what to do about them. No I/O here."""

from __future__ import annotations

from lazyfs.errors import PublishError

KEPT = "nothing is published until all is written; what was uploaded is kept: publish again"

_NEEDED = (
    "the credentials need s3:GetObject, s3:PutObject, s3:DeleteObject and"
    " s3:AbortMultipartUpload on the objects, s3:ListBucket and s3:GetBucketLocation on the bucket"
)
_REGION = "give the bucket's region with '?region=…' in the location"
_KEYS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the credentials file"
_SPACE = "make room; " + KEPT
_CONDITIONS = "use a server that knows conditional writes: Amazon S3, or MinIO of 2024 or later"

_EXPLAINED: dict[str, tuple[str, str]] = {
    "NoSuchBucket": (
        "there is no such bucket",
        "correct the location, or make the bucket, for example with 'mc mb ALIAS/BUCKET'",
    ),
    "AccessDenied": ("access denied", _NEEDED),
    "AllAccessDisabled": ("access denied", _NEEDED),
    "AccountProblem": ("access denied", _NEEDED),
    "InvalidAccessKeyId": ("the server does not know the access key", _KEYS),
    "SignatureDoesNotMatch": ("the secret key does not belong to the access key", _KEYS),
    "ExpiredToken": ("the credentials have expired", "get new ones and publish again"),
    "InvalidToken": ("the session token is not valid", "get new credentials and publish again"),
    "InvalidTokenId": ("the session token is not valid", "get new credentials and publish again"),
    "RequestTimeTooSkewed": (
        "this machine's clock and the server's differ by more than 15 minutes",
        "set the clock",
    ),
    "AuthorizationHeaderMalformed": ("the bucket is in another region", _REGION),
    "PermanentRedirect": ("the bucket is in another region or at another server", _REGION),
    "Redirect": ("the bucket is in another region or at another server", _REGION),
    "XMinioStorageFull": ("the server has no room left", _SPACE),
    "XMinioAdminBucketQuotaExceeded": ("the bucket's quota is used up", _SPACE),
    "QuotaExceeded": ("the bucket's quota is used up", _SPACE),
    "NotImplemented": ("the server does not know this kind of request", _CONDITIONS),
    "MethodNotAllowed": ("the server does not allow this kind of request", _NEEDED),
}


def explain(code: str, message: str, *, place: str, key: str) -> PublishError:
    """The error for what a server said.

    Args:
        code: S3's name of the error.
        message: The server's own words.
        place: The location.
        key: The object concerned, if any.
    """
    known = _EXPLAINED.get(code)
    said = printable(f"{code}: {message}" if message else code)
    text, hint = known if known is not None else (f"the server refuses: {said}", KEPT)
    return PublishError(text, object=key or None, url=place, hint=hint)


def unreachable(reason: str, *, place: str, key: str) -> PublishError:
    """The error for a server that did not answer."""
    return PublishError(
        f"the server cannot be reached: {printable(reason)}",
        object=key or None,
        url=place,
        hint="is the location right, and does the server run? " + KEPT,
    )


def unconditional(place: str) -> PublishError:
    """The error for a server that takes what it has been told to refuse."""
    return PublishError(
        "the server ignores conditions, so that two publishers could undo each other's work",
        url=place,
        hint=_CONDITIONS,
    )


def printable(text: str) -> str:
    """A server's words may hold anything; a log line has to stay one line."""
    return "".join(char if char.isprintable() else "?" for char in text)[:300]
