"""`HttpStore`: objects on servers, reached through a transport."""

from __future__ import annotations

from lazyfs.cas.handle import FileHandle
from lazyfs.cas.origin import open_uncached
from lazyfs.cas.store import ObjectRef, Receiver, Transport
from lazyfs.errors import ConfigError


class HttpStore:
    """Knows which URL path holds an object; the transport knows which servers.

    Args:
        transport: For objects below ``data/``.
        external: For external files, whose bytes lie at their path below another URL.
    """

    def __init__(self, transport: Transport, external: Transport | None = None) -> None:
        self._transport = transport
        self._external = external

    def fetch(self, ref: ObjectRef, receiver: Receiver) -> None:
        """Deliver one object.

        Raises:
            ObjectMissing, NetworkError, VerificationError, FormatError: as the transport does.
            ConfigError: the file is external and no external URL is known.
        """
        if ref.external is None:
            path = ref.digest.object_path(ref.kind)
            self._transport.fetch(path, receiver, label=ref.label)
            return
        if self._external is None:
            raise ConfigError(
                "the file is external, and no external URL is set",
                path=ref.external.path,
                hint="give --external-url or CVMFS_EXTERNAL_URL",
            )
        where = ref.external
        byte_range = None
        if where.offset is not None and where.length is not None:
            byte_range = (where.offset, where.length)
        path = where.path.decode(errors="surrogateescape").lstrip("/")
        self._external.fetch(path, receiver, byte_range=byte_range, label=ref.label)

    def open(self, ref: ObjectRef) -> FileHandle:
        """The object's content in memory; the caller closes the handle."""
        return open_uncached(self, ref)

    def peek(self, ref: ObjectRef) -> FileHandle | None:
        """None: nothing is here without asking the network."""
        return None
