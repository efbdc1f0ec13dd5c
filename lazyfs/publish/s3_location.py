"""`S3Location`: which bucket of which server, and how to speak to it. No I/O here."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from lazyfs.errors import ConfigError

AMAZON = "s3.amazonaws.com"

SCHEMES = ("s3", "s3+http", "s3+https")

OPTIONS = ("endpoint", "region", "style", "ca", "insecure", "credentials", "profile")

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ENDPOINT = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


class Style(enum.Enum):
    """Where in a URL the bucket's name stands."""

    AUTO = "auto"
    """In the host name at Amazon, in the path elsewhere."""
    PATH = "path"
    VIRTUAL = "virtual"


@dataclass(frozen=True, slots=True)
class S3Location:
    """A place for one repository in an object store."""

    bucket: str
    prefix: str = ""
    """Stands before the path of each object; without slashes at its ends."""
    endpoint: str = AMAZON
    """``HOST`` or ``HOST:PORT``."""
    secure: bool = True
    """HTTPS."""
    region: str | None = None
    """None: the server is asked."""
    style: Style = Style.AUTO
    ca: Path | None = None
    """Certificates to verify the server with; None: the system's."""
    insecure: bool = False
    """Do not verify the server."""
    credentials: Path | None = None
    """A file like ``~/.aws/credentials``, and nothing else; None: wherever some are found."""
    profile: str | None = None
    """A section of the file."""

    def key(self, path: str) -> str:
        """The name of the object at ``path`` below the repository."""
        return f"{self.prefix}/{path}" if self.prefix else path

    def path(self, key: str) -> str:
        """The path of an object below the repository."""
        return key.removeprefix(f"{self.prefix}/") if self.prefix else key

    @property
    def url(self) -> str:
        """Where readers find the repository, if they may read the bucket and style is path."""
        return f"http{'s' * self.secure}://{self.endpoint}/{self.key_base}"

    @property
    def key_base(self) -> str:
        """Bucket and prefix."""
        return "/".join(filter(None, (self.bucket, self.prefix)))

    def __str__(self) -> str:
        if self.endpoint == AMAZON:
            return f"s3://{self.key_base}"
        return f"s3+{self.url}"


def parse_s3_location(text: str, environ: Mapping[str, str]) -> S3Location:
    """The location that ``s3://BUCKET/PREFIX?OPTION=VALUE&…`` means.

    The server is Amazon's, or that of ``endpoint=``, or of the variable ``AWS_ENDPOINT_URL_S3`` or
    ``AWS_ENDPOINT_URL``. ``s3+http://HOST:PORT/BUCKET/PREFIX`` and ``s3+https://…`` name it.

    Args:
        text: The URL.
        environ: Says what the URL leaves open.

    Raises:
        ConfigError: it cannot be used.
    """
    try:
        url = urlsplit(text)
        options = _options(url)
    except ValueError as exc:
        raise _refused(text, f"not a location: {exc}") from exc
    if "@" in url.netloc:
        shown = text.replace(url.netloc, url.netloc.rpartition("@")[2], 1)
        raise _refused(shown, "credentials do not belong into a location", _CREDENTIALS_HINT)
    secure, endpoint, place = _endpoint(url, options, environ)
    bucket, _, prefix = place.partition("/")
    prefix = unquote(prefix).strip("/")
    region = options.get("region") or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    if not _BUCKET.fullmatch(bucket):
        raise _refused(text, f"{bucket!r} cannot be the name of a bucket", _FORM)
    if any(part in ("", ".", "..") for part in prefix.split("/") if prefix):
        raise _refused(text, f"{prefix!r} cannot be a prefix", _FORM)
    if region and not _REGION.fullmatch(region):
        raise _refused(text, f"{region!r} cannot be a region")
    if not _ENDPOINT.fullmatch(endpoint):
        raise _refused(text, f"{endpoint!r} cannot be a server", _FORM)
    ca = options.get("ca") or environ.get("AWS_CA_BUNDLE")
    credentials = options.get("credentials")
    return S3Location(
        bucket=bucket,
        prefix=prefix,
        endpoint=endpoint,
        secure=secure,
        region=region or None,
        style=_style(text, options.get("style", "auto")),
        ca=Path(ca) if ca else None,
        insecure=_yes(text, "insecure", options.get("insecure", "no")),
        credentials=Path(credentials) if credentials else None,
        profile=options.get("profile"),
    )


_FORM = "write s3://BUCKET/PREFIX or s3+http://HOST:PORT/BUCKET/PREFIX"
_CREDENTIALS_HINT = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write them into ~/.aws/credentials"
)


def _options(url: SplitResult) -> dict[str, str]:
    if url.fragment:
        raise ValueError("'#' has no meaning")
    options = dict(parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query)))
    unknown = sorted(options.keys() - set(OPTIONS))
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r}; there are {', '.join(OPTIONS)}")
    return options


def _endpoint(
    url: SplitResult, options: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[bool, str, str]:
    """Whether by HTTPS, the server, and what stands behind it."""
    if url.scheme != "s3":
        if "endpoint" in options:
            raise _refused(url.geturl(), "it names two servers", _FORM)
        return url.scheme == "s3+https", url.netloc, url.path.lstrip("/")
    place = url.netloc + url.path
    named = (
        options.get("endpoint")
        or environ.get("AWS_ENDPOINT_URL_S3")
        or environ.get("AWS_ENDPOINT_URL")
    )
    if not named:
        return True, AMAZON, place
    server = urlsplit(named if "://" in named else f"https://{named}")
    if server.scheme not in ("http", "https") or server.path.strip("/") or server.query:
        raise _refused(named, "not the URL of a server")
    return server.scheme == "https", server.netloc, place


def _style(text: str, name: str) -> Style:
    try:
        return Style(name)
    except ValueError as exc:
        raise _refused(text, f"style is auto, path or virtual, not {name!r}") from exc


def _yes(text: str, option: str, value: str) -> bool:
    if value.lower() not in ("yes", "true", "1", "", "no", "false", "0"):
        raise _refused(text, f"{option} is yes or no, not {value!r}")
    return value.lower() in ("yes", "true", "1", "")


def _refused(text: str, message: str, hint: str | None = None) -> ConfigError:
    return ConfigError(message, url=text.partition("?")[0], hint=hint)
