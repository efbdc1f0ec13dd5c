"""What another revision means for the nodes that the kernel knows. Blocks; runs in a thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lazyfs.cas.digest import Digest
from lazyfs.errors import NotADirectory, PathNotFound
from lazyfs.fuse.lease import LiveRevision
from lazyfs.repository.likeness import has_same_chunks, is_same
from lazyfs.repository.node import Node

LIST_FROM = 8
"""Known entries of one directory from which listing it is cheaper than looking each of them up."""


class _CatalogFacts(Protocol):
    @property
    def mountpoint(self) -> bytes: ...

    @property
    def digest(self) -> Digest: ...


class _Catalogs(Protocol):
    def lister(self, path: bytes, *, fetch: bool = True) -> _CatalogFacts: ...


class ComparedRevision(LiveRevision, Protocol):
    """What comparing needs of a revision."""

    @property
    def tree(self) -> _Catalogs:
        """Its catalogs."""


@dataclass(frozen=True, slots=True)
class KnownPaths:
    """A node that the kernel knows, and the paths by which it does."""

    nodeid: int
    node: Node
    paths: tuple[bytes, ...]


@dataclass(slots=True)
class Changes:
    """What follows for the kernel and for the node table."""

    kept: dict[int, Node] = field(default_factory=dict)
    """Nodes that stay, as they are in the new revision."""
    entries: list[bytes] = field(default_factory=list)
    """Paths that mean something else now, or nothing."""
    attributes: list[int] = field(default_factory=list)
    """Directories that stay with other attributes."""


def compare(old: ComparedRevision, new: ComparedRevision, known: Sequence[KnownPaths]) -> Changes:
    """What happens to known nodes when ``new`` takes the place of ``old``.

    Catalogs of ``new`` that hold known nodes are loaded, unless ``old`` has the same ones.

    Raises:
        LazyfsError: one of them cannot be loaded. Better to stay with what can be read.
    """
    comparison = _Comparison(old, new)
    comparison.prepare(path for item in known for path in item.paths)
    changes = Changes()
    for item in known:
        comparison.judge(item, changes)
    return changes


class _Comparison:
    def __init__(self, old: ComparedRevision, new: ComparedRevision) -> None:
        self._old = old
        self._new = new
        self._crowded: set[bytes] = set()
        self._children: dict[bytes, dict[bytes, Node]] = {}
        self._untouched: dict[bytes, bool] = {}

    def prepare(self, paths: Iterable[bytes]) -> None:
        """Find the directories of which many entries are known."""
        parents = Counter(path.rpartition(b"/")[0] for path in paths)
        self._crowded = {path for path, number in parents.items() if number >= LIST_FROM}

    def judge(self, item: KnownPaths, changes: Changes) -> None:
        """Add what happens to one node."""
        if item.node.path and all(self._is_untouched(path) for path in item.paths):
            changes.kept[item.nodeid] = item.node
            return
        found = [self._find(path) for path in item.paths]
        if item.node.is_dir:
            self._judge_directory(item, found[0], changes)
        elif self._is_same_file(item, found):
            first = found[0]
            assert first is not None
            changes.kept[item.nodeid] = first
        else:
            changes.entries += item.paths

    def _judge_directory(self, item: KnownPaths, found: Node | None, changes: Changes) -> None:
        if found is None or not found.is_dir:
            changes.entries += item.paths
            return
        changes.kept[item.nodeid] = found
        if not is_same(item.node, found):
            changes.attributes.append(item.nodeid)

    def _is_same_file(self, item: KnownPaths, found: list[Node | None]) -> bool:
        groups = set()
        for node in found:
            if node is None or not self._shows_same(item.node, node):
                return False
            groups.add((node.catalog, node.hardlink_group))
        return len(groups) == 1

    def _shows_same(self, old: Node, new: Node) -> bool:
        if not is_same(old, new):
            return False
        if old.chunked and not has_same_chunks(self._old.extents(old), self._new.extents(new)):
            return False
        return not old.has_xattrs or self._old.xattrs(old) == self._new.xattrs(new)

    def _is_untouched(self, path: bytes) -> bool:
        """Whether the entry's row is in a catalog that both revisions have in common."""
        parent = path.rpartition(b"/")[0]
        found = self._untouched.get(parent)
        if found is None:
            before = self._old.tree.lister(parent)
            after = self._new.tree.lister(parent)
            found = before.mountpoint == after.mountpoint and before.digest == after.digest
            self._untouched[parent] = found
        return found

    def _find(self, path: bytes) -> Node | None:
        """The entry in the new revision."""
        parent, _, _ = path.rpartition(b"/")
        if path and parent in self._crowded:
            node = self._listed(parent).get(path)
            if node is not None:
                return node
        try:
            return self._new.lookup(path)
        except PathNotFound:
            return None

    def _listed(self, directory: bytes) -> dict[bytes, Node]:
        found = self._children.get(directory)
        if found is None:
            try:
                found = {node.path: node for node in self._new.listdir(directory)}
            except (PathNotFound, NotADirectory):
                found = {}
            self._children[directory] = found
        return found
