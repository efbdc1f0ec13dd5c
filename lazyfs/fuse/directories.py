"""`Listings`: directories as they were read last, ready to be handed out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from lazyfs.fuse.identity import directory_id
from lazyfs.fuse.lease import Lease
from lazyfs.repository.node import Node

KEPT_NODES = 32768
"""Entries of directories kept for the next reader, about 400 bytes each. A directory that is open
keeps its own entries in any case, and all who have it open share them."""


class Listing:
    """The entries of one directory in one revision.

    Args:
        path: The directory.
        children: All its entries, hidden ones included.
    """

    __slots__ = ("_by_path", "_children", "_directories", "_positions", "nodes", "path")

    def __init__(self, path: bytes, children: Sequence[Node]) -> None:
        self.path = path
        self._children = children
        self._by_path: dict[bytes, Node] | None = None
        self._directories: list[bytes] = []
        self._positions: dict[bytes, int] | None = None
        has_hidden = any(node.hidden for node in children)
        self.nodes = [node for node in children if not node.hidden] if has_hidden else children
        """What is listed, in catalog order."""

    def __len__(self) -> int:
        return len(self._children)

    def find(self, path: bytes) -> Node | None:
        """The entry at ``path``, hidden or not; None: there is none."""
        if self._by_path is None:
            self._by_path = {node.path: node for node in self._children}
        return self._by_path.get(path)

    def next_directories(self, path: bytes, previous: bytes | None, count: int) -> list[bytes]:
        """At most ``count`` subdirectories that a walk would come to after ``path``.

        Args:
            path: The one that was opened now.
            previous: The one that was opened before it: a neighbour tells the direction. None:
                this is the first; then its end of the listing does.
            count: How many to tell.
        """
        if self._positions is None:
            self._directories = [node.path for node in self.nodes if node.is_dir]
            self._positions = {name: number for number, name in enumerate(self._directories)}
        here = self._positions.get(path)
        if here is None:
            return []
        last = len(self._directories) - 1
        if previous is None:
            step = 1 if here == 0 else -1 if here == last else 0
        else:
            step = here - self._positions.get(previous, here)
        if abs(step) != 1:
            return []
        ahead = range(here + step, here + step * (count + 1), step)
        return [self._directories[number] for number in ahead if 0 <= number <= last]


class Listings:
    """Listings of the current revision, the most recently used ones."""

    def __init__(self, limit: int = KEPT_NODES) -> None:
        self._limit = limit
        self._kept: OrderedDict[bytes, Listing] = OrderedDict()
        self._nodes = 0

    def get(self, path: bytes) -> Listing | None:
        """The listing of a directory, if it is kept."""
        found = self._kept.get(path)
        if found is not None:
            self._kept.move_to_end(path)
        return found

    def put(self, listing: Listing) -> bool:
        """Keep a listing, and let go of those used longest ago; False if it is too large."""
        if len(listing) > self._limit:
            return False
        replaced = self._kept.pop(listing.path, None)
        self._nodes += len(listing) - (len(replaced) if replaced is not None else 0)
        self._kept[listing.path] = listing
        while self._nodes > self._limit:
            self._nodes -= len(self._kept.popitem(last=False)[1])
        return True

    def clear(self) -> None:
        """Let go of all."""
        self._kept.clear()
        self._nodes = 0


class OpenDirectory:
    """A directory handle: a snapshot of one directory in one revision.

    Positions count ``.``, then ``..`` (which the root has not), then the entries.

    Args:
        nodeid: The directory.
        listing: The entries.
        lease: Their revision, held until the handle is closed.
    """

    __slots__ = ("_dots", "lease", "listing")

    def __init__(self, nodeid: int, listing: Listing, lease: Lease) -> None:
        self.listing = listing
        self.lease = lease.acquire()
        self._dots = [(b".", nodeid)]
        if listing.path:
            self._dots.append((b"..", directory_id(listing.path.rpartition(b"/")[0])))

    def dots(self, start: int) -> Iterator[tuple[int, bytes, int]]:
        """Next position, name and number of ``.`` and ``..``, from position ``start``."""
        for position in range(start, len(self._dots)):
            yield position + 1, *self._dots[position]

    def nodes(self, start: int) -> Iterator[tuple[int, Node]]:
        """Next position and node of the entries, from position ``start``."""
        before = len(self._dots)
        begin = max(0, start - before)
        return enumerate(self.listing.nodes[begin:], before + begin + 1)

    def close(self) -> None:
        """Let go of the revision."""
        self.lease.release()
