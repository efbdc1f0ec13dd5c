"""`Prefetcher`: brings objects into the cache before they are read."""

from __future__ import annotations

import logging
import os

import trio

from lazyfs.cas.store import ObjectRef
from lazyfs.errors import LazyfsError
from lazyfs.fuse.blocking import Workers, run_blocking
from lazyfs.fuse.objects import ObjectPool, PooledObject

log = logging.getLogger("lazyfs.fuse")

WORKERS = 8
"""Objects fetched ahead at once, over all files."""

WAITING = 64
"""Objects that wait for a worker; what does not fit is not fetched ahead, only when it is read."""


class Prefetcher:
    """Takes offers and fetches them in the background; fetches are shared with readers.

    Args:
        pool: Where the objects wait for their reader.
        workers: Where blocking happens.
    """

    def __init__(self, pool: ObjectPool, workers: Workers) -> None:
        self._pool = pool
        self._workers = workers
        self._send, self._receive = trio.open_memory_channel[ObjectRef](WAITING)

    def offer(self, ref: ObjectRef) -> bool:
        """Fetch an object soon; False if too many wait already."""
        try:
            self._send.send_nowait(ref)
        except trio.WouldBlock:
            return False
        return True

    async def run(self) -> None:
        """Serve offers until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(self._work)

    async def _work(self) -> None:
        async for ref in self._receive:
            try:
                pooled = await self._pool.acquire(ref)
            except (LazyfsError, OSError) as exc:
                # Whoever reads it meets the error itself, and then it is logged as one.
                log.debug("not fetched ahead: %s: %s", ref, exc)
                continue
            try:
                await run_blocking(self._workers.disk, _load, pooled)
            finally:
                self._pool.release(pooled)


def _load(pooled: PooledObject) -> None:
    """Ask the disk for the content now, so that it is in memory when it is read."""
    if pooled.handle.path is not None:
        os.posix_fadvise(pooled.handle.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
