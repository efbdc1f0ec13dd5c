"""From rows of the table ``catalog`` to nodes. Source: upstream ``catalog_sql.cc``."""

from __future__ import annotations

import functools
import stat
from collections.abc import Sequence
from typing import cast

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Algorithm, Digest, checked_digest
from lazyfs.errors import FormatError
from lazyfs.repository.node import Node
from lazyfs.repository.pathhash import MAX_NAME_BYTES, MAX_PATH_BYTES
from lazyfs.repository.sqlite_file import Row

FLAG_DIRECTORY = 0x1
FLAG_MOUNTPOINT = 0x2
FLAG_FILE = 0x4
FLAG_SYMLINK = 0x8
FLAG_SPECIAL = 0x10
FLAG_NESTED_ROOT = 0x20
FLAG_CHUNKED = 0x40
FLAG_EXTERNAL = 0x80
FLAG_BIND_MOUNTPOINT = 0x4000
FLAG_HIDDEN = 0x8000
FLAG_DIRECT_IO = 0x10000
HASH_SHIFT = 8
CODEC_SHIFT = 11
BITS = 0x7

NANOSECONDS = 1_000_000_000

MAX_SIZE = 1 << 62
"""Bytes of a file; beyond it arithmetic with offsets would overflow 64 bits."""

COLUMNS = "name, flags, mode, size, mtime, {mtimens}, {owner}, {links}, hash, symlink, {xattr}"
"""Columns in the order that `node_from_row` takes; the braces depend on the schema revision."""

_ALGORITHMS = {0: Algorithm.SHA1, 1: Algorithm.RMD160, 2: Algorithm.SHAKE128}
_CODECS = {0: Codec.ZLIB, 1: Codec.NONE}
_FILE, _DIRECTORY, _LINK = stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK
_DEVICES = frozenset((stat.S_IFCHR, stat.S_IFBLK))
_TYPES = _DEVICES | {_FILE, _DIRECTORY, _LINK, stat.S_IFIFO, stat.S_IFSOCK}
_TYPE_MASK = 0o170000


def node_from_row(row: Row, path: bytes, catalog: bytes) -> Node:
    """The node of one row.

    Args:
        row: As `COLUMNS` says.
        path: Where the entry is.
        catalog: Mountpoint of the catalog.

    Raises:
        FormatError: the row contradicts itself or has values that no publisher writes.
    """
    _, flags, mode, size, mtime, mtimens, uid, gid, links, digest, target, has_xattrs = row
    for number in (flags, mode, size, mtime, uid, gid, links):
        if type(number) is not int:
            raise FormatError("a number is expected in the catalog row", path=path)
    kind = mode & _TYPE_MASK
    if kind not in _TYPES or not 0 <= size <= MAX_SIZE:
        raise FormatError(f"mode {mode:o} or size {size} cannot be", path=path)
    traits = _traits(kind, flags)
    if traits is None:
        raise FormatError("unknown hash or compression algorithm", path=path)
    algorithm, codec, chunked, external, direct_io, hidden, mountpoint = traits
    is_device = kind in _DEVICES
    return Node(
        path,
        mode & 0o177777,
        0 if is_device else size,
        mtime * NANOSECONDS
        + (mtimens if type(mtimens) is int and 0 <= mtimens < NANOSECONDS else 0),
        uid & 0xFFFFFFFF,
        gid & 0xFFFFFFFF,
        links & 0xFFFFFFFF or 1,
        size if is_device else 0,
        _target(target, path) if kind == _LINK else b"",
        _digest(digest, algorithm, path) if kind == _FILE else None,
        algorithm,
        codec,
        chunked,
        external,
        direct_io,
        hidden,
        bool(has_xattrs),
        mountpoint,
        catalog,
        links >> 32 & 0xFFFFFFFF if kind != _DIRECTORY else 0,
    )


