"""`AnonymousSink`: content in anonymous memory, for when it cannot or need not be on disk."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from lazyfs.cas.handle import FileHandle
from lazyfs.errors import CacheError


class AnonymousSink:
    """A sink that becomes a handle without a copy; a context manager.

    Args:
        limit: Most bytes that are taken; None: whatever comes.
        refusal: What is raised when more comes.

    Raises:
        CacheError: there is no descriptor or no memory left, also from `write`.
    """

    def __init__(self, limit: int | None = None, refusal: CacheError | None = None) -> None:
        self._limit = limit
        self._refusal = refusal or CacheError("too large to be held in memory")
        self._size = 0
        try:
            self._fd = os.memfd_create("lazyfs-object", os.MFD_CLOEXEC)
        except OSError as exc:
            raise CacheError(f"cannot hold an object in memory: {exc.strerror}") from exc

    def restart(self) -> None:
        """Forget everything written."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append content."""
        self._size += len(data)
        if self._limit is not None and self._size > self._limit:
            raise self._refusal
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as exc:
            raise CacheError(f"cannot hold an object in memory: {exc.strerror}") from exc

    def handle(self) -> FileHandle:
        """The content; the caller closes the handle, and the sink takes no more."""
        fd, self._fd = self._fd, -1
        return FileHandle(fd, self._size)

    def close(self) -> None:
        """Forget the content, unless it became a handle."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
