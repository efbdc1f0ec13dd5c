"""`ObjectReceiver`: turns the bytes of a transfer into verified content."""

from __future__ import annotations

from typing import Protocol

from lazyfs.cas.store import ObjectRef
from lazyfs.errors import CodecError, HashMismatch

STORED_SLACK = 64 << 10
"""Bytes that an object may be stored in beyond twice its content. No publisher comes near it; a
stream of empty blocks, which gives nothing and never ends, passes it."""


class Sink(Protocol):
    """Where verified-to-be content goes; nothing in it may be seen before the end is accepted."""

    def restart(self) -> None:
        """Forget everything written."""

    def write(self, data: bytes) -> None:
        """Append content."""


class ObjectReceiver:
    """A `Receiver` that hashes stored bytes, inflates them within bounds, and fills a sink.

    Args:
        ref: What is being received; its digest covers the stored bytes, its size the content.
        sink: Gets the content; the caller publishes it only after :meth:`finish` returned.
    """

    def __init__(self, ref: ObjectRef, sink: Sink) -> None:
        self._ref = ref
        self._sink = sink
        self.stored = 0
        """Stored bytes received in this attempt."""
        self.content = 0
        """Bytes of content written in this attempt."""
        self._begin()

    def _begin(self) -> None:
        self._hasher = self._ref.digest.algorithm.hasher()
        self._decoder = self._ref.codec.decoder(limit=self._ref.bound)
        self.stored = self.content = 0

    def restart(self) -> None:
        """Forget all bytes so far."""
        self._begin()
        self._sink.restart()

    def write(self, data: bytes) -> None:
        """Take the next stored bytes.

        Raises:
            CodecError: the stream is damaged or longer than declared.
        """
        self.stored += len(data)
        if self.stored > 2 * self._ref.bound + STORED_SLACK:
            raise CodecError("far more bytes than the content needs", object=str(self._ref))
        self._hasher.update(data)
        try:
            for piece in self._decoder.feed(data):
                self.content += len(piece)
                self._sink.write(piece)
        except CodecError as exc:
            raise CodecError(exc.message, object=str(self._ref)) from exc

    def finish(self) -> None:
        """Accept the object.

        Raises:
            HashMismatch: the stored bytes are not those that the digest names.
            CodecError: the stream was cut, or the content has not the declared size.
        """
        found = self._hasher.result()
        if found != self._ref.digest:
            raise HashMismatch(f"the bytes have digest {found}", object=str(self._ref))
        try:
            self._decoder.finish()
        except CodecError as exc:
            raise CodecError(exc.message, object=str(self._ref)) from exc
        if self._ref.size is not None and self.content != self._ref.size:
            raise CodecError(
                f"the content has {self.content} bytes, {self._ref.size} were declared",
                object=str(self._ref),
            )


class MemorySink:
    """A sink in memory."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def restart(self) -> None:
        """Forget everything written."""
        self._pieces.clear()

    def write(self, data: bytes) -> None:
        """Append content."""
        self._pieces.append(data)

    def getvalue(self) -> bytes:
        """All content."""
        return b"".join(self._pieces)


class NullSink:
    """A sink that keeps nothing: for verifying alone."""

    def restart(self) -> None:
        """Nothing to forget."""

    def write(self, data: bytes) -> None:
        """Nothing is kept."""
