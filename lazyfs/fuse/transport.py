"""The pyfuse3 transport: carries the kernel's requests to a `Filesystem` and its answers back.

Nothing but this module and `lazyfs.fuse.session` knows pyfuse3.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ReaddirToken,
    RequestContext,
    StatvfsData,
    XAttrNameT,
)

from lazyfs.errors import LazyfsError
from lazyfs.fuse.filesystem import Filesystem
from lazyfs.fuse.nodes import Record

log = logging.getLogger("lazyfs.fuse")

BLOCK_BYTES = 512
"""Unit of ``st_blocks`` and of ``statfs``, as upstream."""

PREFERRED_BYTES = 4096


@contextlib.asynccontextmanager
async def answering(filesystem: Filesystem) -> AsyncIterator[None]:
    """Turn every failure into an errno: the one border between errors and the kernel."""
    try:
        yield
    except FUSEError:
        raise
    except LazyfsError as exc:
        raise FUSEError(filesystem.failure(exc)) from exc
    except OSError as exc:
        raise FUSEError(exc.errno or errno.EIO) from exc
    except Exception as exc:
        # The outermost loop of the mount: a defect must give EIO, not a dead mount.
        log.exception("unexpected failure, please report it")
        raise FUSEError(errno.EIO) from exc


class Pyfuse3Transport(pyfuse3.Operations):
    """Requests of one mount."""

    enable_writeback_cache = False
    enable_acl = False
    supports_dot_lookup = True

    def __init__(self, filesystem: Filesystem) -> None:
        super().__init__()
        self._filesystem = filesystem

    # --- attributes ------------------------------------------------------------------------

    def _attributes(self, record: Record) -> EntryAttributes:
        if record.reply is None:
            record.reply = self._make_attributes(record)
        assert isinstance(record.reply, EntryAttributes)
        return record.reply

    def _make_attributes(self, record: Record) -> EntryAttributes:
        node, ownership = record.node, self._filesystem.ownership
        entry = EntryAttributes()
        entry.st_ino = InodeT(record.nodeid)
        entry.generation = 0
        entry.entry_timeout = entry.attr_timeout = self._filesystem.timeout
        entry.st_mode = ownership.mode(node)
        entry.st_nlink = node.nlink
        entry.st_uid, entry.st_gid = ownership.owner(node)
        entry.st_rdev = node.rdev
        entry.st_size = node.size
        if node.is_symlink:
            entry.st_size = len(record.revision.readlink(node))
        entry.st_blksize = PREFERRED_BYTES
        entry.st_blocks = 1 + node.size // BLOCK_BYTES
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = node.mtime_ns
        return entry

    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        """The entry of that name, or a negative one that the kernel may remember."""
        async with answering(self._filesystem):
            record = await self._filesystem.lookup(parent_inode, name)
            if record is not None:
                return self._attributes(record)
            return self._missing(parent_inode, name)

    def _missing(self, parent: InodeT, name: FileNameT) -> EntryAttributes:
        if not self._filesystem.nodes.note_negative(parent, name):
            raise FUSEError(errno.ENOENT)
        entry = EntryAttributes()
        entry.st_ino = InodeT(0)
        entry.entry_timeout = self._filesystem.timeout
        return entry

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        """Attributes of a node the kernel knows; never waits."""
        async with answering(self._filesystem):
            return self._attributes(self._filesystem.record(inode))

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """The kernel takes lookups back."""
        for inode, count in inode_list:
            self._filesystem.forget(inode, count)

    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        """The expanded target."""
        async with answering(self._filesystem):
            return FileNameT(self._filesystem.readlink(inode))

    # --- directories -----------------------------------------------------------------------

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        """A snapshot of the directory."""
        async with answering(self._filesystem):
            return FileHandleT(await self._filesystem.opendir(inode))

    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        """Names with attributes, until the kernel's buffer is full."""
        async with answering(self._filesystem):
            index = start_id
            while (record := self._filesystem.entry(fh, index)) is not None:
                index += 1
                name = FileNameT(record.node.name)
                if not pyfuse3.readdir_reply(token, name, self._attributes(record), index):
                    break
                record.lookups += 1

    async def releasedir(self, fh: FileHandleT) -> None:
        """Drop the snapshot."""
        self._filesystem.releasedir(fh)

    # --- files -----------------------------------------------------------------------------

    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        """A handle; the page cache stays, because a nodeid never changes its content."""
        async with answering(self._filesystem):
            handle, direct_io = await self._filesystem.open(inode, flags)
            return FileInfo(fh=FileHandleT(handle), direct_io=direct_io, keep_cache=not direct_io)

    async def read(self, fh: FileHandleT, off: int, size: int) -> Any:
        """Bytes of an open file."""
        async with answering(self._filesystem):
            return await self._filesystem.read(fh, off, size)

    async def release(self, fh: FileHandleT) -> None:
        """Drop the handle."""
        self._filesystem.release(fh)

    # --- the rest --------------------------------------------------------------------------

    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        """A stored or a magic attribute."""
        async with answering(self._filesystem):
            gid = _group_of(ctx.pid, ctx.gid)
            value = await self._filesystem.getxattr(inode, name, gid)
            if value is None:
                raise FUSEError(pyfuse3.ENOATTR)
            return value

    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        """Names of attributes."""
        async with answering(self._filesystem):
            return [XAttrNameT(name) for name in await self._filesystem.listxattr(inode)]

    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        """How full the cache is; all zero for a cache without a quota."""
        async with answering(self._filesystem):
            usage = await self._filesystem.statfs()
            limit = usage.cache.limit or 0
            data = StatvfsData()
            data.f_bsize = data.f_frsize = BLOCK_BYTES
            data.f_blocks = limit // BLOCK_BYTES
            data.f_bfree = data.f_bavail = max(0, limit - usage.cache.used) // BLOCK_BYTES
            data.f_files = usage.entries
            data.f_ffree = data.f_favail = 0
            data.f_namemax = 255
            return data


def _group_of(pid: int, gid: int) -> int:
    return gid if pid else 0


class Pyfuse3Invalidator:
    """Tells the kernel what to forget. The calls block; they run in worker threads."""

    def invalidate_entry(self, parent: int, name: bytes) -> None:
        """Forget a name in a directory, present or missing."""
        with contextlib.suppress(OSError):
            pyfuse3.invalidate_entry(InodeT(parent), FileNameT(name))

    def invalidate_attributes(self, nodeid: int) -> None:
        """Forget the attributes of a node."""
        with contextlib.suppress(OSError):
            pyfuse3.invalidate_inode(InodeT(nodeid), attr_only=True)
