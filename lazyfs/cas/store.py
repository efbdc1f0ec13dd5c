"""What a store of objects is: nouns and protocols that the rest of ``lazyfs.cas`` implements."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Digest, ObjectKind

UNDECLARED_LIMIT = 1 << 30
"""Most bytes an object may inflate to when nothing declared its size (1 GiB, upstream's warning
threshold for a catalog)."""

SMALL_LIMIT = 1 << 20
"""Most bytes of a manifest, whitelist, certificate or meta-info document (upstream: 1 MiB)."""


@dataclass(frozen=True, slots=True)
class ExternalLocation:
    """Where the bytes of an external file lie: a path below the external URL, and a part of it."""

    path: bytes
    offset: int | None = None
    """First byte of the range; None: the whole file."""
    length: int | None = None


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """All that is needed to fetch an object and to know that it is right."""

    digest: Digest
    kind: ObjectKind = ObjectKind.FILE
    codec: Codec = Codec.ZLIB
    size: int | None = None
    """Bytes of the content (uncompressed) where declared; the content must have just these."""
    limit: int = UNDECLARED_LIMIT
    """Most bytes of content where ``size`` is not declared."""
    label: str = ""
    """For people: a path, ``Part of PATH``, ``file catalog at FQRN:PATH``."""
    external: ExternalLocation | None = None

    @property
    def key(self) -> str:
        """The name in a cache: the same stored bytes mean other content under another codec."""
        return str(self.digest) + (".raw" if self.codec is Codec.NONE else "")

    @property
    def claim(self) -> str:
        """What is fetched and proved: another row may declare another size, or lie elsewhere."""
        where = self.external
        place = f" {where.path.hex()}:{where.offset}" if where is not None else ""
        return f"{self.key}{self.kind.value} {self.size}{place}"

    @property
    def bound(self) -> int:
        """Most bytes the content may have."""
        return self.limit if self.size is None else self.size

    def __str__(self) -> str:
        text = str(self.digest) + self.kind.value
        return f"{text} [{self.label}]" if self.label else text


class ObjectHandle(Protocol):
    """The verified content of one object, open for reading from any thread."""

    @property
    def size(self) -> int:
        """Bytes of content."""

    @property
    def path(self) -> Path | None:
        """A file that holds just this content while the handle is open; None for memory."""

    def fileno(self) -> int:
        """A descriptor for ``preadv``; stays valid until close."""

    def pread(self, size: int, offset: int) -> bytes:
        """At most ``size`` bytes from ``offset``; fewer only at the end."""

    def close(self) -> None:
        """Release the descriptor; more than once does no harm."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class ObjectStore(Protocol):
    """Gives verified content by digest. Safe to use from many threads."""

    def open(self, ref: ObjectRef) -> ObjectHandle:
        """The object's content; blocks while it is fetched. The caller closes the handle.

        Raises:
            ObjectMissing: no source has it.
            VerificationError, FormatError: every source gave something else.
            NetworkError: no source answered within its bound.
            CacheError: the local disk failed in a way that cannot be worked round.
        """

    def peek(self, ref: ObjectRef) -> ObjectHandle | None:
        """The content if it is here without asking the network, else None."""


class VerifyingStore(ObjectStore, Protocol):
    """A store that can prove an object without keeping it."""

    def verify(self, ref: ObjectRef) -> None:
        """Read the object from its origin and verify it; raises as `open`."""


class Receiver(Protocol):
    """Takes the stored bytes of one object from a transport, attempt by attempt."""

    def restart(self) -> None:
        """Forget all bytes so far: a new attempt begins."""

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            FormatError, VerificationError: the bytes are bad; the transport may try elsewhere.
            CacheError: the local side failed; the transport must give up.
        """

    def finish(self) -> None:
        """All bytes were written; accept them or raise as :meth:`write` does."""


class Transport(Protocol):
    """Brings stored bytes from servers; implemented by ``lazyfs.net``.

    ``path`` is relative to the base URL of whichever server is asked. A ``FormatError`` or
    ``VerificationError`` from the receiver counts as bad data of that server.
    """

    def fetch(
        self,
        path: str,
        receiver: Receiver,
        *,
        byte_range: tuple[int, int] | None = None,
        label: str = "",
    ) -> None:
        """Deliver one object; returns when ``receiver.finish()`` accepted it.

        Args:
            path: Below the base URL, unescaped text, without a leading slash.
            receiver: Gets ``restart`` before every attempt.
            byte_range: First byte and length, for external chunks.
            label: For log lines.
        """
