"""`OpenFile`: reads of one open file, over the objects that hold its content."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence

from lazyfs.fuse.blocking import Workers, run_blocking
from lazyfs.fuse.buffers import Buffers
from lazyfs.fuse.objects import ObjectPool, PooledObject
from lazyfs.fuse.prefetch import Prefetcher
from lazyfs.fuse.readahead import SequentialReader
from lazyfs.repository.view import Extent

HELD_OBJECTS = 3
"""Objects that one file keeps open between reads. What it holds cannot be evicted from the cache,
so a file that is one object stays readable whatever happens to servers and cache, unless so many
are open that descriptors run short."""


class Content:
    """Where a file's bytes lie; shared by all who have the file open.

    Args:
        path: For messages.
        size: Bytes of the file.
        extents: Tile it from 0.
    """

    __slots__ = ("__weakref__", "extents", "offsets", "path", "size")

    def __init__(self, path: bytes, size: int, extents: Sequence[Extent]) -> None:
        self.path = path
        self.size = size
        self.extents = extents
        self.offsets = [extent.offset for extent in extents]

    def piece(self, offset: int, end: int) -> tuple[int, int, int]:
        """Which extent holds ``offset``, where in it that is, and its bytes up to ``end``."""
        index = bisect_right(self.offsets, offset) - 1
        extent = self.extents[index]
        start = offset - extent.offset
        return index, start, min(extent.size - start, end - offset)


class OpenFile:
    """A file handle. Reads may overlap in time.

    Args:
        content: What is read.
        pool: Where objects come from.
        workers: For reads that have to wait for the disk.
        prefetcher: Gets the chunks that a sequential reader will want.
        ahead: How many of them.
        buffers: Where the answers are put together.
    """

    __slots__ = ("_buffers", "_held", "_pool", "_prefetcher", "_sequence", "_workers", "content")

    def __init__(
        self,
        content: Content,
        pool: ObjectPool,
        workers: Workers,
        prefetcher: Prefetcher,
        ahead: int,
        buffers: Buffers,
    ) -> None:
        self.content = content
        self._buffers = buffers
        self._pool = pool
        self._workers = workers
        self._prefetcher = prefetcher
        self._held: OrderedDict[int, PooledObject] = OrderedDict()
        self._sequence = SequentialReader(ahead if len(content.extents) > 1 else 0)

    async def read(self, offset: int, size: int) -> memoryview:
        """The bytes at ``offset``: ``size`` of them, fewer only at the end of the file.

        They are valid until the caller's next await, see `Buffers`.

        Raises:
            LazyfsError: an object cannot be had.
        """
        end = min(offset + size, self.content.size)
        last = await self._open_objects(offset, end)
        view = await self._buffers.take(max(0, end - offset))
        try:
            await self._fill(view, offset)
        finally:
            self._buffers.give(view)
        self._look_ahead(offset, len(view), last)
        return view

    async def _open_objects(self, offset: int, end: int) -> int:
        """Have the objects between two offsets opened, the last ones held; the last one's index.

        Buffers are few: who has one waits for the disk only, never for a server.
        """
        index = 0
        while offset < end:
            index, _, length = self.content.piece(offset, end)
            if index not in self._held:
                pooled = await self._pool.acquire(self.content.extents[index].ref)
                self._hold(index, pooled)
                self._pool.release(pooled)
            offset += length
        return index

    async def _fill(self, view: memoryview, offset: int) -> None:
        end = offset + len(view)
        at = offset
        while at < end:
            index, start, length = self.content.piece(at, end)
            target = view[at - offset : at - offset + length]
            held = self._held.get(index)
            done = held.read_now(target, start) if held is not None else 0
            if done < length:
                await self._read_piece(index, start + done, target[done:])
            at += length

    async def _read_piece(self, index: int, start: int, target: memoryview) -> None:
        pooled = await self._pool.acquire(self.content.extents[index].ref)
        try:
            self._hold(index, pooled)
            done = pooled.read_now(target, start)
            if done < len(target):
                await run_blocking(self._workers.disk, pooled.read_all, target[done:], start + done)
        finally:
            self._pool.release(pooled)

    def _hold(self, index: int, pooled: PooledObject) -> None:
        """Keep an object open after this read, in place of the one used longest ago."""
        if index in self._held:
            self._held.move_to_end(index)
            return
        if self._pool.is_crowded:
            return
        pooled.users += 1
        self._held[index] = pooled
        if len(self._held) > HELD_OBJECTS:
            self._pool.release(self._held.popitem(last=False)[1])

    def _look_ahead(self, offset: int, size: int, index: int) -> None:
        self._sequence.note(offset, size)
        for ahead in self._sequence.plan(index, len(self.content.extents)):
            self._prefetcher.offer(self.content.extents[ahead].ref)

    def close(self) -> None:
        """Let go of the objects."""
        while self._held:
            self._pool.release(self._held.popitem()[1])
