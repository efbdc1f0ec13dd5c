"""The whitelist ``.cvmfswhitelist``: which certificates may sign manifests, and until when.

Source: upstream ``whitelist.cc``.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from dataclasses import dataclass

from lazyfs.cas.digest import Digest
from lazyfs.errors import FormatError
from lazyfs.repository.pathhash import printable

WHITELIST_PATH = ".cvmfswhitelist"

_STAMP = re.compile(rb"[0-9]{14}")
_STAMP_FORMAT = "%Y%m%d%H%M%S"
_MAX_FINGERPRINTS = 10000


@dataclass(frozen=True, slots=True)
class Whitelist:
    """The fields of a whitelist."""

    created: datetime.datetime
    expires: datetime.datetime
    fqrn: str
    fingerprints: tuple[Digest, ...]
    """Digests of the DER form of the certificates."""

    def is_valid_at(self, now: datetime.datetime) -> bool:
        """Whether ``now`` (UTC) lies before the expiry; minutes do not count, as upstream."""
        hour = {"minute": 0, "second": 0, "microsecond": 0}
        return now.replace(**hour) < self.expires.replace(**hour)  # type: ignore[arg-type]


def parse_whitelist(text: bytes) -> Whitelist:
    """The whitelist in ``text``, signature and all that follows the separator ignored.

    Raises:
        FormatError: the first three lines are not what they must be, or the whitelist wants
            to be verified in a way that is not supported.
    """
    lines = text.split(b"\n--\n")[0].split(b"\n")
    if len(lines) < 3 or lines[1][:1] != b"E" or lines[2][:1] != b"N":
        raise FormatError(
            "malformed: creation, expiry and name must come first", object="whitelist"
        )
    created, expires = _stamp(lines[0]), _stamp(lines[1][1:])
    rest = lines[3:]
    _refuse_options(rest)
    fingerprints = tuple(found for line in rest if (found := parse_fingerprint(line)))
    if len(fingerprints) > _MAX_FINGERPRINTS:
        raise FormatError("too many fingerprints", object="whitelist")
    return Whitelist(created, expires, lines[2][1:].decode("utf-8", "replace"), fingerprints)


def _refuse_options(lines: list[bytes]) -> None:
    """Raise if the whitelist wants a check that is not made: to pass over it would be a hole."""
    if lines and lines[0].startswith(b"V"):
        raise FormatError(
            f"verified by {printable(lines[0][1:40])}, which is not supported",
            object="whitelist",
            hint="ask the publisher for a whitelist signed by a master key",
        )
    if lines and lines[0].startswith(b"W"):
        raise FormatError(
            "wants the certificate to be verified by authorities, which is not supported",
            object="whitelist",
            hint="ask the publisher for a whitelist without that option",
        )


def dump_whitelist(whitelist: Whitelist) -> bytes:
    """The text of a whitelist, without separator and signature."""
    lines = [
        whitelist.created.strftime(_STAMP_FORMAT),
        "E" + whitelist.expires.strftime(_STAMP_FORMAT),
        "N" + whitelist.fqrn,
        *(format_fingerprint(digest) for digest in whitelist.fingerprints),
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def parse_fingerprint(line: bytes) -> Digest | None:
    """The fingerprint in a line of a whitelist or blacklist; None if it holds none."""
    word = re.split(rb"[ \t#]", line, maxsplit=1)[0]
    try:
        return Digest.parse(word.replace(b":", b"").lower().decode("ascii", "replace"))
    except FormatError:
        return None


def format_fingerprint(digest: Digest) -> str:
    """A fingerprint as upstream writes it: ``AB:CD:…[-ALGORITHM]``."""
    digits = digest.hex.upper()
    pairs = ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))
    return pairs + digest.algorithm.suffix.upper()


def is_listed(fingerprints: Iterable[Digest], certificate_der: bytes) -> bool:
    """Whether the certificate has one of the fingerprints, each by its own algorithm."""
    return any(
        fingerprint.algorithm.digest(certificate_der) == fingerprint for fingerprint in fingerprints
    )


def _stamp(text: bytes) -> datetime.datetime:
    try:
        if _STAMP.fullmatch(text):
            stamp = datetime.datetime.strptime(text.decode(), _STAMP_FORMAT)
            return stamp.replace(tzinfo=datetime.UTC)
    except ValueError:
        pass
    raise FormatError(f"malformed time {text[:20]!r}", object="whitelist")
