"""How much is in a revision: by directory, counted entry by entry, or by catalog, as recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lazyfs.cas.digest import Digest
from lazyfs.repository.catalog import Catalog, NestedCatalog, sum_counters
from lazyfs.repository.node import Node
from lazyfs.repository.revision import Revision

Progress = Callable[[int, int], None]
"""Called with what was counted so far, and how much there is; 0: nobody knows."""

_KINDS = ("regular", "symlink", "special", "dir")


@dataclass(frozen=True, slots=True)
class DirectoryUsage:
    """What lies at and below a path."""

    path: bytes
    entries: int
    """The path itself counts."""
    bytes: int
    """Content of regular files, uncompressed; several names of one file count once."""


@dataclass(frozen=True, slots=True)
class CatalogUsage:
    """What a catalog says of itself."""

    mountpoint: bytes
    digest: Digest
    size: int
    """Bytes of the catalog, uncompressed; 0: not recorded."""
    depth: int
    """Catalogs on the way from the root catalog, which has 0."""
    entries: int
    """Its own; the directory where two catalogs meet is an entry of both."""
    bytes: int
    """Content of its own regular files, uncompressed; each name counts."""
    catalogs: int
    """With all that are nested in it, itself included."""
    total_entries: int
    """With all that are nested in it; each directory counts once."""
    total_bytes: int


def directory_usage(
    revision: Revision,
    path: bytes | str = b"",
    *,
    depth: int | None = 1,
    progress: Progress | None = None,
) -> Iterator[DirectoryUsage]:
    """What the directories at and below ``path`` hold, each after those within it.

    Everything below ``path`` is listed. What is hidden does not count. Several names of a file
    are known for one within a directory, the only place where publishers keep them.

    Args:
        revision: Where to look.
        path: A directory, or any other entry, which is then the only one.
        depth: How far below ``path`` directories are told; all count all the same. None: all.
        progress: Called with the entries counted so far.

    Raises:
        PathNotFound: there is no such path.
        LazyfsError: a catalog cannot be loaded.
    """
    top = revision.resolve(path, follow=False)
    counters = revision.counters() if progress is not None else {}
    total = sum(counters.get(kind, 0) for kind in _KINDS)
    seen = 0
    stack = [_Frame(revision, top)]
    while stack:
        frame = stack[-1]
        if frame.pending:
            stack.append(_Frame(revision, frame.pending.pop()))
            continue
        stack.pop()
        seen += frame.own
        if progress is not None:
            progress(seen, max(seen, total))
        if depth is None or len(stack) <= depth:
            yield DirectoryUsage(frame.path, frame.entries, frame.bytes)
        if stack:
            stack[-1].take(frame)


class _Frame:
    """A directory that is being counted."""

    __slots__ = ("bytes", "entries", "own", "path", "pending")

    def __init__(self, revision: Revision, node: Node) -> None:
        self.path = node.path
        children = revision.listdir(node.path) if node.is_dir else []
        folders = [child for child in children if child.is_dir]
        self.pending = sorted(folders, key=lambda child: child.path, reverse=True)
        self.own = self.entries = 1 + len(children) - len(folders)
        self.bytes = _content_bytes(children) if node.is_dir else _content_bytes([node])

    def take(self, inner: _Frame) -> None:
        self.entries += inner.entries
        self.bytes += inner.bytes


def _content_bytes(nodes: list[Node]) -> int:
    total = 0
    counted: set[tuple[bytes, int]] = set()
    for node in nodes:
        if not node.is_file:
            continue
        if node.hardlink_group:
            group = (node.catalog, node.hardlink_group)
            if group in counted:
                continue
            counted.add(group)
        total += node.size
    return total


def catalog_usage(
    revision: Revision, *, depth: int | None = None, progress: Progress | None = None
) -> Iterator[CatalogUsage]:
    """What the catalogs of a revision say they hold, each before those that are nested in it.

    Nothing is listed: the counters that publishers keep are taken as they are; `check_revision`
    tells whether they are true.

    Args:
        revision: Where to look.
        depth: How far below the root catalog others are opened; their parents count them all the
            same. None: all.
        progress: Called with the catalogs told so far.

    Raises:
        LazyfsError: a catalog cannot be loaded.
    """
    tree = revision.tree
    root = tree.root
    total = revision.counters()["nested"] + 1
    size = revision.root_size
    stack = [(NestedCatalog(b"", root.digest, size), 0)]
    seen = 0
    while stack:
        nested, level = stack.pop()
        catalog = tree.lister(nested.mountpoint)
        seen += 1
        if progress is not None:
            progress(seen, max(seen, total))
        yield _described(catalog, nested, level)
        if depth is None or level < depth:
            inner = sorted(catalog.nested(), key=lambda each: each.mountpoint, reverse=True)
            stack += [(each, level + 1) for each in inner]


def _described(catalog: Catalog, nested: NestedCatalog, depth: int) -> CatalogUsage:
    own, all_ = catalog.counters(), sum_counters(catalog.counters())
    return CatalogUsage(
        nested.mountpoint,
        nested.digest,
        nested.size,
        depth,
        sum(own[f"self_{kind}"] for kind in _KINDS),
        own["self_file_size"],
        all_["nested"] + 1,
        sum(all_[kind] for kind in _KINDS) - all_["nested"],
        all_["file_size"],
    )
