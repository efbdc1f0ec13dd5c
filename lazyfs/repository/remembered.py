"""What a cache remembers of a repository: the last documents that were verified."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lazyfs.cas.local_cache import LocalCache

_SIZES = re.compile(rb"([0-9]{1,7}) ([0-9]{1,7}) ([0-9]{1,7})")


@dataclass(frozen=True, slots=True)
class Documents:
    """What is needed to believe a revision, as it came."""

    manifest: bytes
    """Signed by the certificate's key."""
    whitelist: bytes
    """Signed by a master key."""
    certificate: bytes
    """PEM."""


class Remembered:
    """The last verified documents of one repository, in one file: all of one moment or none.

    They let a repository open without a network, and tell a server that goes back in time. They
    are verified again whenever they are used.
    """

    def __init__(self, cache: LocalCache, fqrn: str) -> None:
        self._file = cache.state(f"{fqrn}/documents")

    def load(self) -> Documents | None:
        """The documents, None if nothing is remembered.

        Raises:
            CacheError: they are there and cannot be read.
        """
        content = self._file.read()
        return None if content is None else _unpack(content)

    def keep(self, documents: Documents) -> None:
        """Remember.

        Raises:
            CacheError: the disk refuses.
        """
        content = _pack(documents)
        if self._file.read() != content:
            self._file.write(content)


def _pack(documents: Documents) -> bytes:
    parts = (documents.manifest, documents.whitelist, documents.certificate)
    return " ".join(str(len(part)) for part in parts).encode() + b"\n" + b"".join(parts)


def _unpack(content: bytes) -> Documents | None:
    head, _, body = content.partition(b"\n")
    match = _SIZES.fullmatch(head)
    if match is None or sum(map(int, match.groups())) != len(body):
        return None
    first, second, _ = map(int, match.groups())
    return Documents(body[:first], body[first : first + second], body[first + second :])
