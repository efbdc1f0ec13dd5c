"""Following a repository: a new revision appears in the mount without remounting.

Directories keep their nodeid as long as they are directories, whatever happens in them: a process
may stand in one, or have one bound elsewhere. Any other node keeps its nodeid only while metadata
and content stay the same; a changed path gets a new nodeid, so that open files keep their bytes
and the page cache of one nodeid never holds two contents.
"""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from lazyfs.errors import LazyfsError
from lazyfs.fuse.blocking import run_blocking
from lazyfs.fuse.changes import Changes, KnownPaths, compare
from lazyfs.fuse.kernel import Kernel
from lazyfs.repository.revision import Revision

if TYPE_CHECKING:
    from lazyfs.fuse.filesystem import Filesystem

log = logging.getLogger("lazyfs.fuse")

RETRY_SECONDS = 180.0
"""After a failed look for a new revision (upstream: ``cvmfs.cc``)."""

SHORTEST_TTL = 1.0
"""Seconds between two looks, whatever a catalog says."""


class RemountOutcome(enum.Enum):
    """How a look for a new revision ended."""

    UP_TO_DATE = "up to date"
    APPLIED = "new revision applied"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RemountResult:
    """How a look for a new revision ended, and why it failed if it did."""

    outcome: RemountOutcome
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.outcome.value}: {self.reason}" if self.reason else self.outcome.value


class Follower:
    """Keeps a mount at the newest revision; one a mount.

    Args:
        filesystem: The mount.
        clock: Seconds, monotonic.
    """

    def __init__(self, filesystem: Filesystem, clock: Callable[[], float] = time.monotonic) -> None:
        self._filesystem = filesystem
        self._repository = filesystem.repository
        self._tree = filesystem.tree
        self._workers = filesystem.workers
        self._clock = clock
        self._lock = trio.Lock()
        self._rescheduled = trio.Event()
        self._max_ttl = filesystem.settings.max_ttl
        is_fixed = self._repository.settings.revision.is_fixed
        self.follows = filesystem.settings.auto_update and not is_fixed
        """Whether the mount looks for new revisions by itself."""
        wait = min(RETRY_SECONDS, self._ttl) if self._repository.offline_reason else self._ttl
        self._next = clock() + wait

    @property
    def _ttl(self) -> float:
        """Seconds between two looks for a new revision."""
        ttl = float(self._tree.lease.view.ttl)
        return max(SHORTEST_TTL, min(ttl, self._max_ttl) if self._max_ttl else ttl)

    @property
    def max_ttl(self) -> int:
        """Seconds, cap on the TTL; 0: none."""
        return self._max_ttl

    def set_max_ttl(self, seconds: int) -> None:
        """Cap the TTL from now on; 0: no cap."""
        self._max_ttl = seconds
        self._schedule(self._ttl)

    def expires_in(self) -> float | None:
        """Seconds to the next look; None: there will be none."""
        return max(0.0, self._next - self._clock()) if self.follows else None

    async def run(self) -> None:
        """Look whenever the time to live is over, until cancelled."""
        while self.follows:
            self._rescheduled = trio.Event()
            with trio.move_on_after(max(0.0, self._next - self._clock())) as waiting:
                await self._rescheduled.wait()
            if waiting.cancelled_caught:
                await self.remount()

    async def remount(self) -> RemountResult:
        """Look for a new revision now, and show it if there is one. Failure changes nothing."""
        async with self._lock:
            try:
                revision = await run_blocking(self._workers.control, self._repository.refresh)
                if revision is not None:
                    await self._take_over(revision)
            except LazyfsError as exc:
                shown = self._tree.lease.view.number
                log.warning("%s stays at revision %d: %s", self._repository.fqrn, shown, exc)
                self._schedule(min(RETRY_SECONDS, self._ttl))
                return RemountResult(RemountOutcome.FAILED, str(exc))
            self._schedule(self._ttl)
        if revision is None:
            return RemountResult(RemountOutcome.UP_TO_DATE)
        return RemountResult(RemountOutcome.APPLIED)

    def _schedule(self, seconds: float) -> None:
        self._next = self._clock() + seconds
        self._rescheduled.set()

    # --- taking over -----------------------------------------------------------------------

    async def _take_over(self, revision: Revision) -> None:
        """Show ``revision`` from now on.

        While it is prepared the kernel may remember nothing that it is told, and at the end it has
        forgotten all that will be different: nobody can see the old revision once somebody has
        seen the new one, except through what is open.
        """
        filesystem, tree = self._filesystem, self._tree
        current = filesystem.revision
        old = tree.lease.acquire()
        tree.draining = True
        try:
            known = [KnownPaths(k.nodeid, k.node, k.paths) for k in tree.table.current()]
            changes = await run_blocking(self._workers.catalogs, compare, current, revision, known)
            entries = self._forgotten(changes)
            await run_blocking(
                self._workers.kernel, _tell, filesystem.kernel, entries, changes.attributes
            )
        except BaseException:
            revision.close()
            raise
        else:
            # No await from here to the end: the new revision appears at once.
            self._repository.adopt(revision)
            tree.apply(revision, changes.kept)
            filesystem.statistics.remounts += 1
            log.info("%s switched to revision %d", self._repository.fqrn, revision.number)
        finally:
            tree.draining = False
            old.release()

    def _forgotten(self, changes: Changes) -> list[tuple[int, bytes]]:
        """The names, present or missing, that the kernel must forget."""
        entries = self._tree.negatives.take()
        for path in changes.entries:
            parent, _, name = path.rpartition(b"/")
            directory = self._tree.table.at(parent)
            if directory is not None:
                entries.append((directory.nodeid, name))
        return entries


def _tell(kernel: Kernel, entries: list[tuple[int, bytes]], attributes: list[int]) -> None:
    """Make the kernel forget; blocks while requests on the directories are under way."""
    for parent, name in entries:
        kernel.drop_entry(parent, name)
    for nodeid in attributes:
        kernel.drop_attributes(nodeid)
