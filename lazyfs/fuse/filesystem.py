"""`Filesystem`: the operations of a mount, without any transport's types.

Used by one event loop. Between two awaits state is consistent; what each await may change under a
handler's feet is written down in ``docs/explanation/concurrency.md``.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import trio
from cachetools import LRUCache

from lazyfs.cas.local_cache import CacheUsage
from lazyfs.cas.store import ObjectRef
from lazyfs.config.settings import MountSettings
from lazyfs.errors import LazyfsError, NotCached, PathNotFound
from lazyfs.fuse.blocking import Workers, run_blocking
from lazyfs.fuse.log_buffer import LogBuffer
from lazyfs.fuse.magic import MagicXattrs
from lazyfs.fuse.nodes import NodeTable, Record
from lazyfs.fuse.open_file import OpenFile
from lazyfs.fuse.ownership import Ownership
from lazyfs.fuse.statistics import Statistics
from lazyfs.repository.node import Node
from lazyfs.repository.repository import Repository
from lazyfs.repository.revision import Revision

log = logging.getLogger("lazyfs.fuse")

T = TypeVar("T")

FIXED_TIMEOUT = 86400.0
"""Seconds the kernel may answer by itself for a revision that never changes."""

LISTED_NODES = 20_000
"""Entries of prepared directories kept in memory."""

LOOKUPS_BEFORE_LISTING = 3
"""Single lookups in a directory before it is read as a whole: they come in swarms."""

QUIET_SECONDS = 10.0
"""The same failure is logged once in that time."""


@dataclass(frozen=True, slots=True)
class FilesystemUsage:
    """What ``statfs`` tells."""

    cache: CacheUsage
    entries: int
    """In the whole repository."""


@dataclass(slots=True)
class OpenDirectory:
    """A directory handle: a snapshot of its entries."""

    entries: list[Record | Node]
    revision: Revision


class Filesystem:
    """One repository as a file system.

    Args:
        repository: Open; not closed here.
        settings: How it shows itself.
    """

    def __init__(self, repository: Repository, settings: MountSettings) -> None:
        self.repository: Repository = repository
        self.settings: MountSettings = settings
        self.workers = Workers()
        self.statistics: Statistics = Statistics()
        self.ownership = Ownership.from_settings(settings)
        self.log_buffer: LogBuffer = LogBuffer()
        self.revision = repository.current
        self.nodes: NodeTable = NodeTable(self.revision.lookup(b""), self.revision)
        self.read_ahead_send, self.read_ahead_receive = trio.open_memory_channel[ObjectRef](64)
        self.next_refresh: float = 0.0
        """Unix time of the next look for a newer revision; 0: never."""
        self._magic = MagicXattrs(self)
        self._handles: dict[int, OpenFile | OpenDirectory] = {}
        self._handle_numbers = itertools.count(1)
        self._listings: LRUCache[bytes, dict[bytes, Node]] = LRUCache(
            LISTED_NODES, getsizeof=lambda listing: len(listing) + 1
        )
        self._swarm: LRUCache[bytes, int] = LRUCache(1024)
        self._quiet: LRUCache[str, float] = LRUCache(256)
        self._usage: tuple[float, FilesystemUsage] | None = None

    @property
    def timeout(self) -> float:
        """Seconds the kernel may answer by itself."""
        if self.repository.settings.revision.is_fixed or not self.settings.auto_update:
            return FIXED_TIMEOUT
        return self.settings.kcache_timeout

    # --- asking the revision ---------------------------------------------------------------

    async def _ask(self, question: Callable[[Revision], T], revision: Revision) -> T:
        """The revision's answer: from what is cached if possible, else with the network."""
        try:
            return await run_blocking(self.workers.disk, question, revision.offline)
        except NotCached:
            return await run_blocking(self.workers.network, question, revision)

    async def _find(self, path: bytes) -> tuple[Node, Revision]:
        """The node at ``path`` in the revision that is current when the answer is there."""
        while True:
            revision = self.revision
            parent, _, _ = path.rpartition(b"/")
            listing = self._listings.get(parent)
            if listing is None and self._is_swarm(parent):
                listing = await self._list(parent, revision)
            elif listing is None:
                node = await self._ask(lambda r: r.lookup(path), revision)
                listing = {path: node}
            if revision is self.revision:
                if path not in listing:
                    raise PathNotFound("no such file or directory", path=path)
                return listing[path], revision

    def _is_swarm(self, parent: bytes) -> bool:
        seen = self._swarm[parent] = self._swarm.get(parent, 0) + 1
        return seen > LOOKUPS_BEFORE_LISTING

    async def _list(self, path: bytes, revision: Revision) -> dict[bytes, Node]:
        """All entries of a directory by path, hidden ones included; remembered if not too many."""
        listing = self._listings.get(path)
        if listing is not None:
            return listing
        children = await self._ask(lambda r: r.children(path), revision)
        listing = {node.path: node for node in children}
        if revision is self.revision and len(listing) < LISTED_NODES:
            self._listings[path] = listing
        return listing

    # --- entries ---------------------------------------------------------------------------

    def record(self, nodeid: int) -> Record:
        """The record of a nodeid.

        Raises:
            OSError: ESTALE, the kernel should not know it.
        """
        record = self.nodes.get(nodeid)
        if record is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return record

    async def lookup(self, parent: int, name: bytes) -> Record | None:
        """The entry of that name, counted as known to the kernel; None if there is none."""
        self.statistics.lookups += 1
        path = self.record(parent).node.path + b"/" + name
        record = self.nodes.at(path)
        if record is None:
            try:
                node, revision = await self._find(path)
            except PathNotFound:
                return None
            record = self.nodes.add(node, revision)
        record.lookups += 1
        return record

    def forget(self, nodeid: int, count: int) -> None:
        """The kernel takes back ``count`` lookups."""
        self.nodes.forget(nodeid, count)

    def readlink(self, nodeid: int) -> bytes:
        """The target of a symbolic link.

        Raises:
            PathError: it is none.
        """
        record = self.record(nodeid)
        return record.revision.readlink(record.node)

    # --- directories -----------------------------------------------------------------------

    async def opendir(self, nodeid: int) -> int:
        """A handle on a snapshot of the directory."""
        self.statistics.opendirs += 1
        path = self.record(nodeid).node.path
        revision = self.revision
        listing = await self._list(path, revision)
        entries: list[Record | Node] = [node for node in listing.values() if not node.hidden]
        self.statistics.open_directories += 1
        return self._handle(OpenDirectory(entries, revision))

    def entry(self, handle: int, index: int) -> Record | None:
        """Entry number ``index`` of an open directory, None behind the last.

        The caller counts a lookup for each entry that the kernel takes.
        """
        directory = self._handles[handle]
        assert isinstance(directory, OpenDirectory)
        if index >= len(directory.entries):
            return None
        found = directory.entries[index]
        if isinstance(found, Node):
            if directory.revision is self.revision:
                found = self.nodes.add(found, directory.revision)
            else:
                # The kernel must not learn names of a revision that is over as if they were new.
                found = Record(0, found, directory.revision)
            directory.entries[index] = found
        return found

    def releasedir(self, handle: int) -> None:
        """Drop a directory handle."""
        if self._handles.pop(handle, None) is not None:
            self.statistics.open_directories -= 1

    # --- files -----------------------------------------------------------------------------

    async def open(self, nodeid: int, flags: int) -> tuple[int, bool]:
        """A handle on a regular file, and whether the page cache must not be used.

        Raises:
            OSError: EROFS, it is to be written.
        """
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_TRUNC):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        self.statistics.opens += 1
        record = self.record(nodeid)
        node = record.node
        if node.chunked:
            extents = await self._ask(lambda r: r.extents(node), record.revision)
        else:
            extents = record.revision.extents(node)
        self.statistics.open_files += 1
        file = OpenFile(nodeid, node.path, extents, node.size)
        return self._handle(file), node.direct_io

    async def read(self, handle: int, offset: int, size: int) -> bytes | bytearray:
        """At most ``size`` bytes; fewer only at the end of the file."""
        file = self._handles[handle]
        assert isinstance(file, OpenFile)
        statistics = self.statistics
        statistics.reads += 1
        self._read_ahead(file, offset, size)
        data: bytes | bytearray | None = file.try_read(offset, size)
        if data is None:
            store, workers = self.repository.store, self.workers
            data = await run_blocking(workers.disk, self._read_cached, file, offset, size)
            if data is None:
                data = await run_blocking(workers.network, file.read, store, offset, size)
        statistics.bytes_read += len(data)
        return data

    def _read_cached(self, file: OpenFile, offset: int, size: int) -> bytes | None:
        store = self.repository.store
        return None if file.missing(store, offset, size) else file.read(store, offset, size)

    def _read_ahead(self, file: OpenFile, offset: int, size: int) -> None:
        for ref in file.read_ahead(offset, size, self.settings.prefetch_chunks):
            try:
                self.read_ahead_send.send_nowait(ref)
            except trio.WouldBlock:
                return

    async def run_read_ahead(self) -> None:
        """Fetch what sequential readers will want; one of several such tasks."""
        async for ref in self.read_ahead_receive.clone():
            try:
                await run_blocking(self.workers.network, self._fetch_ahead, ref)
            except LazyfsError as exc:
                # The reader will meet the same failure and report it.
                log.info("read-ahead failed: %s", exc)

    def _fetch_ahead(self, ref: ObjectRef) -> None:
        if not self.repository.store.has(ref):
            self.repository.store.open(ref).close()
            self.statistics.prefetched += 1

    def release(self, handle: int) -> None:
        """Drop a file handle."""
        file = self._handles.pop(handle, None)
        if isinstance(file, OpenFile):
            file.close()
            self.statistics.open_files -= 1

    def _handle(self, what: OpenFile | OpenDirectory) -> int:
        number = next(self._handle_numbers)
        self._handles[number] = what
        return number

    # --- attributes ------------------------------------------------------------------------

    async def getxattr(self, nodeid: int, name: bytes, gid: int) -> bytes | None:
        """The value of an extended attribute, None if there is none."""
        record = self.record(nodeid)
        if self._magic.knows(name):
            if not self._magic.may_read(name, gid):
                return None
            return await run_blocking(
                self.workers.control, self._magic.value, name, record.node, record.revision
            )
        if not record.node.has_xattrs:
            return None
        node = record.node
        return (await self._ask(lambda r: r.xattrs(node), record.revision)).get(name)

    async def listxattr(self, nodeid: int) -> list[bytes]:
        """Names of extended attributes; magic ones as the settings say."""
        record = self.record(nodeid)
        node = record.node
        names: list[bytes] = []
        if node.has_xattrs:
            names += await self._ask(lambda r: r.xattrs(node), record.revision)
        return [*names, *self._magic.listed(node, record.revision)]

    async def statfs(self) -> FilesystemUsage:
        """How full the cache is; at most a second old, never waits for the network."""
        now = time.monotonic()
        if self._usage is None or now - self._usage[0] > 1.0:
            usage = await run_blocking(self.workers.control, self._measure)
            self._usage = (now, usage)
        return self._usage[1]

    def _measure(self) -> FilesystemUsage:
        counters = self.revision.counters()
        entries = sum(counters[name] for name in ("regular", "symlink", "special", "dir"))
        return FilesystemUsage(self.repository.cache.usage(), entries)

    # --- failures --------------------------------------------------------------------------

    def failure(self, exc: LazyfsError) -> int:
        """The errno for a failure; counted and logged if it is no ordinary answer."""
        if exc.errno == errno.EIO:
            self.statistics.errors += 1
            self.statistics.last_error = int(time.time())
        if exc.errno in (errno.EIO, errno.ENOSPC):
            text = str(exc)
            now = time.monotonic()
            if now - self._quiet.get(text, -QUIET_SECONDS) >= QUIET_SECONDS:
                self._quiet[text] = now
                log.error("%s: %s", errno.errorcode[exc.errno], text)
        return exc.errno

    # --- revisions -------------------------------------------------------------------------

    def switch(self, revision: Revision) -> None:
        """Answer from ``revision`` from now on; the caller moves the node table as well."""
        self.revision = revision
        self._listings.clear()
        self._swarm.clear()
        self._usage = None

    async def detach_nested(self) -> None:
        """Let go of nested catalogs and prepared directories."""
        self._listings.clear()
        await run_blocking(self.workers.control, self.revision.detach_nested)
