"""`Buffers`: memory for the answers to reads, used again and again.

A fresh megabyte for each read costs more in page faults than the read itself.
"""

from __future__ import annotations

import trio

BUFFER_BYTES = 1 << 20
"""Largest piece that the kernel asks for (256 pages)."""

BUFFERS = 16
"""Buffers in all. More readers wait for one, so that many large reads take no more memory."""


class Buffers:
    """Lends buffers; touched by the event loop alone.

    What is given back may be lent again as soon as another task runs. So a reader gives its
    buffer back just before it returns it, and whoever gets it from there must have sent it before
    the next await.
    """

    def __init__(self) -> None:
        self._free: list[bytearray] = []
        self._places = trio.Semaphore(BUFFERS)

    async def take(self, size: int) -> memoryview:
        """The first ``size`` bytes of a buffer; what is in it is undefined.

        Waits while all are lent: whoever has one must not wait for a server.
        """
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            await self._places.acquire()
        if size > BUFFER_BYTES:
            return memoryview(bytearray(size))
        buffer = self._free.pop() if self._free else bytearray(BUFFER_BYTES)
        return memoryview(buffer)[:size]

    def give(self, view: memoryview) -> None:
        """The buffer of ``view`` is not needed after the next await."""
        if isinstance(view.obj, bytearray) and len(view.obj) == BUFFER_BYTES:
            self._free.append(view.obj)
        self._places.release()
