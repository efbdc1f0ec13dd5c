"""`OpenFile`: one open file of a mount; its bytes are those it was opened with."""

from __future__ import annotations

import bisect
import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence

from lazyfs.cas.store import ObjectHandle, ObjectRef, ObjectStore
from lazyfs.errors import FormatError
from lazyfs.repository.view import Extent

OPEN_OBJECTS = 2
"""Objects of one open file kept open."""

_WOULD_BLOCK = (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL)


class OpenFile:
    """Reads by offset. `try_read` for the event loop, the others for worker threads.

    Args:
        nodeid: Of the file.
        path: For messages.
        extents: Tile the file from 0.
        size: Bytes of the file.
    """

    def __init__(self, nodeid: int, path: bytes, extents: Sequence[Extent], size: int) -> None:
        self.nodeid = nodeid
        self.path = path
        self._extents = extents
        self._offsets = [extent.offset for extent in extents]
        self._size = size
        self._lock = threading.Lock()
        self._handles: OrderedDict[int, ObjectHandle] = OrderedDict()
        self._closed = False
        self._next_offset = 0
        self._ahead = 0
        """Extents before this one were asked for by read-ahead."""

    def _index(self, offset: int) -> int:
        return bisect.bisect_right(self._offsets, offset) - 1

    def try_read(self, offset: int, size: int) -> bytes | bytearray | None:
        """The bytes, if they can be had at once: one object, open, in the page cache."""
        if offset >= self._size:
            return b""
        index = self._index(offset)
        extent = self._extents[index]
        start = offset - extent.offset
        size = min(size, self._size - offset)
        handle = self._handles.get(index)
        if handle is None or start + size > extent.size:
            return None
        buffer = bytearray(size)
        try:
            count = os.preadv(handle.fileno(), [buffer], start, os.RWF_NOWAIT)
        except OSError as exc:
            if exc.errno in _WOULD_BLOCK:
                return None
            raise
        return buffer if count == size else None

    def missing(self, store: ObjectStore, offset: int, size: int) -> bool:
        """Open what the read needs from the cache; whether something has to be fetched."""
        return any(not self._open_cached(store, index) for index in self._range(offset, size))

    def _range(self, offset: int, size: int) -> range:
        end = min(offset + size, self._size)
        if offset >= end:
            return range(0)
        return range(self._index(offset), self._index(end - 1) + 1)

    def _open_cached(self, store: ObjectStore, index: int) -> bool:
        if index in self._handles:
            return True
        handle = store.peek(self._extents[index].ref)
        if handle is None:
            return False
        self._keep(index, handle)
        return True

    def _keep(self, index: int, handle: ObjectHandle) -> None:
        """Remember a handle; the oldest closes when the threads that use it are done with it."""
        with self._lock:
            if self._closed or index in self._handles:
                return
            self._handles[index] = handle
            while len(self._handles) > OPEN_OBJECTS:
                self._handles.popitem(last=False)

    def read(self, store: ObjectStore, offset: int, size: int) -> bytes:
        """The bytes; fetches what is missing.

        Raises:
            LazyfsError: an object cannot be had.
        """
        pieces = []
        end = min(offset + size, self._size)
        while offset < end:
            index = self._index(offset)
            extent = self._extents[index]
            handle = self._handles.get(index)
            if handle is None:
                handle = store.open(extent.ref)
                self._keep(index, handle)
            start = offset - extent.offset
            piece = handle.pread(min(end - offset, extent.size - start), start)
            if not piece:
                raise FormatError("the object is shorter than declared", object=str(extent.ref))
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)

    def read_ahead(self, offset: int, size: int, count: int) -> list[ObjectRef]:
        """Objects worth fetching now because the reader goes through the file in order.

        Args:
            offset: Of the read that is under way.
            size: Of that read.
            count: Objects to be ahead.
        """
        # The kernel reads ahead itself and may send neighbouring reads in any order.
        sequential = abs(offset - self._next_offset) <= 2 * size
        self._next_offset = offset + size
        if len(self._extents) < 2 or not sequential:
            return []
        current = self._index(min(offset, self._size - 1))
        first = max(self._ahead, current + 1)
        last = min(current + 1 + count, len(self._extents))
        self._ahead = max(self._ahead, last)
        return [extent.ref for extent in self._extents[first:last]]

    def close(self) -> None:
        """Let go of the objects."""
        with self._lock:
            self._closed = True
            self._handles.clear()
