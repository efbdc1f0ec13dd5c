"""`Node`: one entry of a revision, as every reader sees it."""

from __future__ import annotations

import stat
from typing import NamedTuple

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Algorithm, Digest


class Node(NamedTuple):
    """A path, its metadata and the identity of its content.

    A named tuple, because a listing makes one for each entry: a frozen dataclass takes four times
    as long to make.

    ``path`` is ``b""`` for the root and ``b"/a/b"`` otherwise, raw bytes as published.
    """

    path: bytes
    mode: int
    """Full ``st_mode``, type included."""
    size: int
    """``st_size`` as published; for symlinks the length of the raw target; 0 for devices."""
    mtime_ns: int
    uid: int
    gid: int
    nlink: int
    rdev: int = 0
    symlink: bytes = b""
    """Target as published, variables unexpanded."""
    digest: Digest | None = None
    """Whole-file object; None for directories, links, special and (normally) chunked files."""
    algorithm: Algorithm = Algorithm.SHA1
    """Algorithm of the digest and of the chunks."""
    codec: Codec = Codec.ZLIB
    chunked: bool = False
    external: bool = False
    direct_io: bool = False
    hidden: bool = False
    has_xattrs: bool = False
    mountpoint: bool = False
    """A nested catalog (or bind mountpoint) begins here."""
    catalog: bytes = b""
    """Mountpoint of the catalog that answered."""
    hardlink_group: int = 0
    """Group number, unique within ``catalog``; 0: none."""

    @property
    def name(self) -> bytes:
        """The last component; empty for the root."""
        return self.path.rpartition(b"/")[2]

    @property
    def is_dir(self) -> bool:
        """Whether this is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether this is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        """Whether this is a symbolic link."""
        return stat.S_ISLNK(self.mode)
