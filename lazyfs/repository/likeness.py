"""When two entries are the same, and in what they differ."""

from __future__ import annotations

import enum
import stat
from collections.abc import Sequence

from lazyfs.repository.node import Node
from lazyfs.repository.view import Extent


class Aspect(enum.Enum):
    """What may differ between two entries of the same path."""

    TYPE = "type"
    """File, directory, link, …; nothing else is compared then."""
    CONTENT = "content"
    """The bytes of a file or the objects that hold them; the number of a device."""
    MODE = "mode"
    OWNER = "owner"
    MTIME = "mtime"
    XATTRS = "xattrs"
    TARGET = "target"
    """Of a symbolic link."""
    LINKS = "links"
    """How many names a file has. Of directories it follows from what is in them."""


def is_same(old: Node, new: Node) -> bool:
    """Whether two nodes of the same path show the same, as far as the nodes tell.

    Chunks and extended attributes are not part of nodes; whoever needs them compared looks.
    """
    return (
        old.mode == new.mode
        and old.size == new.size
        and old.mtime_ns == new.mtime_ns
        and old.uid == new.uid
        and old.gid == new.gid
        and old.nlink == new.nlink
        and old.rdev == new.rdev
        and old.symlink == new.symlink
        and old.digest == new.digest
        and old.algorithm is new.algorithm
        and old.codec is new.codec
        and old.chunked == new.chunked
        and old.external == new.external
        and old.direct_io == new.direct_io
        and old.has_xattrs == new.has_xattrs
        and bool(old.hardlink_group) == bool(new.hardlink_group)
    )


def has_same_chunks(old: Sequence[Extent], new: Sequence[Extent]) -> bool:
    """Whether the same objects hold the same stretches of two files."""
    return len(old) == len(new) and all(
        a.offset == b.offset and a.ref.digest == b.ref.digest for a, b in zip(old, new, strict=True)
    )


def aspects(old: Node, new: Node) -> frozenset[Aspect]:
    """In what two nodes of the same path differ, as far as the nodes tell; see `is_same`.

    The size of a directory, and how many directories are in it, do not count.
    """
    if stat.S_IFMT(old.mode) != stat.S_IFMT(new.mode):
        return frozenset((Aspect.TYPE,))
    differs = {
        Aspect.MODE: old.mode != new.mode,
        Aspect.OWNER: (old.uid, old.gid) != (new.uid, new.gid),
        Aspect.MTIME: old.mtime_ns != new.mtime_ns,
        Aspect.XATTRS: old.has_xattrs != new.has_xattrs,
        Aspect.TARGET: old.symlink != new.symlink,
        Aspect.CONTENT: not old.is_dir and _content(old) != _content(new),
        Aspect.LINKS: not old.is_dir and _links(old) != _links(new),
    }
    return frozenset(aspect for aspect, it_does in differs.items() if it_does)


def _content(node: Node) -> tuple[object, ...]:
    # The size of a link is the length of its target.
    size = 0 if node.is_symlink else node.size
    return (
        *(size, node.rdev, node.digest, node.algorithm, node.codec),
        *(node.chunked, node.external, node.direct_io),
    )


def _links(node: Node) -> tuple[object, ...]:
    # Groups are numbered anew in every revision of a catalog.
    return (node.nlink, bool(node.hardlink_group))