def nodes_from_rows(rows: Sequence[Row], directory: bytes, catalog: bytes) -> list[Node]:
    """The nodes of all entries of a directory: what `node_from_row` gives for each.

    Most entries are files of which nothing is special. They are seen at a glance and made in less
    than half of the time.

    Raises:
        FormatError: as `node_from_row` and `check_name`.
    """
    _check_names([row[0] for row in rows], directory)
    prefix = directory + b"/"
    nodes = []
    for row in rows:
        name, flags, mode, size, mtime, mtimens, uid, gid, links, digest, _, has_xattrs = row
        if (
            links == 1
            and type(digest) is bytes
            and len(digest) == _DIGEST_BYTES
            and type(flags) is type(mode) is type(size) is type(mtime) is type(mtimens) is int
            and type(uid) is type(gid) is int
            and mode & _TYPE_MASK == _FILE
            and 0 <= size <= MAX_SIZE
            and 0 <= mtimens < NANOSECONDS
            and (traits := _traits(_FILE, flags)) is not None
        ):
            algorithm, codec, chunked, external, direct_io, hidden, _ = traits
            # fmt: off
            values = (
                prefix + name, mode & 0o177777, size, mtime * NANOSECONDS + mtimens,
                uid & 0xFFFFFFFF, gid & 0xFFFFFFFF, 1, 0, b"", checked_digest(algorithm, digest),
                algorithm, codec, chunked, external, direct_io, hidden,
                bool(has_xattrs), False, catalog, 0,
            )
            # fmt: on
            nodes.append(_new_node(Node, values))
        else:
            nodes.append(node_from_row(row, prefix + name, catalog))
    return nodes


_new_node = tuple.__new__
_DIGEST_BYTES = 20
"""Of every algorithm that names content."""


def _check_names(names: list[object], directory: bytes) -> None:
    """Raise as `check_name` if one of them may not be a name; all are looked at together."""
    if set(map(type, names)) <= {bytes}:
        checked = cast("list[bytes]", names)
        joined = b"/".join(checked)
        if (
            joined.count(b"/") == max(0, len(checked) - 1)
            and b"\0" not in joined
            and max(map(len, checked), default=0) <= MAX_NAME_BYTES
            and _IMPOSSIBLE_NAMES.isdisjoint(checked)
        ):
            return
    for name in names:
        check_name(name, directory)


_IMPOSSIBLE_NAMES = frozenset((b"", b".", b".."))

_Traits = tuple[Algorithm, Codec, bool, bool, bool, bool, bool]
"""Algorithm, codec, and whether chunked, external, direct, hidden, a mountpoint."""


@functools.lru_cache(maxsize=256)
def _traits(kind: int, flags: int) -> _Traits | None:
    """What the flags say of an entry of that type; None: a hash or codec that nobody knows.

    A repository has few combinations and many entries.
    """
    is_file = kind == _FILE
    algorithm = _ALGORITHMS.get(flags >> HASH_SHIFT & BITS)
    codec = _CODECS.get(flags >> CODEC_SHIFT & BITS) if is_file else Codec.ZLIB
    if algorithm is None or codec is None:
        return None
    return (
        algorithm,
        codec,
        is_file and bool(flags & FLAG_CHUNKED),
        is_file and bool(flags & FLAG_EXTERNAL),
        bool(flags & FLAG_DIRECT_IO),
        bool(flags & FLAG_HIDDEN),
        kind == _DIRECTORY and bool(flags & (FLAG_MOUNTPOINT | FLAG_BIND_MOUNTPOINT)),
    )


def content_digest(raw: object, flags: object, catalog: str) -> Digest:
    """The digest in a row that has one.

    Raises:
        FormatError: it is none.
    """
    algorithm = _ALGORITHMS.get(flags >> HASH_SHIFT & BITS) if type(flags) is int else None
    if algorithm is None or not isinstance(raw, bytes) or len(raw) != algorithm.size:
        raise FormatError("a row has no usable content hash", object=catalog)
    return Digest(algorithm, raw)


def _digest(raw: object, algorithm: Algorithm, path: bytes) -> Digest | None:
    if raw is None or raw == b"":
        return None
    if not isinstance(raw, bytes) or len(raw) != algorithm.size:
        raise FormatError("the content hash has a wrong length", path=path)
    return Digest(algorithm, raw)


def _target(target: object, path: bytes) -> bytes:
    if not isinstance(target, bytes) or b"\0" in target or len(target) > MAX_PATH_BYTES:
        raise FormatError("the symlink has no usable target", path=path)
    return target


def check_name(name: object, parent: bytes) -> bytes:
    """``name`` if it may be the name of a directory entry.

    Raises:
        FormatError: it is empty, too long, ``.`` or ``..``, or has a slash or a NUL.
    """
    if (
        not isinstance(name, bytes)
        or not 0 < len(name) <= MAX_NAME_BYTES
        or b"/" in name
        or b"\0" in name
        or name in (b".", b"..")
    ):
        raise FormatError(f"an entry has the impossible name {name!r}", path=parent)
    return name
