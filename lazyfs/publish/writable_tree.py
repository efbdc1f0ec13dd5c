"""`WritableTree`: the tree of the next revision, of which only what differs is loaded."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lazyfs.errors import PublishError
from lazyfs.publish.catalog_slots import MAX_REMEMBERED, CatalogSlots, Slot
from lazyfs.publish.content import ContentStore, StoredFile
from lazyfs.publish.source import MARKER, RESERVED, SourceEntry
from lazyfs.repository import row
from lazyfs.repository.catalog import Chunk, NestedCatalog
from lazyfs.repository.node import Node
from lazyfs.repository.pathhash import MAX_NAME_BYTES, MAX_PATH_BYTES, is_below


class WritableTree:
    """A tree that can be changed; not safe to use from many threads.

    Paths are bytes, ``b""`` is the root. What is read of the old revision is verified.

    Args:
        store: Has the old catalogs.
        workspace: A folder of its own, for catalogs that are being changed.
        root: The old root catalog; None: there is none, and the root must be put first.
        nanoseconds: Keep the fraction of modification times.
    """

    def __init__(
        self,
        store: ContentStore,
        workspace: Path,
        root: NestedCatalog | None,
        *,
        nanoseconds: bool = True,
    ) -> None:
        self.slots = CatalogSlots(store.target, workspace, nanoseconds=nanoseconds)
        self._directories: set[bytes] = set()
        self._fresh: set[bytes] = set()
        """Directories that hold nothing but what was put into them here."""
        if root is not None:
            self.slots.load(root)

    @property
    def is_changed(self) -> bool:
        """Whether anything was changed so far."""
        return any(slot.dirty for slot in self.slots)

    def close(self) -> None:
        """Close all files; the tree can still be used."""
        self.slots.close_all()

    # --- reading -----------------------------------------------------------------------------

    def find(self, path: bytes) -> Node | None:
        """The entry at ``path``."""
        return self.slots.catalog(self.slots.holder(path)).find(path)

    def children(self, path: bytes) -> list[Node]:
        """The entries of a directory, in no order."""
        return self.slots.catalog(self.slots.lister(path)).children(path)

    def xattrs(self, node: Node) -> dict[bytes, bytes]:
        """Extended attributes of an entry."""
        if not node.has_xattrs:
            return {}
        return self.slots.catalog(self.slots.holder(node.path)).xattrs(node.path)

    def stored(self, node: Node) -> StoredFile:
        """Where the content of a regular file lies."""
        chunks: tuple[Chunk, ...] = ()
        if node.chunked:
            catalog = self.slots.catalog(self.slots.holder(node.path))
            chunks = catalog.chunks(node.path, node.algorithm)
        digest = None if chunks else node.digest
        return StoredFile(node.size, digest, chunks, node.codec, node.external)

    # --- changing ----------------------------------------------------------------------------

    def put(self, path: bytes, entry: SourceEntry, stored: StoredFile | None = None) -> None:
        """Add an entry, or give the one that is there another form.

        A directory that becomes one again keeps what it holds. A regular file named
        ``.cvmfscatalog`` makes its directory the root of a nested catalog.

        Raises:
            PublishError: there is no such directory, or the format cannot have such an entry.
        """
        if not path:
            self._put_root(entry)
            return
        self._check(path, entry)
        parent = path.rpartition(b"/")[0]
        if parent in self._fresh and self._add_to_fresh(parent, path, entry, stored):
            return
        old = self.find(path)
        if old is not None and old.is_dir and entry.is_dir:
            self._update_directory(path, entry)
            return
        if old is None:
            self._check_parent(parent)
        else:
            self.remove(path, keep_marker=True)
        self.slots.change(self.slots.lister(parent)).add(path, entry, stored)
        self._added(parent, path, entry, is_new=old is None)

    def _added(self, parent: bytes, path: bytes, entry: SourceEntry, *, is_new: bool) -> None:
        if entry.is_dir:
            self._change_links(parent, 1)
            if is_new and len(self._fresh) < MAX_REMEMBERED:
                self._fresh.add(path)
        elif path.endswith(b"/" + MARKER):
            self.make_nested(parent)

    def _add_to_fresh(
        self, parent: bytes, path: bytes, entry: SourceEntry, stored: StoredFile | None
    ) -> bool:
        """Whether an entry could be added without a look at what is there: most are new."""
        try:
            self.slots.change(self.slots.lister(parent)).add(path, entry, stored)
        except sqlite3.IntegrityError:
            return False
        self._added(parent, path, entry, is_new=True)
        return True

    def _put_root(self, entry: SourceEntry) -> None:
        if not entry.is_dir:
            raise PublishError("the root must be a directory")
        if b"" in self.slots:
            self.slots.change(self.slots.root).update(b"", entry)
        else:
            self.slots.catalog(self.slots.new(b"")).add(b"", entry, None)

    def _check(self, path: bytes, entry: SourceEntry) -> None:
        name = path.rpartition(b"/")[2]
        if not 0 < len(name) <= MAX_NAME_BYTES or len(path) > MAX_PATH_BYTES or b"\0" in path:
            raise PublishError("the name is too long, or none", path=path)
        if path == b"/" + RESERVED:
            raise PublishError("the name is reserved for snapshots", path=path, hint="rename it")
        if name == MARKER and (path == b"/" + MARKER or not entry.is_file):
            raise PublishError(
                "a catalog marker must be a regular file below the root",
                path=path,
                hint="remove it from the source",
            )

    def _check_parent(self, parent: bytes) -> None:
        if parent in self._directories:
            return
        found = self.find(parent)
        if found is None or not found.is_dir:
            raise PublishError("no such directory in the repository", path=parent or b"/")
        if len(self._directories) >= MAX_REMEMBERED:
            self._directories.clear()
        self._directories.add(parent)

    def _update_directory(self, path: bytes, entry: SourceEntry) -> None:
        holder, lister = self.slots.holder(path), self.slots.lister(path)
        self.slots.change(holder).update(path, entry)
        if lister is not holder:
            self.slots.change(lister).update(path, entry)

    def _change_links(self, path: bytes, by: int) -> None:
        self.slots.change(self.slots.holder(path)).change_links(path, by)
        lister = self.slots.lister(path)
        if path and lister.mountpoint == path:
            self.slots.change(lister).change_links(path, by)

    def link(self, path: bytes, target: bytes) -> None:
        """Make ``path`` a further name of the file at ``target``.

        Across directories the format has no links: the new name becomes a file of its own.

        Raises:
            PublishError: there is no such file.
        """
        node = self.find(target)
        if node is None or node.is_dir:
            raise PublishError("no such file to link to", path=target)
        entry = _entry_of(node, path, self.xattrs(node))
        self.put(path, entry, self.stored(node) if node.is_file else None)
        if node.is_file and path.rpartition(b"/")[0] == target.rpartition(b"/")[0]:
            self.slots.change(self.slots.holder(path)).join_group(path, target)

    def remove(self, path: bytes, *, keep_marker: bool = False) -> None:
        """Remove an entry and all below it.

        Args:
            path: Not the root.
            keep_marker: A catalog marker takes its place at once.

        Raises:
            PublishError: there is no such entry.
        """
        node = self.find(path)
        if node is None or not path:
            raise PublishError("no such path in the repository", path=path or b"/")
        parent = path.rpartition(b"/")[0]
        slot = self.slots.holder(path)
        if node.is_dir:
            self._directories.clear()
            self._fresh.clear()
            self._remove_below(path, slot)
            self._change_links(parent, -1)
        catalog = self.slots.change(slot)
        if node.hardlink_group:
            catalog.leave_group()
        catalog.delete(path)
        if node.name == MARKER and not keep_marker and slot.mountpoint == parent:
            self.merge_nested(parent)

    def _remove_below(self, path: bytes, slot: Slot) -> None:
        for nested in self.slots.catalog(slot).nested():
            if is_below(nested.mountpoint, path):
                slot.below.subtract(self.slots.load(nested).counted)
        self.slots.drop_below(path)
        catalog = self.slots.change(slot)
        catalog.drop_nested(path)
        catalog.delete_below(path)

    # --- nested catalogs ---------------------------------------------------------------------

    def make_nested(self, path: bytes) -> None:
        """Let a nested catalog begin at a directory, unless one does already."""
        outer = self.slots.lister(path)
        if outer.mountpoint == path:
            return
        node = self.slots.catalog(outer).find(path)
        assert node is not None
        entry = _entry_of(node, path, self.slots.catalog(outer).xattrs(path))
        # Until it is stored there is no digest to register; the slot stands for it.
        inner = self.slots.new(path)
        catalog = self.slots.catalog(inner)
        catalog.add(path, entry, None, flags=row.FLAG_NESTED_ROOT)
        catalog.change_links(path, node.nlink - 2)
        self.slots.change(outer).move_below(path, catalog)
        self.slots.change(outer).set_flags(path, row.FLAG_MOUNTPOINT)
        for nested in self.slots.catalog(inner).nested():
            below = self.slots.load(nested)
            outer.below.subtract(below.counted)
            inner.below.update(below.counted)

    def merge_nested(self, path: bytes) -> None:
        """Let the catalog above take over a nested catalog."""
        inner = self.slots.lister(path)
        outer = self.slots.holder(path)
        self.slots.change(inner).delete(path)
        self.slots.change(outer).drop_nested(path)
        outer.below.subtract(inner.counted)
        outer.below.update(inner.below)
        source = self.slots.catalog(inner)
        source.move_below(path, self.slots.change(outer))
        self.slots.change(outer).set_flags(path, 0)
        self.slots.drop(path)


def _entry_of(node: Node, path: bytes, xattrs: dict[bytes, bytes]) -> SourceEntry:
    """The metadata of an entry, for another place."""
    return SourceEntry(
        path.rpartition(b"/")[2],
        node.mode,
        node.size,
        node.mtime_ns,
        node.uid,
        node.gid,
        node.rdev,
        node.symlink,
        xattrs,
    )
