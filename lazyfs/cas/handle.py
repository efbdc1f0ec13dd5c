"""Handles: the open, verified content of one object, on disk or in memory."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self


class FileHandle:
    """Content in a file, held by its descriptor.

    The descriptor of a cached object carries a shared ``flock``: no process evicts an object that
    any process has open, and the kernel drops the lock when a process dies.

    Args:
        fd: An open descriptor, owned by the handle from now on.
        size: Bytes of content.
        path: The file, if it has a name.
    """

    __slots__ = ("_fd", "_path", "_size")

    def __init__(self, fd: int, size: int, path: Path | None = None) -> None:
        self._fd = fd
        self._size = size
        self._path = path

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """A handle on anonymous memory that holds ``content``."""
        fd = os.memfd_create("lazyfs-object", os.MFD_CLOEXEC)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, len(content))

    @property
    def size(self) -> int:
        """Bytes of content."""
        return self._size

    @property
    def path(self) -> Path | None:
        """The file that holds the content while the handle is open; None for memory."""
        return self._path

    def fileno(self) -> int:
        """The descriptor; -1 once closed."""
        return self._fd

    def pread(self, size: int, offset: int) -> bytes:
        """At most ``size`` bytes from ``offset``; fewer only at the end."""
        return os.pread(self._fd, size, offset)

    def duplicate(self) -> FileHandle:
        """Another handle on the same content, closed independently."""
        return FileHandle(os.dup(self._fd), self._size, self._path)

    def read_all(self) -> bytes:
        """The whole content."""
        pieces = []
        offset = 0
        while piece := os.pread(self._fd, self._size - offset, offset):
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Release the descriptor and with it the lock."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
