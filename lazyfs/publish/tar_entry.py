"""`TarEntry`: what the headers of one member say together. Pure."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from lazyfs.config.id_map import MAX_ID
from lazyfs.errors import FormatError
from lazyfs.publish import tar_header as tar
from lazyfs.publish.tar_header import Records, TarHeader, parse_decimal, parse_time
from lazyfs.repository.row import MAX_SIZE, NANOSECONDS

GLOBAL = (b"mtime", b"uid", b"gid", b"hdrcharset")
"""What may hold for all entries; other records of a global header describe no file."""

_NEVER_GLOBAL = (b"path", b"linkpath", b"size")

_CHARSETS = (b"ISO-IR 10646 2000 UTF-8", b"BINARY")
"""Names are kept as the bytes that they are, so both mean the same here."""

_MAX_SECONDS = 1 << 62
_MAX_MAJOR, _MAX_MINOR = 0xFFF, 0xFFFFF

_TYPES = {
    tar.SYMLINK: stat.S_IFLNK,
    tar.CHARACTER: stat.S_IFCHR,
    tar.BLOCK_DEVICE: stat.S_IFBLK,
    tar.DIRECTORY: stat.S_IFDIR,
    tar.GNU_DIRECTORY: stat.S_IFDIR,
    tar.FIFO: stat.S_IFIFO,
    **dict.fromkeys((*tar.REGULAR, tar.GNU_SPARSE, tar.HARD_LINK), stat.S_IFREG),
}
_WITH_CONTENT = (*tar.REGULAR, tar.GNU_SPARSE, tar.GNU_DIRECTORY)


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One member of an archive, but for its content."""

    name: bytes
    mode: int
    """Type and permissions; of a hard link, the type is not known."""
    uid: int
    gid: int
    mtime_ns: int
    rdev: int
    target: bytes
    """Of a symbolic link; of a hard link, the name of the other member."""
    is_hard_link: bool
    stored: int
    """Bytes that follow the headers in the archive."""
    values: Mapping[bytes, bytes]
    """Of the extended headers."""

    @classmethod
    def combine(
        cls, header: TarHeader, name: bytes, target: bytes, values: Mapping[bytes, bytes]
    ) -> Self:
        """The entry of some headers.

        Args:
            header: Its own.
            name: Of the entry, from whichever header.
            target: As GNU headers or its own say.
            values: Of its extended header, and of those for all entries.

        Raises:
            FormatError: they cannot be.
        """
        is_hard_link = header.kind == tar.HARD_LINK
        size = _number(values, b"size", header.size, MAX_SIZE)
        # In older archives links have a size but no content; what follows them in those with
        # extended headers is the content of the other name.
        has_content = header.kind in _WITH_CONTENT or (is_hard_link and bool(values))
        return cls(
            name,
            _type(header, name) | header.mode,
            _number(values, b"uid", header.uid, MAX_ID),
            _number(values, b"gid", header.gid, MAX_ID),
            _mtime(values, header),
            _device(header),
            values.get(b"linkpath") or target,
            is_hard_link,
            size if has_content else 0,
            values,
        )

    @property
    def is_file(self) -> bool:
        """Whether this is a regular file that has its content here."""
        return stat.S_ISREG(self.mode) and not self.is_hard_link


def merge_values(for_all: Mapping[bytes, bytes], records: Records) -> dict[bytes, bytes]:
    """What holds for an entry: the records of its extended header, before those for all.

    Raises:
        FormatError: its names are in a character set that is not known.
    """
    values = {**for_all, **dict(records)}
    # An empty value takes back what was said before; an attribute can be empty.
    values = {key: value for key, value in values.items() if value or b"xattr." in key}
    if values.get(b"hdrcharset", _CHARSETS[0]) not in _CHARSETS:
        raise FormatError("the names are in an unknown character set")
    return values


def check_global(key: bytes) -> bool:
    """Whether a record counts for all entries.

    Raises:
        FormatError: it cannot be the same for all.
    """
    if key in _NEVER_GLOBAL or key.startswith(b"GNU.sparse."):
        raise FormatError(f"{key.decode()} cannot be the same for all entries")
    return key in GLOBAL


def _type(header: TarHeader, name: bytes) -> int:
    kind = _TYPES.get(header.kind)
    if kind is None:
        shown = header.kind.decode("latin-1")
        raise FormatError(f"an entry of the type {shown!r}, which cannot be published")
    # So the oldest archives name directories.
    is_directory = header.kind in tar.REGULAR and name.endswith(b"/")
    return stat.S_IFDIR if is_directory else kind


def _number(values: Mapping[bytes, bytes], key: bytes, number: int, most: int) -> int:
    """What an extended header says, or else the header itself."""
    if key in values:
        number = parse_decimal(values[key])
    if not 0 <= number <= most:
        raise FormatError(f"the {key.decode()} {number} cannot be")
    return number


def _mtime(values: Mapping[bytes, bytes], header: TarHeader) -> int:
    text = values.get(b"mtime")
    mtime_ns = header.mtime * NANOSECONDS if text is None else parse_time(text)
    if abs(mtime_ns) > _MAX_SECONDS * NANOSECONDS:
        raise FormatError("the time of modification cannot be")
    return mtime_ns


def _device(header: TarHeader) -> int:
    if not 0 <= header.major <= _MAX_MAJOR or not 0 <= header.minor <= _MAX_MINOR:
        raise FormatError(f"the device {header.major},{header.minor} cannot be")
    return os.makedev(header.major, header.minor)
