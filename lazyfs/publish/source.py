"""What a source of a publish gives: entries with their metadata, and a way to their content."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from lazyfs.publish.graft import Graft
from lazyfs.repository.check_catalog import MARKER

__all__ = [
    "AUTOMATIC",
    "MARKER",
    "PUBLISHED_XATTRS",
    "RESERVED",
    "Source",
    "SourceEntry",
    "SourceItem",
]

AUTOMATIC = b".cvmfsautocatalog"
"""Beside a marker: the catalog was made because of its size, not by the source."""

RESERVED = b".cvmfs"
"""In the root, clients show snapshots under this name."""

PUBLISHED_XATTRS = (b"user.", b"security.capability")
"""What is published of extended attributes; the rest belongs to the publishing machine."""


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """One entry's metadata, as it will be published."""

    name: bytes
    mode: int
    size: int
    mtime_ns: int
    uid: int
    gid: int
    rdev: int = 0
    target: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    identity: tuple[int, int] = (0, 0)
    """Device and inode number, equal for hard links."""

    @property
    def is_dir(self) -> bool:
        """Whether this is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether this is a regular file."""
        return stat.S_ISREG(self.mode)


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One entry of a source, and where it belongs."""

    path: bytes
    """Below the top of the source: ``b""`` for the top itself, else ``b"/a/b"``."""
    entry: SourceEntry
    open: Callable[[], BinaryIO] | None = None
    """Opens the content of a regular file, ``entry.size`` bytes."""
    streamed: bool = False
    """The content must be read before the next item is asked for, by the same thread; otherwise
    it may be opened at any time, by any thread."""
    graft: Graft | None = None
    """The content of a regular file is named, and not read."""
    link: bytes | None = None
    """The path of an earlier item, of which this is a further name; ``entry`` counts for nothing
    then but its name."""


class Source(Protocol):
    """A tree to publish."""

    @property
    def name(self) -> str:
        """For messages."""

    def items(self) -> Iterator[SourceItem]:
        """All entries, each directory before what it holds, if it is named at all.

        Raises:
            PublishError: it cannot be read, or holds what cannot be published.
        """
