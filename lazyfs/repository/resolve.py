"""Following symbolic links within a repository, as a kernel would below its mount."""

from __future__ import annotations

from lazyfs.errors import PathError, PathNotFound
from lazyfs.repository.node import Node
from lazyfs.repository.pathhash import is_below
from lazyfs.repository.view import RepositoryView

MAX_LINKS = 40
"""Links followed for one path, as Linux does."""


def resolve(
    view: RepositoryView, path: bytes | str, *, follow: bool = True, mounted_at: bytes
) -> Node:
    """The entry that ``path`` leads to.

    Args:
        view: The tree.
        path: Seen from its root.
        follow: Follow a link in the last component too.
        mounted_at: Where repositories of this name are mounted by custom; absolute links that
            lead there lead back into the tree.

    Raises:
        PathNotFound: it does not exist, or a link leads out of the repository.
        PathError: it climbs above the root, or over more than 40 links.
    """
    raw = path.encode(errors="surrogateescape") if isinstance(path, str) else path
    left = _reversed_components(raw)
    node = view.lookup(b"")
    at, links = b"", 0
    while left:
        name = left.pop()
        if name == b"..":
            if not at:
                raise PathError("the path leaves the repository", path=raw)
            at = at.rpartition(b"/")[0]
        else:
            node = view.lookup(at + b"/" + name)
            if not node.is_symlink or not (left or follow):
                at = node.path
                continue
            links += 1
            if links > MAX_LINKS:
                raise PathError("too many symbolic links", path=node.path)
            target = view.readlink(node)
            if target.startswith(b"/"):
                target = _inside(target, mounted_at, node)
                at = b""
            left += _reversed_components(target)
        node = view.lookup(at)
    return node


def _reversed_components(path: bytes) -> list[bytes]:
    return [part for part in reversed(path.split(b"/")) if part not in (b"", b".")]


def _inside(target: bytes, mounted_at: bytes, link: Node) -> bytes:
    if not is_below(target, mounted_at):
        raise PathNotFound(f"the link leads out of the repository to {target!r}", path=link.path)
    return target[len(mounted_at) :]
