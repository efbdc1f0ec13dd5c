"""`WritableTree`: the catalogs of the next revision, loaded and changed only where it differs."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from lazyfs.cas.digest import Algorithm, Digest, ObjectKind
from lazyfs.cas.origin import open_uncached
from lazyfs.cas.store import ObjectRef
from lazyfs.errors import FormatError, PublishError
from lazyfs.publish.content import ContentStore, StoredFile
from lazyfs.publish.source import MARKER, RESERVED, SourceEntry
from lazyfs.publish.writable_catalog import WritableCatalog
from lazyfs.repository import row
from lazyfs.repository.catalog import Chunk, NestedCatalog
from lazyfs.repository.catalog_tree import MAX_NESTING
from lazyfs.repository.node import Node
from lazyfs.repository.pathhash import MAX_NAME_BYTES, MAX_PATH_BYTES, ancestors, is_below

MAX_OPEN = 32
"""Catalogs that are open at a time; each is a descriptor and SQLite's page cache."""

_PIECE = 1 << 20


@dataclass(slots=True)
class _Slot:
    """One catalog that was looked into."""

    mountpoint: bytes
    file: Path
    base: Digest | None
    """What it was before; None: it is new."""
    below: Counter[str]
    """What the catalogs below it come to, as far as they are finished."""
    counted: Counter[str]
    """What its parent's ``below`` has of it."""
    dirty: bool = False
    catalog: WritableCatalog | None = None


@dataclass(frozen=True, slots=True)
class WrittenCatalog:
    """A catalog that is stored."""

    digest: Digest
    size: int
    """Bytes, uncompressed."""
    counters: Counter[str]
    """Its own entries and all below it."""


@dataclass(frozen=True, slots=True)
class FinishedTree:
    """A tree whose catalogs are all stored."""

    root: WrittenCatalog
    written: int
    """Catalogs that were written."""


@dataclass(slots=True)
class TreeState:
    """All of a tree that is not in files, so that another process can go on with it."""

    slots: list[tuple[bytes, str, str, dict[str, int], dict[str, int], bool]] = field(
        default_factory=list
    )
    number: int = 0


