"""`Ingestor`: what a source has goes into a tree that is being changed."""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from lazyfs.cas.codec import Codec
from lazyfs.errors import PublishError
from lazyfs.publish.balance import CatalogWeights
from lazyfs.publish.catalog_slots import MAX_REMEMBERED
from lazyfs.publish.content import StoredFile
from lazyfs.publish.directory_source import DirectorySource
from lazyfs.publish.pipeline import ContentPipeline, Pending
from lazyfs.publish.source import AUTOMATIC, MARKER, Source, SourceEntry, SourceItem
from lazyfs.publish.writable_tree import WritableTree
from lazyfs.repository.node import Node
from lazyfs.repository.pathhash import ancestors

CodecChoice = Callable[[bytes], Codec]
"""Chooses the codec of a file by its path in the repository."""

Progress = Callable[[int, int], None]
"""Called with the files and bytes published so far."""

DEFAULT_WEIGHTS = CatalogWeights()

_WAITING = 1024
"""Changes that wait for a file's content at most."""


@dataclass(frozen=True, slots=True)
class TreeOptions:
    """How a tree is published."""

    codec: CodecChoice = lambda path: Codec.ZLIB
    xattrs: bool = True
    nanoseconds: bool = True
    """Keep the fraction of modification times; older clients show whole seconds anyway."""
    external: bool = False
    """Content is not stored, but served at the path of its file from elsewhere, uncompressed."""
    weights: CatalogWeights | None = DEFAULT_WEIGHTS
    """Catalogs with more entries are split; None: never."""
    progress: Progress = lambda files, size: None


