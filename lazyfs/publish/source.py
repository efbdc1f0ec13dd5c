"""Sources of a publish: what they give, and a directory on this machine as one of them."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from lazyfs.errors import PublishError
from lazyfs.repository.xattr_blob import MAX_BYTES, MAX_ENTRIES

MARKER = b".cvmfscatalog"
"""A file of this name in a directory begins a nested catalog there."""

RESERVED = b".cvmfs"
"""In the root, clients show snapshots under this name."""

_XATTRS = (b"user.", b"security.capability")
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


def read_entry(path: bytes, *, xattrs: bool) -> SourceEntry:
    """The metadata of one path, links not followed.

    Raises:
        PublishError: it cannot be read.
    """
    try:
        status = os.lstat(path)
        is_link = stat.S_ISLNK(status.st_mode)
        target = os.readlink(path) if is_link else b""  # noqa: PTH115 - the path is bytes
    except OSError as exc:
        raise PublishError(f"cannot read: {exc.strerror}", path=path) from exc
    return SourceEntry(
        os.path.basename(path),  # noqa: PTH119 - the path is bytes
        status.st_mode,
        status.st_size,
        status.st_mtime_ns,
        status.st_uid,
        status.st_gid,
        status.st_rdev,
        target,
        _read_xattrs(path) if xattrs else {},
        (status.st_dev, status.st_ino),
    )


def read_directory(path: bytes, *, xattrs: bool) -> list[SourceEntry]:
    """The entries of a directory in byte order of their names.

    Raises:
        PublishError: it cannot be read.
    """
    try:
        names = sorted(os.listdir(path))  # noqa: PTH208 - the path is bytes
    except OSError as exc:
        raise PublishError(f"cannot read: {exc.strerror}", path=path) from exc
    return [read_entry(path + b"/" + name, xattrs=xattrs) for name in names]


def _read_xattrs(path: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    with contextlib.suppress(OSError):
        for text in os.listxattr(path, follow_symlinks=False):
            name = os.fsencode(text)
            if name.startswith(_XATTRS) and len(name) <= MAX_BYTES and len(found) < MAX_ENTRIES:
                value = os.getxattr(path, name, follow_symlinks=False)
                if len(value) <= MAX_BYTES:
                    found[name] = value
    return found


def has_marker(entries: list[SourceEntry], path: bytes) -> bool:
    """Whether a nested catalog begins at ``path``, the directory that has these entries.

    Raises:
        PublishError: the marker is no regular file, or stands in the repository's root, which
            always has a catalog; the real server's check would call either damage.
    """
    marker = next((entry for entry in entries if entry.name == MARKER), None)
    if marker is None:
        return False
    if not marker.is_file or not path:
        raise PublishError(
            "a catalog marker must be a regular file below the root",
            path=path + b"/" + MARKER,
            hint="remove it from the source",
        )
    return True


def check_root(entries: list[SourceEntry]) -> None:
    """Return if the entries may stand in a repository's root.

    Raises:
        PublishError: there is a marker, or a name that the format keeps for itself.
    """
    has_marker(entries, b"")
    if any(entry.name == RESERVED for entry in entries):
        raise PublishError(
            "the name is reserved for snapshots", path=b"/" + RESERVED, hint="rename it"
        )
