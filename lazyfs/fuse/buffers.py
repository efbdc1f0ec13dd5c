"""`Buffers`: memory for the answers to reads, used again and again.

A fresh megabyte for each read costs more in page faults than the read itself.
"""

from __future__ import annotations

BUFFER_BYTES = 1 << 20
"""Largest piece that the kernel asks for (256 pages)."""

KEPT_BUFFERS = 16
"""Buffers kept for the next reads; as many as can be in hand at once without new ones."""


class Buffers:
    """Lends buffers; touched by the event loop alone.

    What is given back may be lent again as soon as another task runs. So a reader gives its
    buffer back just before it returns it, and whoever gets it from there must have sent it before
    the next await.
    """

    def __init__(self) -> None:
        self._free: list[bytearray] = []

    def take(self, size: int) -> tuple[bytearray, memoryview]:
        """A buffer and a view of its first ``size`` bytes; what is in it is undefined."""
        if size > BUFFER_BYTES:
            buffer = bytearray(size)
        else:
            buffer = self._free.pop() if self._free else bytearray(BUFFER_BYTES)
        return buffer, memoryview(buffer)[:size]

    def give(self, buffer: bytearray) -> None:
        """The buffer is not needed after the next await."""
        if len(buffer) == BUFFER_BYTES and len(self._free) < KEPT_BUFFERS:
            self._free.append(buffer)
