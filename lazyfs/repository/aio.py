"""The asynchronous twin: files of a revision for programs that run on trio."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import trio

from lazyfs.repository.file import RepositoryFile
from lazyfs.repository.node import Node
from lazyfs.repository.revision import Revision


class AsyncRepositoryFile:
    """A `RepositoryFile` whose blocking calls run in worker threads. One task at a time."""

    def __init__(self, file: RepositoryFile) -> None:
        self._file = file

    async def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes from the position, all that is left for -1; empty at the end."""
        return await trio.to_thread.run_sync(self._read, size)

    def _read(self, size: int) -> bytes:
        return self._file.readall() or b"" if size < 0 else self._file.read(size) or b""

    async def pread(self, size: int, offset: int) -> bytes:
        """As `RepositoryFile.pread`."""
        return await trio.to_thread.run_sync(self._file.pread, size, offset)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As `RepositoryFile.seek`; it never waits."""
        return self._file.seek(offset, whence)

    async def aclose(self) -> None:
        """Close the file."""
        self._file.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


async def open_file(revision: Revision, path: bytes | str | Node) -> AsyncRepositoryFile:
    """A regular file of ``revision``, open for reading.

    Raises:
        LazyfsError: as `Revision.open_file`.
    """
    return AsyncRepositoryFile(await trio.to_thread.run_sync(revision.open_file, path))
