"""Checking one catalog: its rows against each other, its counters, its place in the tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from lazyfs.errors import LazyfsError
from lazyfs.repository.catalog import COUNTERS, Catalog
from lazyfs.repository.catalog_tree import CatalogTree
from lazyfs.repository.node import Node

MARKER = b".cvmfscatalog"
_COUNTED_SCHEMA = 2.45
"""From schema 2.5 on every counter must be there."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    path: bytes
    object: str
    message: str


def check_catalog(tree: CatalogTree, catalog: Catalog, mountpoint: Node) -> Iterator[Problem]:
    """What is wrong with a catalog; the catalogs below it are only asked for their counters.

    Args:
        tree: It belongs to this.
        catalog: What is checked.
        mountpoint: Its entry in the parent; for the root catalog its own root entry.

    Raises:
        LazyfsError: a row cannot be, so that no more can be said.
    """
    yield from check_mountpoint(catalog, mountpoint)
    counted: Counter[str] = Counter()
    mountpoints: set[bytes] = set()
    rows = 0
    for node in _own_entries(catalog):
        rows += 1
        counted += _count(node)
        if node.chunked:
            counted["chunks"] += len(catalog.chunks(node.path, node.algorithm))
        if node.mountpoint:
            mountpoints.add(node.path)
        yield from _check_entry(catalog, node)
    if rows != catalog.row_count():
        yield _problem(
            catalog, f"{catalog.row_count()} entries are stored, {rows} can be reached by listing"
        )
    yield from _check_nested(catalog, mountpoints)
    counted["nested"] = len(catalog.nested())
    yield from _check_counters(catalog, "self", counted)
    yield from _check_counters(catalog, "subtree", _below(tree, catalog))


def _problem(catalog: Catalog, message: str, path: bytes | None = None) -> Problem:
    return Problem(catalog.mountpoint if path is None else path, f"{catalog.digest}C", message)


def check_mountpoint(catalog: Catalog, mountpoint: Node) -> Iterator[Problem]:
    """What does not fit between a catalog and its entry in the parent; as `check_catalog`."""
    root = catalog.find(catalog.mountpoint)
    if root is None or not root.is_dir:
        yield _problem(catalog, "the catalog has no root entry")
    elif _metadata(root) != _metadata(mountpoint):
        yield _problem(catalog, "the mountpoint differs from the root of its catalog")
    if catalog.root_prefix != catalog.mountpoint:
        yield _problem(catalog, f"the catalog was published for {catalog.root_prefix!r}")


def _metadata(node: Node) -> tuple[object, ...]:
    return (node.mode, node.mtime_ns, node.uid, node.gid, node.nlink, node.size, node.has_xattrs)


def _own_entries(catalog: Catalog) -> Iterator[Node]:
    """All entries of one catalog, its root entry first; children of other catalogs not."""
    root = catalog.find(catalog.mountpoint)
    stack = [root] if root is not None else []
    while stack:
        node = stack.pop()
        yield node
        if node.is_dir and (not node.mountpoint or node.path == catalog.mountpoint):
            stack += catalog.children(node.path)


def _check_entry(catalog: Catalog, node: Node) -> Iterator[Problem]:
    if catalog.find(node.path) is None:
        yield _problem(catalog, "listed, but not found by its path", node.path)
    if node.is_symlink and node.size != len(node.symlink):
        yield _problem(catalog, "the size is not the length of the link's target", node.path)
    if node.path == catalog.mountpoint and node.path:
        if catalog.find(node.path + b"/" + MARKER) is None:
            yield _problem(catalog, f"a nested catalog without {MARKER.decode()}")
    elif node.name == MARKER and node.path.rpartition(b"/")[0] != catalog.mountpoint:
        yield _problem(catalog, "a marker without a nested catalog", node.path)


def _count(node: Node) -> Counter[str]:
    counts: Counter[str] = Counter()
    if node.is_dir:
        counts["dir"] = 1
    elif node.is_symlink:
        counts["symlink"] = 1
    elif not node.is_file:
        counts["special"] = 1
    else:
        counts.update({"regular": 1, "file_size": node.size})
        if node.chunked:
            counts.update({"chunked": 1, "chunked_size": node.size})
        if node.external:
            counts.update({"external": 1, "external_file_size": node.size})
    if node.has_xattrs:
        counts["xattr"] = 1
    return counts


def _check_nested(catalog: Catalog, mountpoints: set[bytes]) -> Iterator[Problem]:
    for nested in catalog.nested():
        if nested.mountpoint not in mountpoints:
            yield _problem(
                catalog, "a nested catalog is registered without an entry", nested.mountpoint
            )
    for path in sorted(mountpoints):
        if catalog.nested_at(path) is None:
            yield _problem(catalog, "a mountpoint without a nested catalog", path)


def _below(tree: CatalogTree, catalog: Catalog) -> Counter[str] | None:
    """What the catalogs below count, by their own word; None if one of them cannot be asked."""
    total: Counter[str] = Counter()
    for nested in catalog.nested():
        try:
            counters = tree.lister(nested.mountpoint).counters()
        except LazyfsError:
            return None  # reported where the walk comes to it
        for name in COUNTERS:
            total[name] += counters[f"self_{name}"] + counters[f"subtree_{name}"]
    return total


def _check_counters(
    catalog: Catalog, prefix: str, counted: Counter[str] | None
) -> Iterator[Problem]:
    if counted is None:
        return
    recorded = catalog.stored_counters()
    for name in COUNTERS:
        full = f"{prefix}_{name}"
        says, found = recorded.get(full), counted[name]
        if says is None and catalog.schema > _COUNTED_SCHEMA:
            yield _problem(catalog, f"counter {full} is missing")
        elif says is not None and says != found:
            yield _problem(catalog, f"counter {full} says {says}, there are {found}")
