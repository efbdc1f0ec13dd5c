"""Digests: the names of objects.

The text form is lower-case hex plus an algorithm suffix, as upstream's ``crypto/hash.h`` defines
it; the letter of the object kind follows the algorithm suffix and occurs in URLs only.
"""

from __future__ import annotations

import enum
import hashlib
import re
from dataclasses import dataclass
from typing import Protocol, Self

from lazyfs.errors import ConfigError, FormatError

SHAKE128_BYTES = 20
"""Upstream cuts shake128 output to 160 bit."""


class Hasher(Protocol):
    """What :meth:`Algorithm.hasher` returns: feed bytes, then ask for the digest."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Add bytes."""

    def result(self) -> Digest:
        """The digest of all bytes added so far."""


class Algorithm(enum.Enum):
    """A hash algorithm; the value is upstream's numeric id."""

    MD5 = 0
    SHA1 = 1
    RMD160 = 2
    SHAKE128 = 3

    @property
    def suffix(self) -> str:
        """What follows the hex digits in text form."""
        return {Algorithm.RMD160: "-rmd160", Algorithm.SHAKE128: "-shake128"}.get(self, "")

    @property
    def size(self) -> int:
        """Digest length in bytes."""
        return 16 if self is Algorithm.MD5 else 20

    def hasher(self) -> Hasher:
        """A fresh incremental hasher.

        Raises:
            ConfigError: this machine does not have the algorithm.
        """
        return _Hasher(self)

    def digest(self, data: bytes | memoryview) -> Digest:
        """The digest of ``data``."""
        hasher = self.hasher()
        hasher.update(data)
        return hasher.result()


class ObjectKind(enum.Enum):
    """What an object holds; the value is the letter that ends its URL."""

    FILE = ""
    CHUNK = "P"
    CATALOG = "C"
    HISTORY = "H"
    CERTIFICATE = "X"
    METAINFO = "M"


_HASHLIB_NAMES = {
    Algorithm.MD5: "md5",
    Algorithm.SHA1: "sha1",
    Algorithm.RMD160: "ripemd160",
    Algorithm.SHAKE128: "shake_128",
}
_TEXT = re.compile(r"([0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{40}-rmd160|[0-9a-f]{40}-shake128)")
_BY_SUFFIX = {"-rmd160": Algorithm.RMD160, "-shake128": Algorithm.SHAKE128}
_OBJECT_PATH = re.compile(r"data/([0-9a-f]{2})/([0-9a-f]{38}(?:-rmd160|-shake128)?)([A-Z]?)")
_KINDS = {kind.value: kind for kind in ObjectKind}


@dataclass(frozen=True, slots=True, order=False)
class Digest:
    """An algorithm and the bytes it gave. Equality covers both."""

    algorithm: Algorithm
    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != self.algorithm.size:
            raise FormatError(
                f"a {self.algorithm.name.lower()} digest has {self.algorithm.size} bytes,"
                f" not {len(self.raw)}"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """The digest written as ``text``, without an object letter.

        Raises:
            FormatError: the text has another form than upstream's.
        """
        if not _TEXT.fullmatch(text):
            raise FormatError(f"not a digest: {text[:80]!r}")
        digits, dash, name = text.partition("-")
        if dash:
            return cls(_BY_SUFFIX[dash + name], bytes.fromhex(digits))
        algorithm = Algorithm.MD5 if len(digits) == 32 else Algorithm.SHA1
        return cls(algorithm, bytes.fromhex(digits))

    @classmethod
    def parse_content(cls, text: str) -> Self:
        """As `parse`, for the name of an object: MD5 names paths and nothing that is trusted.

        Raises:
            FormatError: the text has another form, or is an MD5 digest.
        """
        digest = cls.parse(text)
        if digest.algorithm is Algorithm.MD5:
            raise FormatError(f"an MD5 digest cannot name an object: {text}")
        return digest

    @property
    def hex(self) -> str:
        """The hex digits alone."""
        return self.raw.hex()

    @property
    def is_null(self) -> bool:
        """Whether all bytes are zero, upstream's way to say "none"."""
        return not any(self.raw)

    def object_path(self, kind: ObjectKind = ObjectKind.FILE) -> str:
        """The object's path below the repository's base URL, e.g. ``data/ab/cdef…C``."""
        digits = self.hex
        return f"data/{digits[:2]}/{digits[2:]}{self.algorithm.suffix}{kind.value}"

    def __str__(self) -> str:
        return self.hex + self.algorithm.suffix


def parse_object_path(path: str) -> tuple[Digest, ObjectKind] | None:
    """What the object at ``path`` is called, the inverse of `Digest.object_path`.

    None if that is no place of an object, or the letter says something that is not known here.
    """
    match = _OBJECT_PATH.fullmatch(path)
    kind = _KINDS.get(match[3]) if match else None
    if match is None or kind is None:
        return None
    return Digest.parse(match[1] + match[2]), kind


_new_digest = object.__new__
_set_algorithm = Digest.__dict__["algorithm"].__set__
_set_raw = Digest.__dict__["raw"].__set__


def checked_digest(algorithm: Algorithm, raw: bytes) -> Digest:
    """The digest of bytes that the caller knows to be as many as they must.

    A listing makes one for each entry; the constructor, which checks, takes four times as long.
    """
    digest = _new_digest(Digest)
    _set_algorithm(digest, algorithm)
    _set_raw(digest, raw)
    return digest


class _Hasher:
    __slots__ = ("_algorithm", "_hash", "update")

    def __init__(self, algorithm: Algorithm) -> None:
        self._algorithm = algorithm
        name = _HASHLIB_NAMES[algorithm]
        try:
            self._hash = hashlib.new(name, usedforsecurity=False)
        except ValueError as exc:
            raise ConfigError(
                f"this machine's OpenSSL has no {name}", hint="enable its legacy provider"
            ) from exc
        self.update = self._hash.update

    def result(self) -> Digest:
        if self._algorithm is Algorithm.SHAKE128:
            raw = self._hash.digest(SHAKE128_BYTES)  # type: ignore[call-arg]
        else:
            raw = self._hash.digest()
        return Digest(self._algorithm, raw)
