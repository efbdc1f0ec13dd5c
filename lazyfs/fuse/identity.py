"""Node ids: what the kernel calls a node, and what users see as the inode number.

A node id is computed from what a node *is*: a directory is its path; anything else is its path (a
hard link its group) with its metadata and the identity of its content. So what does not change
between two revisions keeps its number, also in the next mount, and what changes gets another one:
the kernel's page cache can never show a mix of two contents.
"""

from __future__ import annotations

from xxhash import xxh3_64_intdigest

from lazyfs.repository.node import Node

ROOT_ID = 1
FIRST_ID = 256
"""Below are reserved numbers (upstream begins there too)."""

ID_MASK = (1 << 48) - 1
"""48 bits: programs that keep inode numbers in floating-point numbers stay exact, overlayfs finds
room for its own bits, and two of a million nodes meet with a probability below one percent, in
which case the later one takes the next free number."""

_TYPE_MASK = 0o170000
_DIRECTORY = 0o040000


def node_id(node: Node) -> int:
    """The number at which the search for a free one begins."""
    if not node.path:
        return ROOT_ID
    if node.mode & _TYPE_MASK == _DIRECTORY:
        return directory_id(node.path)
    digest = node.digest
    number = xxh3_64_intdigest(
        b"%d %d %d %d %d %d %d %b %b\0%b"
        % (
            node.mode,
            node.size,
            node.mtime_ns,
            node.uid,
            node.gid,
            node.nlink,
            node.rdev,
            node.symlink if digest is None else digest.raw,
            b"%d" % node.hardlink_group if node.hardlink_group else b"",
            node.catalog if node.hardlink_group else node.path,
        )
    )
    return _in_range(number)


def directory_id(path: bytes) -> int:
    """As `node_id`, for a directory."""
    return _in_range(xxh3_64_intdigest(b"/" + path)) if path else ROOT_ID


def _in_range(number: int) -> int:
    number &= ID_MASK
    return number if number >= FIRST_ID else number + FIRST_ID