class WritableTree:
    """A tree that can be changed; not safe to use from many threads.

    Paths are bytes, ``b""`` is the root. What is read of the old revision is verified.

    Args:
        store: Has the old catalogs, and gets the new ones.
        workspace: A folder of its own, for catalogs that are being changed.
        root: The old root catalog; None: begin with an empty tree.
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
        self._store = store
        self._workspace = workspace
        self._nanoseconds = nanoseconds
        self._number = 0
        self._slots: dict[bytes, _Slot] = {}
        self._open: OrderedDict[bytes, _Slot] = OrderedDict()
        self._listers: dict[bytes, _Slot] = {}
        if root is not None:
            self._load(root)

    @classmethod
    def restore(
        cls, store: ContentStore, workspace: Path, state: TreeState, *, nanoseconds: bool = True
    ) -> WritableTree:
        """The tree that another process has left in ``workspace``; see `save`."""
        tree = cls(store, workspace, None, nanoseconds=nanoseconds)
        tree._number = state.number
        for mountpoint, file, base, below, counted, dirty in state.slots:
            tree._slots[mountpoint] = _Slot(
                mountpoint,
                workspace / file,
                Digest.parse(base) if base else None,
                Counter(below),
                Counter(counted),
                dirty,
            )
        return tree

    def save(self) -> TreeState:
        """Close all files; what `restore` needs beside them."""
        self.close()
        return TreeState(
            [
                (
                    s.mountpoint,
                    s.file.name,
                    str(s.base or ""),
                    dict(s.below),
                    dict(s.counted),
                    s.dirty,
                )
                for s in self._slots.values()
            ],
            self._number,
        )

    # --- catalogs ----------------------------------------------------------------------------

    def _new_file(self) -> Path:
        self._number += 1
        return self._workspace / f"{self._number}.catalog"

    def _load(self, nested: NestedCatalog) -> _Slot:
        """Fetch a catalog of the old revision into the workspace."""
        file = self._new_file()
        label = f"catalog at {nested.mountpoint.decode(errors='backslashreplace') or '/'}"
        size = nested.size or None
        ref = ObjectRef(nested.digest, ObjectKind.CATALOG, size=size, label=label)
        with open_uncached(self._store.target, ref) as handle, file.open("wb") as copy:
            offset = 0
            while piece := handle.pread(_PIECE, offset):
                copy.write(piece)
                offset += len(piece)
        slot = _Slot(nested.mountpoint, file, nested.digest, Counter(), Counter())
        own, slot.below = self._catalog(slot).stored_counters()
        slot.counted = own + slot.below
        self._slots[nested.mountpoint] = slot
        return slot

    def _catalog(self, slot: _Slot) -> WritableCatalog:
        """The catalog of a slot, open; the one used longest ago may be closed for it."""
        if slot.catalog is None:
            slot.catalog = WritableCatalog(
                slot.file, slot.mountpoint, nanoseconds=self._nanoseconds
            )
        self._open[slot.mountpoint] = slot
        self._open.move_to_end(slot.mountpoint)
        if len(self._open) > MAX_OPEN:
            self._shut(self._open.popitem(last=False)[1])
        return slot.catalog

    def _shut(self, slot: _Slot) -> None:
        if slot.catalog is not None:
            slot.catalog.close()
            slot.catalog = None

    def close(self) -> None:
        """Close all files; the tree can still be used."""
        for slot in self._open.values():
            self._shut(slot)
        self._open.clear()

    def _change(self, slot: _Slot) -> WritableCatalog:
        slot.dirty = True
        return self._catalog(slot)

    def _holder(self, path: bytes) -> _Slot:
        """The catalog that has the row of ``path``; for a mountpoint, the parent."""
        return self._lister(path.rpartition(b"/")[0]) if path else self._slots[b""]

    def _lister(self, path: bytes) -> _Slot:
        """The catalog that lists the directory ``path``."""
        found = self._listers.get(path)
        if found is not None:
            return found
        slot = self._slots[b""]
        depth = 0
        for station in [*ancestors(path), path][1:]:
            below = self._slots.get(station)
            if below is None:
                nested = self._catalog(slot).nested_at(station)
                below = self._load(nested) if nested is not None else None
            if below is not None:
                slot, depth = below, depth + 1
                if depth > MAX_NESTING:
                    raise FormatError("catalogs are nested too deeply", path=path)
        if len(self._listers) > 10_000:
            self._listers.clear()
        self._listers[path] = slot
        return slot

    def mountpoints(self) -> list[bytes]:
        """Where the catalogs begin that were looked into, the root's first."""
        return sorted(self._slots)

    def changed_catalogs(self) -> Iterator[WritableCatalog]:
        """The catalogs that were changed so far."""
        for mountpoint in self.mountpoints():
            slot = self._slots.get(mountpoint)
            if slot is not None and slot.dirty:
                yield self._catalog(slot)

    # --- reading -----------------------------------------------------------------------------

    def find(self, path: bytes) -> Node | None:
        """The entry at ``path``."""
        return self._catalog(self._holder(path)).find(path)

    def children(self, path: bytes) -> list[Node]:
        """The entries of a directory, in no order."""
        return self._catalog(self._lister(path)).children(path)

    def xattrs(self, node: Node) -> dict[bytes, bytes]:
        """Extended attributes of an entry."""
        if not node.has_xattrs:
            return {}
        return self._catalog(self._holder(node.path)).xattrs(node.path)

    def stored(self, node: Node) -> StoredFile:
        """Where the content of a regular file lies."""
        chunks: tuple[Chunk, ...] = ()
        if node.chunked:
            catalog = self._catalog(self._holder(node.path))
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
        old = self.find(path)
        if old is not None and old.is_dir and entry.is_dir:
            self._update_directory(path, entry)
            return
        if old is None:
            self._check_parent(parent)
        else:
            self.remove(path, keep_marker=True)
        slot = self._lister(parent)
        self._change(slot).add(path, entry, stored)
        if entry.is_dir:
            self._change_links(parent, 1)
        elif path.endswith(b"/" + MARKER):
            self.make_nested(parent)

    def _put_root(self, entry: SourceEntry) -> None:
        if not entry.is_dir:
            raise PublishError("the root must be a directory")
        if not self._slots:
            self._slots[b""] = _Slot(b"", self._new_file(), None, Counter(), Counter(), dirty=True)
            self._catalog(self._slots[b""]).add(b"", entry, None)
        else:
            self._change(self._slots[b""]).update(b"", entry)

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
        found = self.find(parent)
        if found is None or not found.is_dir:
            raise PublishError("no such directory in the repository", path=parent or b"/")

    def _update_directory(self, path: bytes, entry: SourceEntry) -> None:
        self._change(self._holder(path)).update(path, entry)
        if path in self._slots or self._catalog(self._holder(path)).nested_at(path):
            self._change(self._lister(path)).update(path, entry)

    def _change_links(self, path: bytes, by: int) -> None:
        self._change(self._holder(path)).change_links(path, by)
        lister = self._lister(path)
        if path and lister.mountpoint == path:
            self._change(lister).change_links(path, by)

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
            self._change(self._holder(path)).join_group(path, target)

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
        slot = self._holder(path)
        if node.is_dir:
            self._remove_below(path, slot)
            self._change_links(parent, -1)
        catalog = self._change(slot)
        if node.hardlink_group:
            catalog.leave_group()
        catalog.delete(path)
        if node.name == MARKER and not keep_marker and slot.mountpoint == parent:
            self.merge_nested(parent)

    def _remove_below(self, path: bytes, slot: _Slot) -> None:
        catalog = self._change(slot)
        for nested in catalog.nested():
            if is_below(nested.mountpoint, path):
                below = self._slots.get(nested.mountpoint) or self._load(nested)
                slot.below.subtract(below.counted)
        for mountpoint in [m for m in self._slots if m and is_below(m, path)]:
            self._drop(mountpoint)
        catalog = self._change(slot)
        catalog.drop_nested(path)
        catalog.delete_below(path)
        self._listers.clear()

    def _drop(self, mountpoint: bytes) -> None:
        slot = self._slots.pop(mountpoint)
        self._open.pop(mountpoint, None)
        self._shut(slot)
        slot.file.unlink(missing_ok=True)

    # --- nested catalogs ---------------------------------------------------------------------

    def make_nested(self, path: bytes) -> None:
        """Let a nested catalog begin at a directory, unless one does already."""
        outer = self._lister(path)
        if outer.mountpoint == path:
            return
        node = self._catalog(outer).find(path)
        assert node is not None
        entry = _entry_of(node, path, self._catalog(outer).xattrs(path))
        inner = _Slot(path, self._new_file(), None, Counter(), Counter(), dirty=True)
        self._slots[path] = inner
        catalog = self._catalog(inner)
        catalog.add(path, entry, None, flags=row.FLAG_NESTED_ROOT)
        catalog.change_links(path, node.nlink - 2)
        self._change(outer).move_below(path, catalog)
        self._change(outer).set_flags(path, row.FLAG_MOUNTPOINT)
        for nested in self._catalog(inner).nested():
            below = self._slots.get(nested.mountpoint) or self._load(nested)
            outer.below.subtract(below.counted)
            inner.below.update(below.counted)
        # Until it is stored there is no digest to register; the slot stands for it.
        self._listers.clear()

    def merge_nested(self, path: bytes) -> None:
        """Let the catalog above take over a nested catalog."""
        inner = self._lister(path)
        outer = self._holder(path)
        self._change(inner).delete(path)
        self._change(outer).drop_nested(path)
        outer.below.subtract(inner.counted)
        outer.below.update(inner.below)
        source = self._catalog(inner)
        source.move_below(path, self._change(outer))
        self._change(outer).set_flags(path, 0)
        self._drop(path)
        self._listers.clear()

    # --- the end -----------------------------------------------------------------------------

    def finish(
        self, revision: int, now: int, root_properties: dict[str, str], pool: ThreadPoolExecutor
    ) -> FinishedTree:
        """Store all catalogs that were changed, those below before those that name them.

        Args:
            revision: Of the root catalog.
            now: Unix time, as all of them will say.
            root_properties: More properties of the root catalog.
            pool: Compresses and uploads catalogs that do not name each other at once.
        """
        self.close()
        self._spread()
        levels: dict[int, list[_Slot]] = {}
        for slot in self._slots.values():
            if slot.dirty:
                levels.setdefault(slot.mountpoint.count(b"/"), []).append(slot)
        written = 0
        root = None
        for level in sorted(levels, reverse=True):
            slots = levels[level]
            totals = [self._finish_catalog(slot, revision, now, root_properties) for slot in slots]
            stored = pool.map(lambda s: self._store.put_path(s.file, ObjectKind.CATALOG), slots)
            for slot, total, (digest, size) in zip(slots, totals, stored, strict=True):
                written += 1
                root = WrittenCatalog(digest, size, total)
                if slot.mountpoint:
                    outer = self._holder(slot.mountpoint)
                    self._change(outer).set_nested(slot.mountpoint, digest, size)
                    outer.below.update(total)
                    outer.below.subtract(slot.counted)
                slot.base, slot.counted, slot.dirty = digest, total, False
            self.close()
        assert root is not None
        return FinishedTree(root, written)

    def _spread(self) -> None:
        """Whatever names a changed catalog changes too, up to the root, which always does."""
        self._slots[b""].dirty = True
        for mountpoint in [m for m, slot in self._slots.items() if slot.dirty and m]:
            for above in ancestors(mountpoint):
                if above in self._slots:
                    self._slots[above].dirty = True

    def _finish_catalog(
        self, slot: _Slot, revision: int, now: int, root_properties: dict[str, str]
    ) -> Counter[str]:
        catalog = self._catalog(slot)
        own = int(catalog.properties().get("revision", "0")) + 1
        null = Digest(Algorithm.SHA1, bytes(Algorithm.SHA1.size))
        properties = {"last_modified": str(now), "revision": str(own)}
        if slot.mountpoint:
            properties["previous_revision"] = str(slot.base or null)
        else:
            properties |= {**root_properties, "revision": str(revision)}
            if slot.base is not None:
                properties["previous_revision"] = str(slot.base)
        total = catalog.count() + slot.below
        catalog.finish(properties, slot.below)
        slot.catalog = None
        self._open.pop(slot.mountpoint, None)
        return total


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
