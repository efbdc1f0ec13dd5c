"""Following a repository: a new revision appears in the mount without remounting.

Directories keep their nodeid as long as they are directories, whatever happens in them: a process
may stand in one. Any other node keeps its nodeid only while metadata and content stay the same; a
changed path gets a new nodeid, so that open files keep their bytes and the page cache of one
nodeid never holds two contents.
"""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import trio

from lazyfs.errors import LazyfsError, PathNotFound
from lazyfs.fuse.blocking import run_blocking
from lazyfs.fuse.filesystem import Filesystem
from lazyfs.fuse.nodes import ROOT_ID, Record
from lazyfs.repository.node import Node
from lazyfs.repository.revision import Revision

log = logging.getLogger("lazyfs.fuse")

RETRY_SECONDS = 180.0
"""After a failed look for a new revision (upstream: ``cvmfs.cc``)."""


class RemountResult(enum.Enum):
    """What a look for a new revision came to."""

    UP_TO_DATE = "Catalog up to date"
    APPLIED = "New revision applied"
    FAILED = "Failed"


class Invalidator(Protocol):
    """Makes the kernel forget. Blocking; never called from a handler."""

    def invalidate_entry(self, parent: int, name: bytes) -> None:
        """Forget a name in a directory, present or missing."""

    def invalidate_attributes(self, nodeid: int) -> None:
        """Forget the attributes of a node."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of the nodes that the kernel knows."""

    kept: Mapping[bytes, Node]
    """Nodeids that stay, with what they stand for from now on."""


def make_plan(known: Mapping[bytes, Record], new: Revision) -> Plan:
    """Compare what the kernel knows with ``new``; blocks on the disk and the network."""
    kept: dict[bytes, Node] = {}
    for path, record in known.items():
        try:
            node = new.lookup(path)
            if keeps_nodeid(record, node, new):
                kept[path] = node
        except PathNotFound:
            continue
        except LazyfsError as exc:
            # What cannot be compared is asked for again when somebody wants it.
            log.info("not compared: %s", exc)
    return Plan(kept)


def keeps_nodeid(record: Record, node: Node, new: Revision) -> bool:
    """Whether ``node`` may go under the nodeid of ``record``."""
    old = record.node
    if old.is_dir or node.is_dir:
        return old.is_dir and node.is_dir
    if _comparable(old) != _comparable(node):
        return False
    if not old.chunked:
        return True
    before, after = record.revision.extents(old), new.extents(node)
    return [e.ref.digest for e in before] == [e.ref.digest for e in after]


def _comparable(node: Node) -> Node:
    """``node`` without what may change although the file stays the same."""
    return replace(node, catalog=b"", hardlink_group=0)


class Follower:
    """Looks for new revisions and applies them; one a mount.

    Args:
        filesystem: The mount.
        invalidator: The transport's way to the kernel.
    """

    def __init__(self, filesystem: Filesystem, invalidator: Invalidator) -> None:
        self._filesystem = filesystem
        self._invalidator = invalidator
        self._lock = trio.Lock()

    def _ttl(self) -> float:
        ttl = self._filesystem.revision.ttl
        cap = self._filesystem.settings.max_ttl
        return max(1.0, min(ttl, cap) if cap else ttl)

    async def run(self) -> None:
        """Look whenever the time to live is over; for ever."""
        filesystem = self._filesystem
        if filesystem.repository.settings.revision.is_fixed or not filesystem.settings.auto_update:
            return
        wait = self._ttl() if not filesystem.repository.offline_reason else RETRY_SECONDS
        while True:
            filesystem.next_refresh = time.time() + wait
            await trio.sleep(wait)
            result = await self.remount()
            wait = RETRY_SECONDS if result is RemountResult.FAILED else self._ttl()

    async def remount(self) -> RemountResult:
        """Look for a new revision now, and apply it. Failure is logged and changes nothing."""
        async with self._lock:
            filesystem = self._filesystem
            try:
                revision = await run_blocking(
                    filesystem.workers.network, filesystem.repository.refresh
                )
            except LazyfsError as exc:
                log.warning(
                    "no newer revision could be had, staying at %d: %s",
                    filesystem.revision.number,
                    exc,
                )
                return RemountResult.FAILED
            if revision is None:
                return RemountResult.UP_TO_DATE
            await self._apply(revision)
            return RemountResult.APPLIED

    async def _apply(self, revision: Revision) -> None:
        filesystem = self._filesystem
        known = filesystem.nodes.paths()
        plan = await run_blocking(filesystem.workers.network, make_plan, known, revision)
        # From here to the end of _move there is no await: nobody sees half of it.
        filesystem.repository.adopt(revision)
        filesystem.switch(revision)
        entries, attributes = self._move(plan, revision)
        filesystem.statistics.remounts += 1
        log.info("switched to catalog revision %d", revision.number)
        await run_blocking(filesystem.workers.control, self._invalidate, entries, attributes)

    def _move(self, plan: Plan, revision: Revision) -> tuple[list[tuple[int, bytes]], list[int]]:
        """Move the node table; the names and the nodeids that the kernel must forget."""
        nodes = self._filesystem.nodes
        known = nodes.paths()
        entries = list(nodes.take_negative())
        attributes: list[int] = []
        for path, record in known.items():
            node = plan.kept.get(path)
            if node is not None:
                if node.is_dir:
                    attributes.append(record.nodeid)
                nodes.replace(record, node, revision)
            elif path:
                parent, _, name = path.rpartition(b"/")
                above = known.get(parent)
                if above is not None:
                    entries.append((above.nodeid, name))
                nodes.detach(record)
        return entries, attributes or [ROOT_ID]

    def _invalidate(self, entries: list[tuple[int, bytes]], attributes: list[int]) -> None:
        for nodeid in attributes:
            self._invalidator.invalidate_attributes(nodeid)
        for parent, name in entries:
            self._invalidator.invalidate_entry(parent, name)
