"""`Trimmer`: bounds how many nodes the kernel remembers, and with them the memory of a mount.

By itself the kernel forgets when the memory of the whole machine runs short: too late for a mount
whose own memory is limited, and never on a large machine. So beyond a bound it is made to forget
the files that it was told of longest ago.

Not directories: a process may stand in one, and would then not find its way out. Nor files that
are open, whose names in ``/proc/PID/exe`` would be gone. Nor files that something is mounted on,
because the kernel takes away such mounts.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

import trio

from lazyfs.fuse.blocking import run_blocking
from lazyfs.fuse.kernel import Kernel
from lazyfs.fuse.mountinfo import find_mounted_upon
from lazyfs.fuse.nodes import Known

if TYPE_CHECKING:
    from lazyfs.fuse.filesystem import Filesystem

log = logging.getLogger("lazyfs.fuse")

SPARE = 8
"""One of so many nodes is given up at a time."""

BATCH = 1024
"""Nodes looked at before others may run."""

SETTLE_STEPS, SETTLE_SECONDS = 10, 0.05
"""How often, and how long each time, the kernel is waited for to say what it has forgotten."""


class Trimmer:
    """Keeps the node table of a mount about as small as its settings say; one a mount.

    Programs with more files than that in use have some of them looked up again.

    Args:
        filesystem: The mount.
    """

    def __init__(self, filesystem: Filesystem) -> None:
        self._filesystem = filesystem
        self._table = filesystem.tree.table
        self._limit = filesystem.settings.known_nodes
        self._table.call_at(self._limit)

    async def run(self) -> None:
        """Trim whenever the table has become too large, until cancelled."""
        table = self._table
        while True:
            await table.called.wait()
            before = table.discarded
            told = await self.trim()
            for _ in range(SETTLE_STEPS):
                if table.discarded - before >= told:
                    break
                await trio.sleep(SETTLE_SECONDS)
            if told and table.discarded - before >= told // 2:
                table.call_at(self._limit)
            else:
                # Most of it is in use: not worth trying again before there is more.
                table.call_at(max(self._limit, len(table) + self._limit // SPARE))

    async def trim(self) -> int:
        """Make the kernel forget as many files as are too many, and some to spare; how many."""
        filesystem, table = self._filesystem, self._table
        wanted = len(table) - self._limit + self._limit // SPARE
        workers = filesystem.workers
        device = filesystem.device
        covered = await run_blocking(workers.control, find_mounted_upon, device) if device else ()
        told = 0
        for _ in range(0, len(table), BATCH):
            entries = self._forgettable(table.oldest(BATCH), covered)
            told += len(entries)
            await run_blocking(workers.kernel, _tell, filesystem.kernel, entries)
            if told >= wanted:
                break
        log.debug("the kernel was told to forget %d of %d nodes", told, len(table))
        return told

    def _forgettable(
        self, candidates: Iterable[Known], covered: Collection[bytes]
    ) -> list[tuple[int, bytes]]:
        """The names, each with the number of its directory, that the kernel can do without."""
        entries = []
        for known in candidates:
            if known.node.is_dir or self._filesystem.operations.is_open(known.nodeid):
                continue
            for path in known.paths:
                parent, _, name = path.rpartition(b"/")
                directory = self._table.at(parent)
                if directory is not None and path not in covered:
                    entries.append((directory.nodeid, name))
        return entries


def _tell(kernel: Kernel, entries: list[tuple[int, bytes]]) -> None:
    for parent, name in entries:
        kernel.drop_entry(parent, name)
