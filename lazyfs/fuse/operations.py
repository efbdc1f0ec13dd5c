"""`Operations`: the requests of a mounted file system, without any type of a FUSE binding."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count

from lazyfs.cas.store import ObjectStore
from lazyfs.fuse.blocking import Workers
from lazyfs.fuse.buffers import Buffers
from lazyfs.fuse.directories import OpenDirectory
from lazyfs.fuse.errnos import Answer, Refusal, errno_of, is_failure
from lazyfs.fuse.failures import FailureLog
from lazyfs.fuse.lease import LiveRevision
from lazyfs.fuse.nodes import Known
from lazyfs.fuse.objects import ObjectPool
from lazyfs.fuse.prefetch import Prefetcher
from lazyfs.fuse.reader import Content, OpenFile
from lazyfs.fuse.statistics import Statistics
from lazyfs.fuse.tree import LiveTree
from lazyfs.repository.pathhash import MAX_NAME_BYTES

WRITING = os.O_WRONLY | os.O_RDWR | os.O_TRUNC
"""``O_APPEND`` alone is harmless, and ``O_CREAT`` of what exists never arrives here."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What the kernel is told of a file that was opened."""

    handle: int
    direct_io: bool
    """Never use the page cache. Otherwise it may always be kept: nodes name contents."""


