"""Receivers that stand for the cache when only the network is tested."""

from __future__ import annotations

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Algorithm
from lazyfs.cas.store import ObjectRef
from lazyfs.cas.verify import MemorySink, ObjectReceiver
from lazyfs.errors import CacheFull


class Received(ObjectReceiver):
    """Takes just the bytes that are expected, and says whether they came.

    Args:
        expected: The stored bytes.
    """

    def __init__(self, expected: bytes) -> None:
        self.sink = MemorySink()
        self.finished = False
        digest = Algorithm.SHA1.digest(expected)
        super().__init__(ObjectRef(digest, codec=Codec.NONE, size=len(expected)), self.sink)

    def finish(self) -> None:
        super().finish()
        self.finished = True

    @property
    def data(self) -> bytes:
        """What was received."""
        return self.sink.getvalue()


class FullDisk:
    """A receiver whose disk is full."""

    def __init__(self) -> None:
        self.attempts = 0

    def restart(self) -> None:
        self.attempts += 1

    def write(self, data: bytes) -> None:
        raise CacheFull("no space left")

    def finish(self) -> None:
        raise AssertionError("nothing was taken")
