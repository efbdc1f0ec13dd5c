"""`Filesystem`: a repository as a file system, ready to be carried by a FUSE binding.

Used by one event loop. What runs in it, what is shared and what an await may change is written
down in ``docs/explanation/concurrency.md``.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import cast

import trio

from lazyfs.config.settings import MountSettings
from lazyfs.fuse.blocking import Workers, run_blocking
from lazyfs.fuse.failures import FailureLog
from lazyfs.fuse.kernel import Kernel, NoKernel
from lazyfs.fuse.lease import LiveRevision
from lazyfs.fuse.log_buffer import LogBuffer
from lazyfs.fuse.nodes import NodeTable
from lazyfs.fuse.operations import Operations
from lazyfs.fuse.ownership import Ownership
from lazyfs.fuse.refresh import Follower, RemountResult
from lazyfs.fuse.statistics import Statistics
from lazyfs.fuse.tree import FOREVER, LiveTree
from lazyfs.fuse.trim import Trimmer
from lazyfs.fuse.usage import FilesystemUsage, UsageMeter
from lazyfs.fuse.xattrs import Xattrs
from lazyfs.repository.repository import Repository
from lazyfs.repository.revision import Revision

log = logging.getLogger("lazyfs.fuse")


class Filesystem:
    """A repository as a file system: requests, refreshing, and facts about both.

    Make it before the event loop serves anything: reading the root waits for the disk.

    Args:
        repository: Open; not closed here, and closed only after this.
        settings: How it shows itself.

    Raises:
        ConfigError: an owner map cannot be used.
    """

    def __init__(self, repository: Repository, settings: MountSettings) -> None:
        self.repository: Repository = repository
        self.settings: MountSettings = settings
        self.workers = Workers()
        self.statistics: Statistics = Statistics()
        self.ownership = Ownership.from_settings(settings)
        self.log_buffer: LogBuffer = LogBuffer()
        self.kernel: Kernel = NoKernel()
        """Set by the transport that carries the requests."""
        self.device = ""
        """``major:minor`` of the mount, set by the transport too."""
        self.failures = FailureLog(self.statistics)
        self._idle: list[LiveRevision] = []
        self._has_idle = trio.Event()
        self.tree = LiveTree(
            repository.current,
            repository.current.lookup(b""),
            self.workers,
            FOREVER if repository.settings.revision.is_fixed else settings.kcache_timeout,
            self._retire,
        )
        self.follower = Follower(self)
        self.operations = Operations(
            self.tree,
            repository.store,
            self.workers,
            self.failures,
            self.statistics,
            ahead=settings.prefetch_chunks,
        )
        self.trimmer = Trimmer(self)
        self.xattrs = Xattrs(self)
        self._usage = UsageMeter()

    # --- facts -----------------------------------------------------------------------------

    @property
    def revision(self) -> Revision:
        """The revision that is shown."""
        return cast("Revision", self.tree.lease.view)

    @property
    def nodes(self) -> NodeTable:
        """What the kernel knows."""
        return self.tree.table

    def expires_in(self) -> float | None:
        """Seconds to the next look for a new revision; None: the mount does not look."""
        return self.follower.expires_in()

    async def usage(self) -> FilesystemUsage:
        """What ``statfs`` tells: at most a second old, and it never waits for the network."""
        recent = self._usage.recent
        if recent is not None:
            return recent
        lease = self.tree.lease.acquire()
        try:
            return await run_blocking(
                self.workers.control, self._usage.measure, self.repository.cache, self.revision
            )
        finally:
            lease.release()

    # --- orders ----------------------------------------------------------------------------

    async def remount(self) -> RemountResult:
        """Look for a new revision now, and show it if there is one. Failure changes nothing."""
        return await self.follower.remount()

    async def detach_nested(self) -> None:
        """Let go of nested catalogs and prepared directories; all come back when needed."""
        self.tree.listings.clear()
        await run_blocking(self.workers.control, self.revision.detach_nested)

    # --- life cycle ------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the repository, fetch ahead and close what is over, until cancelled."""
        cache = self.repository.cache
        token = trio.lowlevel.current_trio_token()
        cache.relieve_with(lambda: _run_in(token, self.operations.pool.close_idle))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.follower.run)
                nursery.start_soon(self.operations.prefetcher.run)
                nursery.start_soon(self.tree.run)
                nursery.start_soon(self.trimmer.run)
                nursery.start_soon(self._close_idle)
                task_status.started()
        finally:
            cache.relieve_with(None)

    def _retire(self, revision: LiveRevision) -> None:
        self._idle.append(revision)
        self._has_idle.set()

    async def _close_idle(self) -> None:
        while True:
            await self._has_idle.wait()
            self._has_idle = trio.Event()
            while self._idle:
                await run_blocking(self.workers.control, self._idle.pop().close)

    def close(self) -> None:
        """Let go of all handles, and of the revisions that nobody needs any more."""
        self.operations.close()
        while self._idle:
            self._idle.pop().close()


def _run_in(token: trio.lowlevel.TrioToken, work: Callable[[], None]) -> None:
    """Have an event loop run ``work``, and wait for that; nothing if the loop has ended."""
    with contextlib.suppress(trio.RunFinishedError):
        trio.from_thread.run_sync(work, trio_token=token)
