"""`NodeTable`: which nodeids the kernel knows, and what they stand for."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from lazyfs.repository.node import Node
from lazyfs.repository.revision import Revision

ROOT_ID = 1
"""The kernel's nodeid of the root; it never changes."""

MAX_NEGATIVE = 100_000
"""Missing names remembered so that they can be invalidated; beyond, they are not cached."""


class Record:
    """One nodeid.

    It is made when the kernel first hears of a node, and lives until the kernel forgets it, also
    when the path has long become something else.
    """

    __slots__ = ("lookups", "node", "nodeid", "reply", "revision")

    def __init__(self, nodeid: int, node: Node, revision: Revision) -> None:
        self.nodeid = nodeid
        self.node = node
        self.revision = revision
        self.lookups = 0
        """How often the kernel was told; it forgets by such counts."""
        self.reply: object = None
        """The transport's prepared attributes."""


class NodeTable:
    """Records by nodeid, by path and by hard-link group. Used by the event loop alone."""

    def __init__(self, root: Node, revision: Revision) -> None:
        self._numbers = itertools.count(ROOT_ID + 1)
        self.root = Record(ROOT_ID, root, revision)
        self._by_id: dict[int, Record] = {ROOT_ID: self.root}
        self._by_path: dict[bytes, Record] = {b"": self.root}
        self._by_group: dict[tuple[bytes, int], Record] = {}
        self._negative: set[tuple[int, bytes]] = set()

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, nodeid: int) -> Record | None:
        """The record of a nodeid."""
        return self._by_id.get(nodeid)

    def at(self, path: bytes) -> Record | None:
        """The record of a path of the current revision."""
        return self._by_path.get(path)

    def paths(self) -> dict[bytes, Record]:
        """A copy of all paths the kernel knows of the current revision."""
        return dict(self._by_path)

    @property
    def max_id(self) -> int:
        """The highest nodeid handed out."""
        return max(self._by_id)

    def add(self, node: Node, revision: Revision) -> Record:
        """The record for a node, made if need be; members of a hard-link group share one."""
        record = self._by_path.get(node.path)
        if record is not None:
            return record
        group = (node.catalog, node.hardlink_group)
        record = self._by_group.get(group) if node.hardlink_group else None
        if record is None:
            record = Record(next(self._numbers), node, revision)
            self._by_id[record.nodeid] = record
            if node.hardlink_group:
                self._by_group[group] = record
            self._by_path[node.path] = record
        return record

    def forget(self, nodeid: int, count: int) -> None:
        """The kernel takes back ``count`` lookups."""
        record = self._by_id.get(nodeid)
        if record is None or nodeid == ROOT_ID:
            return
        record.lookups -= count
        if record.lookups <= 0:
            del self._by_id[nodeid]
            self._detach(record)

    def _detach(self, record: Record) -> None:
        node = record.node
        if self._by_path.get(node.path) is record:
            del self._by_path[node.path]
        group = (node.catalog, node.hardlink_group)
        if self._by_group.get(group) is record:
            del self._by_group[group]

    def detach(self, record: Record) -> None:
        """The record's path now stands for something else; the nodeid lives on."""
        self._detach(record)

    def replace(self, record: Record, node: Node, revision: Revision) -> None:
        """The nodeid now stands for ``node`` at the same path."""
        self._detach(record)
        record.node, record.revision, record.reply = node, revision, None
        self._by_path[node.path] = record
        if node.hardlink_group:
            self._by_group[node.catalog, node.hardlink_group] = record

    def note_negative(self, parent: int, name: bytes) -> bool:
        """Remember that the kernel will cache a missing name; False if it had better not."""
        if len(self._negative) >= MAX_NEGATIVE:
            return False
        self._negative.add((parent, name))
        return True

    def take_negative(self) -> Iterable[tuple[int, bytes]]:
        """All missing names the kernel may have cached, which are then forgotten here."""
        names, self._negative = self._negative, set()
        return names
