"""Storing the catalogs of a changed tree, those below before those that name them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

from lazyfs.cas.digest import Algorithm, Digest, ObjectKind
from lazyfs.publish.catalog_slots import CatalogSlots, Slot
from lazyfs.publish.content import ContentStore
from lazyfs.repository.pathhash import ancestors


@dataclass(frozen=True, slots=True)
class FinishedTree:
    """A tree whose catalogs are all stored."""

    root: Digest
    """The root catalog."""
    size: int
    """Its bytes, uncompressed."""
    counters: Counter[str]
    """What the whole tree comes to."""
    written: int
    """Catalogs that were written."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the catalogs of one revision say of it."""

    revision: int
    """Of the root catalog; the others count their own."""
    time: int
    """Unix time."""
    properties: Mapping[str, str]
    """More properties of the root catalog."""


def finish_tree(
    slots: CatalogSlots, store: ContentStore, stamp: Stamp, pool: Executor
) -> FinishedTree:
    """Store all catalogs that were changed, and the root.

    Args:
        slots: The catalogs; afterwards none is changed any more.
        store: Where they go.
        stamp: Of the revision.
        pool: Compresses and uploads catalogs that do not name each other at the same time.
    """
    slots.close_all()
    _spread_changes(slots)
    levels: dict[int, list[Slot]] = {}
    for slot in slots:
        if slot.dirty:
            levels.setdefault(slot.mountpoint.count(b"/"), []).append(slot)
    for level in sorted(levels, reverse=True):
        totals = [_finish_catalog(slots, slot, stamp) for slot in levels[level]]
        stored = pool.map(lambda s: store.put_path(s.file, ObjectKind.CATALOG), levels[level])
        for slot, total, (digest, size) in zip(levels[level], totals, stored, strict=True):
            if slot.mountpoint:
                _register(slots, slot, total, digest, size)
            slot.base, slot.counted, slot.dirty = digest, total, False
        slots.close_all()
    # The root is a level of its own, the last one.
    return FinishedTree(digest, size, total, sum(map(len, levels.values())))


def _spread_changes(slots: CatalogSlots) -> None:
    """Whatever names a changed catalog changes too, up to the root, which always does."""
    slots.root.dirty = True
    changed = {above for slot in slots if slot.dirty for above in ancestors(slot.mountpoint)}
    for slot in slots:
        slot.dirty = slot.dirty or slot.mountpoint in changed


def _register(
    slots: CatalogSlots, slot: Slot, total: Counter[str], digest: Digest, size: int
) -> None:
    outer = slots.holder(slot.mountpoint)
    slots.change(outer).set_nested(slot.mountpoint, digest, size)
    outer.below.update(total)
    outer.below.subtract(slot.counted)


def _finish_catalog(slots: CatalogSlots, slot: Slot, stamp: Stamp) -> Counter[str]:
    """Complete the file of a catalog; what it comes to, its own entries and all below."""
    catalog = slots.catalog(slot)
    own = int(catalog.properties().get("revision", "0")) + 1
    null = Digest(Algorithm.SHA1, bytes(Algorithm.SHA1.size))
    properties = {"last_modified": str(stamp.time), "revision": str(own)}
    if slot.mountpoint or slot.base is not None:
        properties["previous_revision"] = str(slot.base or null)
    if not slot.mountpoint:
        properties |= {**stamp.properties, "revision": str(stamp.revision)}
    total = catalog.count() + slot.below
    catalog.finish(properties, slot.below)
    slots.close(slot)
    return total