class Ingestor:
    """Puts sources into one tree; not safe to use from many threads.

    Args:
        tree: What is changed.
        pipeline: Stores content.
        options: How.
        trusted_before: Nanoseconds since 1970. A file that was changed before this and has the
            size and time that the tree has for it is taken for unchanged.
        keeps_marker: Whether a catalog marker that the source lacks stays in a directory.
    """

    def __init__(
        self,
        tree: WritableTree,
        pipeline: ContentPipeline,
        options: TreeOptions,
        *,
        trusted_before: int = 0,
        keeps_marker: Callable[[bytes], bool] = lambda path: False,
    ) -> None:
        self._tree = tree
        self._pipeline = pipeline
        self._options = options
        self._trusted_before = trusted_before
        self._keeps_marker = keeps_marker
        self._waiting: deque[tuple[Callable[[StoredFile | None], None], Pending | None]] = deque()
        self._files = 0
        self._bytes = 0

    # --- adding ------------------------------------------------------------------------------

    def ingest(self, source: Source, at: bytes = b"") -> None:
        """Add all that ``source`` has below ``at``; what is there and has no new form stays.

        Directories that are missing on the way, or that the source does not name, are made.

        Raises:
            PublishError: something cannot be read, or has no place.
        """
        self._make_directories(at)
        made = {at}
        for item in source.items():
            path = at + item.path
            for above in ancestors(path)[1:]:
                if len(above) > len(at) and above not in made:
                    self._queue(lambda _, above=above: self._make_directory(above))  # type: ignore[misc]
                    made.add(above)
            if item.entry.is_dir:
                made.add(path)
            if len(made) > MAX_REMEMBERED:
                made = {at}  # to make a directory that is there does no harm
            self._put(path, at, item)
        self.settle()

    def _make_directories(self, path: bytes) -> None:
        for station in [*ancestors(path), path][1:] if path else ():
            self._make_directory(station)

    def _make_directory(self, path: bytes) -> None:
        found = self._tree.find(path)
        if found is None:
            now = time.time_ns()
            mode = stat.S_IFDIR | 0o755
            name = path.rpartition(b"/")[2]
            entry = SourceEntry(name, mode, 4096, now, os.geteuid(), os.getegid())
            self._tree.put(path, entry)
        elif not found.is_dir:
            raise PublishError("not a directory in the repository", path=path)

    def _put(self, path: bytes, at: bytes, item: SourceItem) -> None:
        tree, entry = self._tree, item.entry
        if item.link is not None:
            target = at + item.link
            self._queue(lambda _: tree.link(path, target))
        elif item.open is None and item.graft is None:
            self._queue(lambda _: tree.put(path, entry))
        else:

            def put(stored: StoredFile | None) -> None:
                tree.put(path, entry, stored)
                self._count(entry.size)

            self._queue(put, self._store(path, item))

    def _store(self, path: bytes, item: SourceItem) -> Pending:
        external, codec = self._options.external, self._options.codec(path)
        if item.graft is not None:
            stored = item.graft.stored(codec, external=external)
            return lambda: stored
        return self._pipeline.name(item) if external else self._pipeline.put(item, codec)

    def _count(self, size: int) -> None:
        self._files += 1
        self._bytes += size
        self._options.progress(self._files, self._bytes)

    def _queue(
        self, change: Callable[[StoredFile | None], None], pending: Pending | None = None
    ) -> None:
        """Have a change made after all that were queued before, once its content is stored."""
        if pending is None and not self._waiting:
            change(None)
            return
        self._waiting.append((change, pending))
        while len(self._waiting) > _WAITING:
            self._next()

    def _next(self) -> None:
        change, pending = self._waiting.popleft()
        change(pending() if pending is not None else None)

    def settle(self) -> None:
        """Make all changes that wait for content."""
        while self._waiting:
            self._next()

    # --- making equal ------------------------------------------------------------------------

    def sync(self, source: DirectorySource, at: bytes = b"") -> None:
        """Make the subtree ``at`` equal to a directory: add, change, remove.

        Content that is unchanged by its size and time is not read.

        Raises:
            PublishError: something cannot be read, or has no place.
        """
        self._make_directories(at.rpartition(b"/")[0])
        self._sync_item(at, at, self._tree.find(at), source.top())
        for path, items in source.listings():
            self._sync_directory(at, at + path, items)
        self.settle()

    def _sync_directory(self, at: bytes, path: bytes, items: list[SourceItem]) -> None:
        there = {node.name: node for node in self._tree.children(path)}
        kept = {item.entry.name for item in items}
        if there and MARKER not in kept and (AUTOMATIC in there or self._keeps_marker(path)):
            kept |= {MARKER, AUTOMATIC}
        for name in there.keys() - kept:
            self._queue(lambda _, gone=there[name].path: self._tree.remove(gone))  # type: ignore[misc]
        whole = self._unchanged_groups(items, there)
        for item in items:
            old = there.get(item.entry.name)
            if item.link in whole or item.path in whole:
                continue
            self._sync_item(at + item.path, at, old, item)

    def _unchanged_groups(self, items: list[SourceItem], there: dict[bytes, Node]) -> set[bytes]:
        """The first names of the hard-linked files that are as they were, all names alike."""
        groups: dict[bytes, list[SourceItem]] = {}
        for item in items:
            if item.link is not None:
                groups.setdefault(item.link, []).append(item)
        firsts = {item.path: item for item in items if item.path in groups}
        return {
            path
            for path, item in firsts.items()
            if self._is_same_group([item, *groups[path]], there)
        }

    def _is_same_group(self, members: list[SourceItem], there: dict[bytes, Node]) -> bool:
        nodes = [there.get(member.entry.name) for member in members]
        found = [node for node in nodes if node is not None and node.hardlink_group]
        return (
            len(found) == len(members)
            and len({node.hardlink_group for node in found}) == 1
            and all(node.nlink == len(members) for node in found)
            and self._has_same_content(found[0], members[0].entry)
            and self._has_same_metadata(found[0], members[0].entry)
        )

    def _sync_item(self, path: bytes, at: bytes, old: Node | None, item: SourceItem) -> None:
        entry = item.entry
        read_again = item.link is not None or item.graft is not None
        read_again = read_again or (old is not None and old.hardlink_group > 0)
        if old is None or read_again or not self._has_same_content(old, entry):
            self._put(path, at, item)
        elif not self._has_same_metadata(old, entry):
            stored = self._tree.stored(old) if old.is_file else None
            self._queue(lambda _: self._tree.put(path, entry, stored))

    def _has_same_content(self, old: Node, entry: SourceEntry) -> bool:
        """Whether type and content are the same, as far as can be told without reading it."""
        if stat.S_IFMT(old.mode) != stat.S_IFMT(entry.mode):
            return False
        if not old.is_file:
            return old.symlink == entry.target and (old.is_dir or old.rdev == _device(entry))
        if old.external != self._options.external:
            return False
        is_settled = entry.mtime_ns < self._trusted_before
        return is_settled and old.size == entry.size and old.mtime_ns == entry.mtime_ns

    def _has_same_metadata(self, old: Node, entry: SourceEntry) -> bool:
        published = entry if self._options.nanoseconds else _whole_seconds(entry)
        ours = (old.mode, old.uid, old.gid, old.mtime_ns)
        if ours != (entry.mode, entry.uid, entry.gid, published.mtime_ns):
            return False
        return self._tree.xattrs(old) == entry.xattrs


def _device(entry: SourceEntry) -> int:
    return entry.rdev if stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode) else 0


def _whole_seconds(entry: SourceEntry) -> SourceEntry:
    return replace(entry, mtime_ns=entry.mtime_ns // 1_000_000_000 * 1_000_000_000)
