"""Tar archives built block by block, also such as no archiver would write."""

from __future__ import annotations

from collections.abc import Mapping

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
