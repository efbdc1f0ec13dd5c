"""`CatalogSlots`: the catalogs of a tree that is being changed, loaded when they are needed."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from lazyfs.cas.digest import Digest, ObjectKind
from lazyfs.cas.origin import Origin, open_uncached
from lazyfs.cas.store import ObjectRef
from lazyfs.errors import FormatError
from lazyfs.publish.writable_catalog import WritableCatalog
from lazyfs.repository.catalog import NestedCatalog
from lazyfs.repository.catalog_tree import MAX_NESTING
from lazyfs.repository.pathhash import ancestors, is_below, printable

MAX_OPEN = 32
"""Catalogs that are open at a time; each is a descriptor and SQLite's page cache."""

MAX_REMEMBERED = 10_000
"""Directories of which it is remembered which catalog lists them."""

_PIECE = 1 << 20


@dataclass(slots=True)
class Slot:
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
    """None: closed for the moment."""


class SlotState(TypedDict):
    """A slot as JSON has it."""

    mountpoint: str
    file: str
    base: str
    below: dict[str, int]
    counted: dict[str, int]
    dirty: bool


class CatalogSlots:
    """Finds the catalog that knows a path; not safe to use from many threads.

    Args:
        origin: Has the catalogs of the old revision; what it gives is verified.
        workspace: A folder of its own, for catalogs that are being changed.
        nanoseconds: Keep the fraction of modification times.
    """

    def __init__(self, origin: Origin, workspace: Path, *, nanoseconds: bool) -> None:
        self._origin = origin
        self._workspace = workspace
        self._nanoseconds = nanoseconds
        self._slots: dict[bytes, Slot] = {}
        self._open: OrderedDict[bytes, Slot] = OrderedDict()
        self._listers: dict[bytes, Slot] = {}

    # --- slots -------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Slot]:
        """All slots, each after those above it."""
        return iter([self._slots[mountpoint] for mountpoint in sorted(self._slots)])

    def __contains__(self, mountpoint: bytes) -> bool:
        return mountpoint in self._slots

    @property
    def root(self) -> Slot:
        """The root catalog's."""
        return self._slots[b""]

    def new(self, mountpoint: bytes) -> Slot:
        """A slot for a catalog that does not exist yet."""
        slot = Slot(mountpoint, self._new_file(), None, Counter(), Counter(), dirty=True)
        self._slots[mountpoint] = slot
        self._listers.clear()
        return slot

    def _new_file(self) -> Path:
        number = len(self._slots)
        while (file := self._workspace / f"{number}.catalog").exists():
            number += 1
        return file

    def load(self, nested: NestedCatalog) -> Slot:
        """The slot of a catalog of the old revision, which is fetched if it is not here.

        Raises:
            LazyfsError: it cannot be had.
        """
        if nested.mountpoint in self._slots:
            return self._slots[nested.mountpoint]
        file = self._new_file()
        label = f"catalog at {printable(nested.mountpoint)}"
        ref = ObjectRef(nested.digest, ObjectKind.CATALOG, size=nested.size or None, label=label)
        with open_uncached(self._origin, ref) as handle, file.open("wb") as copy:
            offset = 0
            while piece := handle.pread(_PIECE, offset):
                copy.write(piece)
                offset += len(piece)
        slot = Slot(nested.mountpoint, file, nested.digest, Counter(), Counter())
        self._slots[nested.mountpoint] = slot
        own, slot.below = self.catalog(slot).stored_counters()
        slot.counted = own + slot.below
        return slot

    def drop(self, mountpoint: bytes) -> None:
        """Forget a catalog and all changes in it."""
        slot = self._slots.pop(mountpoint)
        self.close(slot)
        slot.file.unlink(missing_ok=True)
        self._listers.clear()

    def drop_below(self, path: bytes) -> None:
        """Forget all catalogs at and below a path."""
        for mountpoint in [m for m in self._slots if is_below(m, path)]:
            self.drop(mountpoint)
        self._listers.clear()

    # --- catalogs ----------------------------------------------------------------------------

    def catalog(self, slot: Slot) -> WritableCatalog:
        """The catalog of a slot, open; the one used longest ago may be closed for it."""
        if slot.catalog is None:
            slot.catalog = WritableCatalog(
                slot.file, slot.mountpoint, nanoseconds=self._nanoseconds
            )
            self._open[slot.mountpoint] = slot
        self._open.move_to_end(slot.mountpoint)
        if len(self._open) > MAX_OPEN:
            self.close(next(iter(self._open.values())))
        return slot.catalog

    def change(self, slot: Slot) -> WritableCatalog:
        """As `catalog`, to be changed."""
        slot.dirty = True
        return self.catalog(slot)

    def close(self, slot: Slot) -> None:
        """Close the file of a slot; it is opened again when it is needed."""
        self._open.pop(slot.mountpoint, None)
        catalog, slot.catalog = slot.catalog, None
        if catalog is not None:
            catalog.close()

    def close_all(self) -> None:
        """Close all files."""
        for slot in list(self._open.values()):
            self.close(slot)

    # --- paths -------------------------------------------------------------------------------

    def holder(self, path: bytes) -> Slot:
        """The catalog that has the row of ``path``; for a mountpoint, the parent."""
        return self.lister(path.rpartition(b"/")[0]) if path else self.root

    def lister(self, path: bytes) -> Slot:
        """The catalog that lists the directory ``path``.

        Raises:
            LazyfsError: a catalog on the way cannot be had.
        """
        found = self._listers.get(path)
        if found is not None:
            return found
        slot = self.root
        depth = 0
        for station in [*ancestors(path), path][1:]:
            below = self._slots.get(station)
            if below is None:
                nested = self.catalog(slot).nested_at(station)
                below = self.load(nested) if nested is not None else None
            if below is not None:
                slot, depth = below, depth + 1
                if depth > MAX_NESTING:
                    raise FormatError("catalogs are nested too deeply", path=path)
        if len(self._listers) >= MAX_REMEMBERED:
            self._listers.clear()
        self._listers[path] = slot
        return slot

    # --- between processes -------------------------------------------------------------------

    def save(self) -> list[SlotState]:
        """Close all files; what `restore` needs beside them."""
        self.close_all()
        return [
            {
                "mountpoint": slot.mountpoint.hex(),
                "file": slot.file.name,
                "base": str(slot.base or ""),
                "below": dict(slot.below),
                "counted": dict(slot.counted),
                "dirty": slot.dirty,
            }
            for slot in self
        ]

    def restore(self, states: list[SlotState]) -> None:
        """Take over what another process has left in the workspace."""
        for state in states:
            mountpoint = bytes.fromhex(state["mountpoint"])
            self._slots[mountpoint] = Slot(
                mountpoint,
                self._workspace / state["file"],
                Digest.parse_content(state["base"]) if state["base"] else None,
                Counter(state["below"]),
                Counter(state["counted"]),
                state["dirty"],
            )
