"""What differs between two revisions, found without reading what they have in common."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lazyfs.errors import PathNotFound
from lazyfs.repository.likeness import Aspect, aspects, has_same_chunks
from lazyfs.repository.node import Node
from lazyfs.repository.pathhash import normalize
from lazyfs.repository.revision import Revision

Progress = Callable[[int, int], None]
"""Called with the entries compared so far, and 0: nobody knows how many there will be."""


class ChangeKind(enum.Enum):
    """What happened to a path."""

    ADDED = "added"
    REMOVED = "removed"
    MODIFIED = "modified"


@dataclass(frozen=True, slots=True)
class Change:
    """One path that is not the same in both revisions."""

    path: bytes
    kind: ChangeKind
    what: frozenset[Aspect]
    """In what a modified entry differs; empty for the others."""
    old: Node | None
    """None: it was added."""
    new: Node | None
    """None: it was removed."""


def diff_revisions(
    old: Revision, new: Revision, path: bytes | str = b"", *, progress: Progress | None = None
) -> Iterator[Change]:
    """All paths at and below ``path`` that differ, in the order of `Revision.walk`.

    A directory that was added or removed comes before what was in it. Content counts as changed
    if it is held by other objects: the same bytes cut or compressed in another way are another
    content. Hidden entries are left out. Only the directories on the way are held in memory;
    nested catalogs that both revisions have are not opened.

    Raises:
        PathNotFound: neither revision has the path.
        LazyfsError: a catalog cannot be loaded.
    """
    comparison = _Comparison(old, new)
    for seen, (before, after) in enumerate(comparison.pairs(normalize(path)), start=1):
        if progress is not None:
            progress(seen, 0)
        change = comparison.judge(before, after)
        if change is not None:
            yield change


_Pair = tuple[Node | None, Node | None]


class _Comparison:
    def __init__(self, old: Revision, new: Revision) -> None:
        self._old = old
        self._new = new

    def pairs(self, path: bytes) -> Iterator[_Pair]:
        """The entries of each path that must be compared."""
        before, after = _find(self._old, path), _find(self._new, path)
        if before is None and after is None:
            raise PathNotFound("neither revision has it", path=path)
        yield before, after
        stack = [] if self._lists_alike(before, after) else self._below(before, after)
        while stack:
            before, after = stack.pop()
            yield before, after
            if not self._holds_same_catalog(before, after):
                stack += self._below(before, after)

    def _below(self, before: Node | None, after: Node | None) -> list[_Pair]:
        """The entries of two directories in pairs, the first one last."""
        olds, news = _children(self._old, before), _children(self._new, after)
        paths = sorted(olds.keys() | news.keys(), reverse=True)
        return [(olds.get(path), news.get(path)) for path in paths]

    def _lists_alike(self, before: Node | None, after: Node | None) -> bool:
        """Whether one catalog lists the directory in both revisions: where a diff begins."""
        if before is None or after is None or not before.is_dir or not after.is_dir:
            return False
        a, b = self._old.tree.lister(before.path), self._new.tree.lister(after.path)
        return (a.digest, a.mountpoint) == (b.digest, b.mountpoint)

    def _holds_same_catalog(self, before: Node | None, after: Node | None) -> bool:
        """Whether the same nested catalog begins there in both revisions; it is not opened."""
        if before is None or after is None or not before.mountpoint or not after.mountpoint:
            return False
        a = self._old.tree.holder(before.path).nested_at(before.path)
        b = self._new.tree.holder(after.path).nested_at(after.path)
        return a is not None and b is not None and a.digest == b.digest

    def judge(self, before: Node | None, after: Node | None) -> Change | None:
        """The change of one path; None if it shows the same."""
        if before is None:
            assert after is not None
            return Change(after.path, ChangeKind.ADDED, frozenset(), None, after)
        if after is None:
            return Change(before.path, ChangeKind.REMOVED, frozenset(), before, None)
        what = aspects(before, after)
        if Aspect.TYPE not in what:
            what |= self._inner_aspects(before, after)
        if not what:
            return None
        return Change(after.path, ChangeKind.MODIFIED, what, before, after)

    def _inner_aspects(self, before: Node, after: Node) -> frozenset[Aspect]:
        """What nodes do not tell: chunks and extended attributes."""
        found = set()
        if (before.chunked and after.chunked) and not has_same_chunks(
            self._old.extents(before), self._new.extents(after)
        ):
            found.add(Aspect.CONTENT)
        if (before.has_xattrs and after.has_xattrs) and self._old.xattrs(
            before
        ) != self._new.xattrs(after):
            found.add(Aspect.XATTRS)
        return frozenset(found)


def _find(revision: Revision, path: bytes) -> Node | None:
    try:
        return revision.lookup(path)
    except PathNotFound:
        return None


def _children(revision: Revision, node: Node | None) -> dict[bytes, Node]:
    if node is None or not node.is_dir:
        return {}
    return {child.path: child for child in revision.listdir(node.path)}
