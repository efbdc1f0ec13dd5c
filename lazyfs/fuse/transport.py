"""The pyfuse3 transport: carries the kernel's requests to a `Filesystem` and its answers back.

Nothing but this module and `lazyfs.fuse.session` knows pyfuse3.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Sequence

import pyfuse3
import trio
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
from lazyfs.fuse.errnos import Refusal
from lazyfs.fuse.filesystem import Filesystem
from lazyfs.fuse.kernel import NoKernel
from lazyfs.fuse.nodes import Known
from lazyfs.repository.pathhash import MAX_NAME_BYTES

log = logging.getLogger("lazyfs.fuse")

BLOCK_BYTES = 512
"""Unit of ``st_blocks`` and of ``statfs``, as upstream."""

PREFERRED_BYTES = 4096

EXPECTED = (Refusal, LazyfsError, OSError)
"""What a request may end in; anything else is a defect, and shown with its traceback."""


class Pyfuse3Transport(pyfuse3.Operations):
    """Requests of one mount. pyfuse3 ends the mount at any exception that is no `FUSEError`."""

    enable_writeback_cache = False
    enable_acl = False
    supports_dot_lookup = True

    def __init__(self, filesystem: Filesystem) -> None:
        super().__init__()
        self._filesystem = filesystem
        self._operations = filesystem.operations
        self._tree = filesystem.tree
        self._ownership = filesystem.ownership
        self._as_published = filesystem.ownership.is_identity
        self.initialised = trio.Event()
        """Set when the kernel has sent its first request."""
        self.no_kernel = NoKernel()

    def init(self) -> None:
        """The kernel and libfuse have agreed on what they can do."""
        self.initialised.set()

    def _error(self, request: str, inode: int, error: Exception) -> FUSEError:
        """The answer to a request that ended in ``error``."""
        if not isinstance(error, EXPECTED):
            log.exception("unexpected failure in %s, please report it", request)
        return FUSEError(self._operations.refuse(request, inode, error))

    # --- attributes ------------------------------------------------------------------------

    def _attributes(self, known: Known) -> EntryAttributes:
        node = known.node
        entry = EntryAttributes()
        entry.st_ino = known.nodeid
        entry.entry_timeout = entry.attr_timeout = self._tree.timeout_of(known)
        if self._as_published:
            entry.st_mode, entry.st_uid, entry.st_gid = node.mode, node.uid, node.gid
        else:
            entry.st_mode = self._ownership.mode(node)
            entry.st_uid, entry.st_gid = self._ownership.owner(node)
        entry.st_nlink = node.nlink
        entry.st_rdev = node.rdev
        entry.st_size = size = self._operations.shown_size(known) if node.symlink else node.size
        entry.st_blksize = PREFERRED_BYTES
        entry.st_blocks = 1 + size // BLOCK_BYTES
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = node.mtime_ns
        return entry

    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        """The entry of that name, or a negative one that the kernel may remember."""
        try:
            known = await self._operations.lookup(parent_inode, name)
        except Exception as exc:
            raise self._error("lookup", parent_inode, exc) from None
        if known is not None:
            return self._attributes(known)
        entry = EntryAttributes()
        entry.st_ino = 0
        entry.entry_timeout = self._operations.may_cache_absence(parent_inode, name)
        return entry

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        """Attributes of a node the kernel knows."""
        try:
            return self._attributes(await self._operations.getattr(inode))
        except Exception as exc:
            raise self._error("getattr", inode, exc) from None

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """The kernel takes lookups back."""
        self._operations.forget(inode_list)

    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        """The expanded target."""
        try:
            return self._operations.readlink(inode)
        except Exception as exc:
            raise self._error("readlink", inode, exc) from None

    # --- directories -----------------------------------------------------------------------

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        """A snapshot of the directory."""
        try:
            return await self._operations.opendir(inode)
        except Exception as exc:
            raise self._error("opendir", inode, exc) from None

    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        """Names with attributes, until the kernel's buffer is full."""
        operations = self._operations
        try:
            directory = operations.directory(fh)
            for index, name, nodeid in directory.dots(start_id):
                if not pyfuse3.readdir_reply(token, name, _dot(nodeid), index):
                    return
            reply, attributes = pyfuse3.readdir_reply, self._attributes
            for index, name, known in operations.entries(directory, start_id):
                if not reply(token, name, attributes(known), index):
                    operations.tree.table.discard(known)
                    return
                known.lookups += 1
            if start_id == 0:
                self._tree.look_ahead(directory.listing.path)
        except Exception as exc:
            raise self._error("readdir", 0, exc) from None

    async def releasedir(self, fh: FileHandleT) -> None:
        """Drop the snapshot."""
        self._operations.releasedir(fh)

    # --- files -----------------------------------------------------------------------------

    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        """A handle; the page cache stays, because a nodeid never changes its content."""
        try:
            opened = await self._operations.open(inode, flags)
        except Exception as exc:
            raise self._error("open", inode, exc) from None
        return FileInfo(
            fh=opened.handle, direct_io=opened.direct_io, keep_cache=not opened.direct_io
        )

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        """Bytes of an open file."""
        try:
            # pyfuse3 takes any buffer; a copy to bytes would cost as much as the read.
            return await self._operations.read(fh, off, size)  # type: ignore[return-value]
        except Exception as exc:
            if not isinstance(exc, EXPECTED):
                log.exception("unexpected failure in read, please report it")
            raise FUSEError(self._operations.refuse_read(fh, exc)) from None

    async def release(self, fh: FileHandleT) -> None:
        """Drop the handle."""
        self._operations.release(fh)

    # --- the rest --------------------------------------------------------------------------

    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        """A stored or a magic attribute."""
        try:
            return await self._filesystem.xattrs.get(inode, name, ctx.gid)
        except Exception as exc:
            raise self._error("getxattr", inode, exc) from None

    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        """Names of attributes."""
        try:
            return await self._filesystem.xattrs.names(inode)
        except Exception as exc:
            raise self._error("listxattr", inode, exc) from None

    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        """How full the cache is; all zero for a cache without a quota."""
        try:
            usage = await self._filesystem.usage()
        except Exception as exc:
            raise self._error("statfs", pyfuse3.ROOT_INODE, exc) from None
        limit = usage.cache.limit or 0
        data = StatvfsData()
        data.f_bsize = data.f_frsize = BLOCK_BYTES
        data.f_blocks = limit // BLOCK_BYTES
        data.f_bfree = data.f_bavail = max(0, limit - usage.cache.used) // BLOCK_BYTES
        data.f_files = usage.entries
        data.f_ffree = data.f_favail = usage.entries_unseen
        data.f_namemax = MAX_NAME_BYTES
        return data


def _dot(nodeid: int) -> EntryAttributes:
    """What a listing tells of ``.`` and ``..``: their numbers; the kernel ignores all else."""
    entry = EntryAttributes()
    entry.st_ino = nodeid
    entry.st_mode = 0o040755
    entry.entry_timeout = entry.attr_timeout = 0
    return entry


class Pyfuse3Kernel:
    """Tells the kernel what to forget. The calls block; they run in worker threads."""

    def drop_entry(self, parent: int, name: bytes) -> None:
        """Forget a name in a directory, present or missing."""
        _tell(lambda: pyfuse3.invalidate_entry(parent, name))

    def drop_attributes(self, nodeid: int) -> None:
        """Forget the attributes of a node."""
        _tell(lambda: pyfuse3.invalidate_inode(nodeid, attr_only=True))


def _tell(notify: Callable[[], None]) -> None:
    """Send a notification; the kernel need not know what it is about."""
    try:
        notify()
    except OSError as exc:
        if exc.errno not in (errno.ENOENT, errno.ENOTDIR):
            log.warning("the kernel refuses a notification: %s", exc)
