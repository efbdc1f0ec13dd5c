"""`NodeTable`: the nodes that the kernel remembers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

import trio

from lazyfs.fuse.identity import ROOT_ID, node_id
from lazyfs.fuse.lease import Lease
from lazyfs.repository.likeness import is_same
from lazyfs.repository.node import Node


class Known:
    """A node that the kernel may ask about by its number."""

    __slots__ = ("aliases", "lease", "lookups", "node", "nodeid", "stale")

    def __init__(self, nodeid: int, node: Node) -> None:
        self.nodeid = nodeid
        self.node = node
        self.lookups = 0
        self.lease: Lease | None = None
        """The revision it belongs to, if that is no longer the current one. It then goes on
        showing what it showed, to those who still hold it."""
        self.stale = False
        """A directory that must be looked up again before it is used."""
        self.aliases: set[bytes] | None = None
        """Paths by which the kernel knows it, for hard links alone."""

    @property
    def paths(self) -> tuple[bytes, ...]:
        """All paths by which the kernel knows it."""
        return tuple(self.aliases) if self.aliases else (self.node.path,)

    def __repr__(self) -> str:
        state = " stale" if self.stale else " superseded" if self.lease else ""
        return f"<Known {self.nodeid} {self.node.path!r} x{self.lookups}{state}>"


class NodeTable:
    """Finds nodes by number, and the current revision's by path.

    Touched by the event loop alone: its methods never wait, so what one of them does is seen whole.
    """

    def __init__(self, root: Node) -> None:
        self._by_id: dict[int, Known] = {}
        self._by_path: dict[bytes, Known] = {}
        self._groups: dict[tuple[bytes, int], Known] = {}
        self.highest = ROOT_ID
        self.called = trio.Event()
        """Set when the table has become larger than was asked for with `call_at`."""
        self.discarded = 0
        """Entries that the table has let go of so far."""
        self._call_at = 1 << 62
        self._add(root, ROOT_ID).lookups = 1

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def root(self) -> Known:
        """The root directory; never forgotten."""
        return self._by_id[ROOT_ID]

    def get(self, nodeid: int) -> Known | None:
        """The node with that number, of whatever revision."""
        return self._by_id.get(nodeid)

    def at(self, path: bytes) -> Known | None:
        """The current revision's node at ``path``, if the kernel remembers it."""
        return self._by_path.get(path)

    def call_at(self, size: int) -> None:
        """Set a new `called` once there are more entries than ``size``."""
        self.called = trio.Event()
        self._call_at = size
        if len(self._by_id) > size:
            self.called.set()

    def oldest(self, count: int) -> list[Known]:
        """The entries that were made, or given here, longest ago."""
        found = list(islice(self._by_id.values(), count))
        for known in found:
            self._by_id[known.nodeid] = self._by_id.pop(known.nodeid)
        return found

    # --- remembering -----------------------------------------------------------------------

    def remember(self, node: Node) -> Known:
        """The entry for a node of the current revision; not counted yet, see `count`."""
        known = self._by_path.get(node.path)
        if known is not None:
            return known
        if node.hardlink_group:
            return self._remember_link(node)
        nodeid = node_id(node)
        if nodeid in self._by_id:
            return self._revive(node, nodeid) or self._add(node, nodeid)
        # What `_add` does, at hand: a walk comes here for every entry.
        known = self._by_path[node.path] = self._by_id[nodeid] = Known(nodeid, node)
        if nodeid > self.highest:
            self.highest = nodeid
        if len(self._by_id) > self._call_at:
            self.called.set()
        return known

    def remember_old(self, node: Node, lease: Lease) -> Known:
        """The entry for a node of a superseded revision; not counted yet."""
        known = self._by_path.get(node.path)
        if node.is_dir and known is None:
            known = self._by_id.get(node_id(node))
        if known is not None and _is_certainly_same(known.node, node):
            return known
        return self._add_old(node, lease)

    def count(self, known: Known) -> None:
        """The kernel was told of the entry once more."""
        known.lookups += 1

    def forget(self, nodeid: int, times: int) -> None:
        """The kernel forgot ``times`` of the times that it was told."""
        known = self._by_id.get(nodeid)
        if known is None or nodeid == ROOT_ID:
            return
        known.lookups -= times
        self.discard(known)

    def discard(self, known: Known) -> None:
        """Drop an entry that the kernel does not know (any more)."""
        if known.lookups > 0 or known.nodeid == ROOT_ID:
            return
        del self._by_id[known.nodeid]
        self.discarded += 1
        self._unlist(known)
        if known.lease is not None:
            known.lease.release()
            known.lease = None

    def _add(self, node: Node, nodeid: int) -> Known:
        """A new entry with that number, or the next free one."""
        known = self._enter(Known(self._free_id(nodeid), node))
        self._by_path[node.path] = known
        return known

    def _add_old(self, node: Node, lease: Lease) -> Known:
        known = self._enter(Known(self._free_id(node_id(node)), node))
        if node.is_dir:
            known.stale = True
        else:
            known.lease = lease.acquire()
        return known

    def _enter(self, known: Known) -> Known:
        self._by_id[known.nodeid] = known
        if len(self._by_id) > self._call_at:
            self.called.set()
        return known

    def _free_id(self, nodeid: int) -> int:
        while nodeid in self._by_id:
            nodeid += 1
        if nodeid > self.highest:
            self.highest = nodeid
        return nodeid

    def _revive(self, node: Node, nodeid: int) -> Known | None:
        """An entry that was put aside at a refresh and turns out to be right after all."""
        known = self._by_id.get(nodeid)
        if known is None or known.node.path != node.path:
            return None
        if known.stale and node.is_dir:
            known.stale = False
        elif known.lease is not None and _is_certainly_same(known.node, node):
            known.lease.release()
            known.lease = None
        else:
            return None
        known.node = node
        self._by_path[node.path] = known
        return known

    def _remember_link(self, node: Node) -> Known:
        """All members of a hard-link group are one entry."""
        key = (node.catalog, node.hardlink_group)
        known = self._groups.get(key)
        if known is None:
            known = self._groups[key] = self._add(node, node_id(node))
            known.aliases = {node.path}
        elif known.aliases is None or not is_same(known.node, node):
            # A catalog whose groups hold different files is wrong; each then shows itself.
            return self._add(node, node_id(node))
        else:
            known.aliases.add(node.path)
            self._by_path[node.path] = known
        return known

    def _unlist(self, known: Known) -> None:
        for path in known.paths:
            if self._by_path.get(path) is known:
                del self._by_path[path]
        node = known.node
        if node.hardlink_group:
            key = (node.catalog, node.hardlink_group)
            if self._groups.get(key) is known:
                del self._groups[key]

    # --- another revision ------------------------------------------------------------------

    def current(self) -> list[Known]:
        """All entries of the current revision."""
        return [known for known in self._by_id.values() if known.lease is None and not known.stale]

    def apply(self, kept: Mapping[int, Node], old: Lease) -> None:
        """Go to another revision.

        Args:
            kept: By number, the new revision's nodes of entries that stay: what is unchanged, and
                directories. All other files go on showing ``old``, all other directories are
                looked up again when they are used.
            old: The revision that is left.
        """
        self._groups.clear()
        for known in self.current():
            node = kept.get(known.nodeid)
            if node is None or not self._keep(known, node):
                self._set_aside(known, old)

    def _keep(self, known: Known, node: Node) -> bool:
        if node.hardlink_group:
            key = (node.catalog, node.hardlink_group)
            if self._groups.setdefault(key, known) is not known:
                return False
        known.node = node
        return True

    def _set_aside(self, known: Known, old: Lease) -> None:
        self._unlist(known)
        if known.node.is_dir:
            known.stale = True
        else:
            known.lease = old.acquire()

    def renew(self, known: Known, node: Node) -> None:
        """A stale directory was looked up: it is still there."""
        known.node = node
        known.stale = False
        self._by_path[node.path] = known


def _is_certainly_same(old: Node, new: Node) -> bool:
    """Whether two nodes show the same, without looking at chunks and attributes."""
    if old.path != new.path:
        return False
    if old.is_dir and new.is_dir:
        return True
    return old is new or (is_same(old, new) and not new.chunked and not new.has_xattrs)
