"""`LiveTree`: the tree as the mount shows it now, and its passage from revision to revision."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import trio
from cachetools import LRUCache

from lazyfs.errors import FormatError, LazyfsError, NotCached, PathNotFound
from lazyfs.fuse.blocking import Workers, run_blocking
from lazyfs.fuse.directories import Listing, Listings
from lazyfs.fuse.errnos import Answer, Refusal
from lazyfs.fuse.lease import Lease, LiveRevision
from lazyfs.fuse.negatives import Negatives
from lazyfs.fuse.nodes import Known, NodeTable
from lazyfs.repository.node import Node

T = TypeVar("T")

log = logging.getLogger("lazyfs.fuse")

FOREVER = 365.0 * 86400
"""Seconds that the kernel may answer by itself where nothing can change."""

SINGLE_LOOKUPS = 3
"""Lookups in a directory before it is read as a whole."""

NEVER = -(1 << 62)
"""Stands for lookups in a directory that is too large to be kept."""

WATCHED_DIRECTORIES = 1024
"""Directories of which such lookups are counted, and whose last opened subdirectory is known."""

AHEAD = 2
"""Directories that are kept read ahead of a walk."""


class LiveTree:
    """The current revision, what the kernel knows of it, and what is prepared for it.

    Touched by the event loop alone. Whatever a method does between two awaits is seen whole: a
    request sees one revision, because the revision changes in `apply`, which has no await.

    Args:
        revision: The revision to begin with.
        root: Its root directory.
        workers: Where blocking happens.
        timeout: Seconds that the kernel may answer by itself.
        on_idle: Gets each revision that nobody needs any more, to be closed.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        revision: LiveRevision,
        root: Node,
        workers: Workers,
        timeout: float,
        on_idle: Callable[[LiveRevision], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workers = workers
        self._timeout = timeout
        self._on_idle = on_idle
        self.lease = Lease(revision, on_idle)
        self.table = NodeTable(root)
        self._singles: LRUCache[bytes, int] = LRUCache(WATCHED_DIRECTORIES)
        self._opened: LRUCache[bytes, bytes] = LRUCache(WATCHED_DIRECTORIES)
        self._offer, self._offered = trio.open_memory_channel[Node](1)
        self._coming: tuple[bytes, trio.Event] | None = None
        self.listings = Listings()
        self.negatives = Negatives(clock)
        self.draining = False
        """While a new revision is coming: nothing that is told may be remembered."""

    @property
    def timeout(self) -> float:
        """Seconds that the kernel may remember what it is told now."""
        return 0.0 if self.draining else self._timeout

    def timeout_of(self, known: Known) -> float:
        """The same for one node: what belongs to a superseded revision is not remembered."""
        return 0.0 if self.draining or known.lease is not None or known.stale else self._timeout

    # --- nodes by number -------------------------------------------------------------------

    def known(self, nodeid: int) -> Known:
        """The node with that number.

        Raises:
            Refusal: the kernel should not know it.
        """
        found = self.table.get(nodeid)
        if found is None:
            raise Refusal(Answer.STALE)
        return found

    async def settled(self, nodeid: int) -> Known:
        """The node with that number; a directory as it is in the current revision.

        Raises:
            Refusal: its path is no more, or no directory any more.
            LazyfsError: a catalog cannot be loaded.
        """
        known = self.known(nodeid)
        while known.stale:
            node = await self.find(known.node.path)
            if node is None or not node.is_dir:
                raise Refusal(Answer.STALE)
            if known.stale:
                self.table.renew(known, node)
        return known

    # --- the current revision --------------------------------------------------------------

    async def find(self, path: bytes) -> Node | None:
        """The entry at ``path``, None if there is none.

        Raises:
            LazyfsError: a catalog cannot be loaded.
        """
        while True:
            parent = path.rpartition(b"/")[0]
            listing = await self._prepared(parent) if path else None
            if listing is not None:
                return listing.find(path)
            lease = self.lease
            node = await self.ask(lease, _find, path)
            if lease is self.lease:
                return node

    async def _prepared(self, directory: bytes) -> Listing | None:
        """The directory's entries if they are at hand, or if it is worth the effort.

        Single lookups come in swarms: after a few, the directory is read as a whole.
        """
        listing = self.listings.get(directory)
        if listing is not None:
            return listing
        seen = self._singles[directory] = self._singles.get(directory, 0) + 1
        if seen <= SINGLE_LOOKUPS:
            return None
        try:
            return await self.listing(directory)
        except FormatError:
            # One bad entry does not take the others with it: they can be looked up singly.
            self._singles[directory] = NEVER
            return None

    async def listing(self, path: bytes, directory: Node | None = None) -> Listing:
        """The entries of a directory.

        Args:
            path: Where it is.
            directory: Its node, where it is at hand: reading may then be quicker.

        Raises:
            LazyfsError: it is none, or a catalog cannot be loaded.
        """
        while True:
            found = self.listings.get(path)
            if found is not None:
                return found
            if self._coming is not None and self._coming[0] == path:
                await self._coming[1].wait()
                continue
            if directory is not None and self._list_in_passing(directory):
                continue
            directory = None
            lease = self.lease
            found = await self.ask(lease, _list, path)
            if lease is self.lease:
                if not self.listings.put(found):
                    self._singles[path] = NEVER
                return found

    async def ask(
        self, lease: Lease, question: Callable[[LiveRevision, bytes], T], path: bytes
    ) -> T:
        """What a revision says, from cached catalogs if they suffice.

        Raises:
            LazyfsError: as ``question``.
        """
        lease.acquire()
        try:
            try:
                return await run_blocking(self._workers.disk, question, lease.cached, path)
            except NotCached:
                return await run_blocking(self._workers.catalogs, question, lease.view, path)
        finally:
            lease.release()

    # --- walks -----------------------------------------------------------------------------

    def look_ahead(self, path: bytes) -> None:
        """A directory was told: if this looks like a walk, have a next one read meanwhile."""
        above = path.rpartition(b"/")[0]
        parent = self.listings.get(above) if path else None
        if parent is None:
            return
        following = parent.next_directories(path, self._opened.get(above), AHEAD)
        self._opened[above] = path
        missing = next((p for p in following if self.listings.get(p) is None), None)
        node = parent.find(missing) if missing is not None else None
        if node is not None:
            with contextlib.suppress(trio.WouldBlock):
                self._offer.send_nowait(node)

    async def run(self) -> None:
        """Read directories ahead until cancelled. No server is asked for it."""
        async for node in self._offered:
            if self.listings.get(node.path) is None and not self._list_in_passing(node):
                await self._list_ahead(node.path)

    def _list_in_passing(self, directory: Node) -> bool:
        """Whether a directory could be read here and now, because its catalog is in memory.

        A client looks at one directory for as long as it takes to read the next one. A thread
        would compete with the loop for the interpreter just when the next request comes.
        """
        try:
            children = self.lease.cached.children_now(directory)
        except LazyfsError:
            return False
        if children is not None:
            self.listings.put(Listing(directory.path, children))
        return children is not None

    async def _list_ahead(self, path: bytes) -> None:
        self._coming = path, trio.Event()
        lease = self.lease.acquire()
        try:
            found = await run_blocking(self._workers.disk, _list, lease.cached, path)
            if lease is self.lease:
                self.listings.put(found)
        except (LazyfsError, OSError) as exc:
            log.debug("not read ahead: %r: %s", path, exc)
        finally:
            lease.release()
            self._coming[1].set()
            self._coming = None

    # --- another revision ------------------------------------------------------------------

    def apply(self, revision: LiveRevision, kept: Mapping[int, Node]) -> None:
        """Show another revision from now on; see `NodeTable.apply`."""
        old, self.lease = self.lease, Lease(revision, self._on_idle)
        self.listings.clear()
        self._singles.clear()
        self._opened.clear()
        self.table.apply(kept, old)
        self.draining = False
        old.release()


def _find(view: LiveRevision, path: bytes) -> Node | None:
    try:
        return view.lookup(path)
    except PathNotFound:
        return None


def _list(view: LiveRevision, path: bytes) -> Listing:
    return Listing(path, view.children(path))
