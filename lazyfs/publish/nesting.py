"""Nested catalogs that the source did not ask for: by ``.cvmfsdirtab``, and by size."""

from __future__ import annotations

import stat
from collections.abc import Iterable

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Digest, ObjectKind
from lazyfs.cas.origin import open_uncached
from lazyfs.cas.store import ObjectRef
from lazyfs.publish.balance import CatalogWeights, plan_catalogs
from lazyfs.publish.content import ContentStore, StoredFile
from lazyfs.publish.dirtab import DIRTAB, MAX_DIRTAB_BYTES, Dirtab
from lazyfs.publish.source import AUTOMATIC, MARKER, SourceEntry
from lazyfs.publish.writable_tree import WritableTree

_DIRTAB_PATH = b"/" + DIRTAB


def read_dirtab(tree: WritableTree, store: ContentStore) -> Dirtab | None:
    """The rules in the root of a tree; None: there are none.

    Raises:
        PublishError: they are not valid.
    """
    node = tree.find(_DIRTAB_PATH)
    if node is None or not node.is_file or node.digest is None:
        return None
    ref = ObjectRef(
        node.digest,
        codec=node.codec,
        size=node.size,
        limit=MAX_DIRTAB_BYTES,
        label=_DIRTAB_PATH.decode(),
    )
    with open_uncached(store.target, ref) as handle:
        return Dirtab.parse(handle.read_all(), _DIRTAB_PATH)


def dirtab_digest(tree: WritableTree) -> Digest | None:
    """Names the rules in the root of a tree; None: there are none."""
    node = tree.find(_DIRTAB_PATH)
    return node.digest if node is not None else None


def apply_dirtab(
    tree: WritableTree, store: ContentStore, dirtab: Dirtab, *, everywhere: bool
) -> None:
    """Let nested catalogs begin where the rules say so and none does yet.

    Args:
        tree: What is changed.
        store: Gets the content of markers.
        dirtab: The rules.
        everywhere: They have changed. Otherwise catalogs that are as they were are passed over:
            whatever the rules choose in them has been chosen before.
    """
    if everywhere:
        starts: Iterable[bytes] = [p for p in dirtab.prefixes() if _is_directory(tree, p)]
    else:
        starts = [slot.mountpoint for slot in tree.slots if slot.dirty]
    chosen = []
    pending = list(starts)
    while pending:
        path = pending.pop()
        if dirtab.matches(path):
            chosen.append(path)
        if dirtab.may_match_below(path):
            pending += [
                child.path
                for child in tree.children(path)
                if child.is_dir and (everywhere or not child.mountpoint)
            ]
    for path in sorted(chosen):
        if tree.find(path + b"/" + MARKER) is None:
            _mark(tree, store, path, (MARKER,))


def _is_directory(tree: WritableTree, path: bytes) -> bool:
    node = tree.find(path)
    return node is not None and node.is_dir


def balance(tree: WritableTree, store: ContentStore, weights: CatalogWeights) -> None:
    """Split the catalogs that were changed and have become too large.

    Args:
        tree: What is changed.
        store: Gets the content of markers.
        weights: How many entries a catalog may have.
    """
    for slot in [slot for slot in tree.slots if slot.dirty]:
        entries = dict(tree.slots.catalog(slot).directories())
        for path in plan_catalogs(slot.mountpoint, entries, weights):
            _mark(tree, store, path, (AUTOMATIC, MARKER))


def _mark(tree: WritableTree, store: ContentStore, path: bytes, names: tuple[bytes, ...]) -> None:
    """Put markers into a directory, as the real server makes them: empty and private."""
    directory = tree.find(path)
    assert directory is not None
    digest = store.put_pieces([b""], Codec.ZLIB, ObjectKind.FILE)
    mode = stat.S_IFREG | 0o600
    for name in names:
        owner = (directory.uid, directory.gid)
        entry = SourceEntry(name, mode, 0, directory.mtime_ns, *owner)
        tree.put(path + b"/" + name, entry, StoredFile(0, digest))