class Operations:
    """Answers requests. Every method either returns, or raises what `refuse` makes an errno of.

    Args:
        tree: The tree that is shown.
        store: Where file content comes from.
        workers: Where blocking happens.
        failures: Gets the failed requests.
        statistics: Are counted up.
        ahead: Chunks to fetch ahead of a sequential reader.
    """

    def __init__(
        self,
        tree: LiveTree,
        store: ObjectStore,
        workers: Workers,
        failures: FailureLog,
        statistics: Statistics,
        *,
        ahead: int,
    ) -> None:
        self.tree = tree
        self.failures = failures
        self.pool = ObjectPool(store, workers)
        self.prefetcher = Prefetcher(self.pool, workers)
        self._workers = workers
        self._statistics = statistics
        self._ahead = ahead
        self._numbers = count(1)
        self._buffers = Buffers()
        self._files: dict[int, OpenFile] = {}
        self._directories: dict[int, OpenDirectory] = {}
        self._contents: weakref.WeakValueDictionary[int, Content] = weakref.WeakValueDictionary()

    def refuse(self, request: str, where: int, error: Exception) -> int:
        """The errno for a request on a node that ended in ``error``; logged if it is a failure."""
        if is_failure(error):
            known = self.tree.table.get(where)
            self.failures.report(request, known.node.path if known else b"?", error)
        return errno_of(error)

    # --- nodes -----------------------------------------------------------------------------

    async def lookup(self, parent: int, name: bytes) -> Known | None:
        """The entry ``name`` of a directory, counted as known to the kernel; None: there is none.

        Raises:
            Refusal, LazyfsError: the directory is no more, or a catalog cannot be loaded.
        """
        self._statistics.lookups += 1
        tree = self.tree
        known = await self._entry(tree.known(parent), name)
        if known is not None:
            tree.table.count(known)
        return known

    async def _entry(self, directory: Known, name: bytes) -> Known | None:
        tree = self.tree
        if len(name) > MAX_NAME_BYTES:
            raise Refusal(Answer.NAME_TOO_LONG)
        path = _join(directory.node.path, name)
        known = tree.table.at(path)
        if known is not None:
            return known
        node = await tree.find(path)
        return None if node is None else tree.table.remember(node)

    def may_cache_absence(self, parent: int, name: bytes) -> float:
        """Seconds that the kernel may remember that there is no ``name``."""
        seconds = self.tree.timeout
        return seconds if seconds and self.tree.negatives.note(parent, name, seconds) else 0.0

    async def getattr(self, nodeid: int) -> Known:
        """The node with that number."""
        return await self.tree.settled(nodeid)

    def link_target(self, known: Known) -> bytes:
        """A symbolic link's target with its variables expanded.

        Raises:
            Refusal: it is no link.
        """
        if not known.node.is_symlink:
            raise Refusal(Answer.INVALID)
        return self._view(known).readlink(known.node)

    def readlink(self, nodeid: int) -> bytes:
        """As `link_target`, by number."""
        return self.link_target(self.tree.known(nodeid))

    def shown_size(self, known: Known) -> int:
        """``st_size``: for a link with variables, the length of what they make of it."""
        node = known.node
        return len(self.link_target(known)) if b"$" in node.symlink else node.size

    def forget(self, counts: Iterable[tuple[int, int]]) -> None:
        """The kernel forgot nodes, each some of the times that it was told of it."""
        for nodeid, times in counts:
            self.tree.table.forget(nodeid, times)

    def _view(self, known: Known) -> LiveRevision:
        return (known.lease or self.tree.lease).view

    # --- files -----------------------------------------------------------------------------

    async def open(self, nodeid: int, flags: int) -> Opened:
        """A handle on a regular file. Its content is fetched when it is read.

        Raises:
            Refusal: it is no file, or to be written.
            LazyfsError: the chunks cannot be had.
        """
        self._statistics.opens += 1
        known = self.tree.known(nodeid)
        if flags & WRITING:
            raise Refusal(Answer.READ_ONLY)
        if known.node.is_dir:
            raise Refusal(Answer.IS_A_DIRECTORY)
        content = self._contents.get(nodeid) or await self._content(known)
        handle = next(self._numbers)
        self._files[handle] = OpenFile(
            content, self.pool, self._workers, self.prefetcher, self._ahead, self._buffers
        )
        self._statistics.open_files = len(self._files)
        return Opened(handle, known.node.direct_io)

    async def _content(self, known: Known) -> Content:
        node = known.node
        lease = known.lease or self.tree.lease
        if node.chunked:
            extents = await self.tree.ask(lease, lambda view, _: view.extents(node), node.path)
        else:
            extents = lease.view.extents(node)
        content = Content(node.path, node.size, extents)
        self._contents[known.nodeid] = content
        return content

    async def read(self, handle: int, offset: int, size: int) -> memoryview:
        """Bytes of an open file: just ``size`` of them, fewer only at its end.

        They are valid until the caller's next await.

        Raises:
            Refusal: there is no such handle.
            LazyfsError: the content cannot be had.
        """
        file = self._files.get(handle)
        if file is None:
            raise Refusal(Answer.BAD_HANDLE)
        data = await file.read(offset, size)
        self._statistics.reads += 1
        self._statistics.bytes_read += len(data)
        return data

    def refuse_read(self, handle: int, error: Exception) -> int:
        """As `refuse`, for a read, of which the kernel tells no node."""
        if is_failure(error):
            file = self._files.get(handle)
            self.failures.report("read", file.content.path if file else b"?", error)
        return errno_of(error)

    def is_open(self, nodeid: int) -> bool:
        """Whether somebody has the file open."""
        return nodeid in self._contents

    def release(self, handle: int) -> None:
        """A file handle is not used any more."""
        file = self._files.pop(handle, None)
        if file is not None:
            file.close()
        self._statistics.open_files = len(self._files)

    # --- directories -----------------------------------------------------------------------

    async def opendir(self, nodeid: int) -> int:
        """A handle on a snapshot of a directory.

        Raises:
            Refusal: it is none, or no more.
            LazyfsError: a catalog cannot be loaded.
        """
        self._statistics.opendirs += 1
        known = await self.tree.settled(nodeid)
        if not known.node.is_dir:
            raise Refusal(Answer.NOT_A_DIRECTORY)
        listing = await self.tree.listing(known.node.path, known.node)
        # No await since the listing was found to be of the current revision.
        handle = next(self._numbers)
        self._directories[handle] = OpenDirectory(nodeid, listing, self.tree.lease)
        self._statistics.open_directories = len(self._directories)
        return handle

    def directory(self, handle: int) -> OpenDirectory:
        """The directory behind a handle.

        Raises:
            Refusal: there is no such handle.
        """
        found = self._directories.get(handle)
        if found is None:
            raise Refusal(Answer.BAD_HANDLE)
        return found

    def entries(self, directory: OpenDirectory, start: int) -> Iterator[tuple[int, bytes, Known]]:
        """Next position, name and node from ``start`` on; count or discard each node."""
        table, lease = self.tree.table, directory.lease
        cut = len(directory.listing.path) + 1
        is_current = lease is self.tree.lease
        for position, node in directory.nodes(start):
            known = table.remember(node) if is_current else table.remember_old(node, lease)
            yield position, node.path[cut:], known

    def releasedir(self, handle: int) -> None:
        """A directory handle is not used any more."""
        directory = self._directories.pop(handle, None)
        if directory is not None:
            directory.close()
        self._statistics.open_directories = len(self._directories)

    def close(self) -> None:
        """Let go of all handles."""
        for handle in list(self._files):
            self.release(handle)
        for handle in list(self._directories):
            self.releasedir(handle)
        self.pool.close_idle()


def _join(directory: bytes, name: bytes) -> bytes:
    """The path of ``name`` in a directory, where ``.`` and ``..`` are what they are everywhere."""
    if name == b".":
        return directory
    if name == b"..":
        return directory.rpartition(b"/")[0]
    return directory + b"/" + name
