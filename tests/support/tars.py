"""Tar archives built block by block, also such as no archiver would write."""

from __future__ import annotations

import io
from collections.abc import Mapping

from lazyfs.publish.tar_source import TarSource
from support.trees import Entry, Tree, read_source

BLOCK = 512
END = bytes(2 * BLOCK)

USTAR, GNU, V7 = b"ustar\x0000", b"ustar  \0", bytes(8)


def header(
    name: bytes = b"file",
    *,
    kind: bytes = b"0",
    size: int | bytes = 0,
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 0,
    target: bytes = b"",
    magic: bytes = USTAR,
    device: tuple[int, int] | None = None,
    prefix: bytes = b"",
    tail: Mapping[int, bytes] | None = None,
    signed: bool = False,
) -> bytes:
    """One header block; numbers that are given as bytes are put there as they are.

    Args:
        name: At most 100 bytes, as are targets.
        kind: The type flag.
        size: Of what follows, whatever will.
        mode: Permissions.
        uid: User.
        gid: Group.
        mtime: Seconds.
        target: Of a link.
        magic: With version.
        device: Major and minor number.
        prefix: Of the name, or whatever stands in its place.
        tail: Bytes by their place in the block, which win.
        signed: Sum bytes as the oldest archivers did.
    """
    block = bytearray(BLOCK)
    major, minor = device or (0, 0)
    fields = {
        0: name,
        100: _octal(mode, 8),
        108: _octal(uid, 8),
        116: _octal(gid, 8),
        124: _octal(size, 12),
        136: _octal(mtime, 12),
        148: b" " * 8,
        156: kind,
        157: target,
        257: magic,
        329: _octal(major, 8) if device else b"",
        337: _octal(minor, 8) if device else b"",
        345: prefix,
        **(tail or {}),
    }
    for at, value in fields.items():
        block[at : at + len(value)] = value
    assert len(block) == BLOCK
    total = sum(block) - (256 * sum(byte > 127 for byte in block) if signed else 0)
    block[148:156] = b"%06o\0 " % total
    return bytes(block)


def _octal(number: int | bytes, width: int) -> bytes:
    return number if isinstance(number, bytes) else b"%0*o\0" % (width - 1, number)


def binary(number: int, width: int) -> bytes:
    """A number as GNU archives have it that is negative or too large for octal digits."""
    raw = bytearray(number.to_bytes(width, "big", signed=True))
    raw[0] |= 0x80
    return bytes(raw)


def padded(content: bytes) -> bytes:
    """Content as it follows a header."""
    return content + bytes(-len(content) % BLOCK)


def file(name: bytes = b"file", content: bytes = b"", **fields: object) -> bytes:
    """A regular file."""
    return header(name, size=len(content), **fields) + padded(content)  # type: ignore[arg-type]


def records(*pairs: tuple[bytes, bytes]) -> bytes:
    """The body of an extended header."""
    return b"".join(record(key, value) for key, value in pairs)


def record(key: bytes, value: bytes) -> bytes:
    """One record, whose length counts its own digits too."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(b"%d" % length) + len(rest):
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def extended(body: bytes, kind: bytes = b"x") -> bytes:
    """An extended header with a body, well-formed or not."""
    return header(b"PaxHeaders/x", kind=kind, size=len(body)) + padded(body)


def pax(*pairs: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """An extended header."""
    return extended(records(*pairs), kind)


def long(text: bytes, kind: bytes = b"L") -> bytes:
    """A GNU header for a long name, or with ``K`` for a long target."""
    body = text + b"\0"
    return header(b"././@LongLink", kind=kind, size=len(body), magic=GNU) + padded(body)


# --- sparse files ---------------------------------------------------------------------------

HOLES = b"\0" * 700 + b"abc" + b"\0" * 297 + b"defgh" + b"\0" * 95
EXTENTS = ((700, 3), (1000, 5))
STORED = b"abcdefgh"


def gnu_extents(*extents: tuple[int, int]) -> bytes:
    """Offsets and lengths as GNU archives have them."""
    return b"".join(b"%011o\0%011o\0" % extent for extent in extents)


def gnu_sparse(
    extents: tuple[tuple[int, int], ...], size: int, stored: bytes, name: bytes = b"f"
) -> bytes:
    """A sparse file as GNU archives have it, with as many blocks for its map as it needs."""
    tail = {386: gnu_extents(*extents[:4]), 482: bytes([len(extents) > 4]), 483: b"%011o\0" % size}
    data = header(name, kind=b"S", size=len(stored), magic=GNU, tail=tail)
    rest = extents[4:]
    while rest:
        data += gnu_extents(*rest[:21]).ljust(504, b"\0") + bytes([len(rest) > 21]) + bytes(7)
        rest = rest[21:]
    return data + padded(stored)


def sparse_0_0(size: int, stored: bytes, *extents: tuple[int, int]) -> bytes:
    """A sparse file as version 0.0 of GNU tar's pax form has it."""
    pairs = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.numblocks", b"%d" % len(extents))]
    for offset, length in extents:
        pairs.append((b"GNU.sparse.offset", b"%d" % offset))
        pairs.append((b"GNU.sparse.numbytes", b"%d" % length))
    return pax(*pairs) + file(b"f", stored)


def sparse_0_1(size: int, stored: bytes, numbers: bytes) -> bytes:
    """A sparse file as version 0.1 of GNU tar's pax form has it."""
    return pax(
        (b"GNU.sparse.size", b"%d" % size),
        (b"GNU.sparse.numblocks", b"9"),
        (b"GNU.sparse.map", numbers),
        (b"GNU.sparse.name", b"f"),
    ) + file(b"GNUSparseFile.1/f", stored)


def sparse_1_0(size: int, stored: bytes, numbers: bytes) -> bytes:
    """A sparse file as version 1.0 of GNU tar's pax form has it."""
    return pax(
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", b"f"),
        (b"GNU.sparse.realsize", b"%d" % size),
    ) + file(b"GNUSparseFile.1/f", padded(numbers) + stored)


SPARSE = {
    "gnu": gnu_sparse(EXTENTS, 1100, STORED),
    "0.0": sparse_0_0(1100, STORED, *EXTENTS),
    "0.1": sparse_0_1(1100, STORED, b"700,3,1000,5"),
    "1.0": sparse_1_0(1100, STORED, b"2\n700\n3\n1000\n5\n"),
}


# --- reading them ---------------------------------------------------------------------------


def source(*parts: bytes, end: bytes = END, xattrs: bool = True) -> TarSource:
    """The archive of some parts, by the name of ``a.tar``."""
    return TarSource(io.BytesIO(b"".join(parts) + end), name="a.tar", xattrs=xattrs)


def read(*parts: bytes, end: bytes = END) -> Tree:
    """All entries of an archive."""
    return read_source(source(*parts, end=end))


def only(*parts: bytes) -> Entry:
    """The one entry of an archive."""
    (entry,) = read(*parts).values()
    return entry


def order(*parts: bytes) -> list[bytes]:
    """The paths of an archive, as they come."""
    return [item.path for item in source(*parts).items()]
