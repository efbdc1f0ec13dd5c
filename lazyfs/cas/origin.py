"""Origins: where objects come from before they are cached."""

from __future__ import annotations

from typing import Protocol

from lazyfs.cas.anonymous import AnonymousSink
from lazyfs.cas.handle import FileHandle
from lazyfs.cas.store import ObjectRef, Receiver
from lazyfs.cas.verify import ObjectReceiver


class Origin(Protocol):
    """Delivers the stored bytes of objects into receivers."""

    def fetch(self, ref: ObjectRef, receiver: Receiver) -> None:
        """Deliver one object; returns when the receiver accepted it.

        Raises:
            ObjectMissing, NetworkError, VerificationError, FormatError: as `ObjectStore.open`.
        """


def open_uncached(origin: Origin, ref: ObjectRef) -> FileHandle:
    """The object's verified content in anonymous memory; the caller closes the handle."""
    with AnonymousSink() as sink:
        origin.fetch(ref, ObjectReceiver(ref, sink))
        return sink.handle()
