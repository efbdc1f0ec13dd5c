"""`RepositoryFile`: a file of a revision as a standard raw stream."""

from __future__ import annotations

import bisect
import io
import os
from collections import OrderedDict
from collections.abc import Sequence

from lazyfs.cas.store import ObjectHandle, ObjectStore
from lazyfs.errors import FormatError
from lazyfs.repository.view import Extent

OPEN_OBJECTS = 4
"""Objects of one file kept open; a sequential reader needs one, a random one a few."""


class RepositoryFile(io.RawIOBase):
    """Content fetched when it is read. For text or many small reads wrap it in `io.BufferedReader`.

    One file object serves one thread at a time, as all of Python's raw streams; `pread` too.

    Args:
        store: Where objects come from.
        extents: Tile the file from 0.
        size: Bytes of the file.
        name: The path, for ``repr``.
    """

    def __init__(
        self, store: ObjectStore, extents: Sequence[Extent], size: int, *, name: bytes
    ) -> None:
        super().__init__()
        self._store = store
        self._extents = extents
        self._offsets = [extent.offset for extent in extents]
        self._size = size
        self._position = 0
        self._handles: OrderedDict[int, ObjectHandle] = OrderedDict()
        self.name = name

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position; the new one."""
        self._check_open()
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}.get(whence)
        if base is None or base + offset < 0:
            raise ValueError(f"cannot seek to {offset} from {whence}")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """The position."""
        self._check_open()
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Read into ``buffer``; the bytes read, 0 at the end."""
        self._check_open()
        view = memoryview(buffer).cast("B")
        piece = self.pread(len(view), self._position)
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def pread(self, size: int, offset: int) -> bytes:
        """At most ``size`` bytes from ``offset``, from one object; empty only at the end.

        Raises:
            LazyfsError: the object cannot be had.
        """
        self._check_open()
        if offset < 0:
            raise ValueError("negative offset")
        if offset >= self._size or size <= 0:
            return b""
        index = bisect.bisect_right(self._offsets, offset) - 1
        extent = self._extents[index]
        start = offset - extent.offset
        piece = self._handle(index).pread(min(size, extent.size - start), start)
        if not piece:
            raise FormatError("the object is shorter than declared", object=str(extent.ref))
        return piece

    def _handle(self, index: int) -> ObjectHandle:
        handle = self._handles.get(index)
        if handle is None:
            handle = self._store.open(self._extents[index].ref)
            self._handles[index] = handle
            if len(self._handles) > OPEN_OBJECTS:
                self._handles.popitem(last=False)[1].close()
        else:
            self._handles.move_to_end(index)
        return handle

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def close(self) -> None:
        """Close the objects that are open."""
        while self._handles:
            self._handles.popitem()[1].close()
        super().close()
