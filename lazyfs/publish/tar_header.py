"""Headers of tar archives: v7, ustar, pax and GNU. Pure: bytes in, values out.

Source: POSIX ``pax``, section "ustar Interchange Format"; GNU tar's manual, "Tar Internals".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from lazyfs.errors import FormatError

BLOCK = 512
"""Bytes; everything in a tar is a multiple."""

END = bytes(BLOCK)
"""The block that ends an archive; there should be two."""

REGULAR = (b"0", b"\0", b"7")
"""The second is that of the oldest archives, the last means "contiguous", which nobody knows."""

HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"1", b"2", b"3", b"4", b"5", b"6"
GNU_SPARSE, GNU_DIRECTORY, GNU_NAME, GNU_TARGET, GNU_VOLUME = b"S", b"D", b"L", b"K", b"V"
PAX, PAX_GLOBAL, PAX_SOLARIS = b"x", b"g", b"X"

Records = list[tuple[bytes, bytes]]
"""Keys and values of an extended header."""

_OCTAL = re.compile(rb"[0-7]+")
_DECIMAL = re.compile(rb"[0-9]{1,20}")
_TIME = re.compile(rb"(-?)([0-9]{1,19})(?:\.([0-9]*))?")
_LENGTH_DIGITS = 20


@dataclass(frozen=True, slots=True)
class TarHeader:
    """One header block; what extended headers say replaces what is here."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    kind: bytes
    """One character, the type flag."""
    target: bytes
    major: int
    minor: int
    block: bytes
    """The block itself: its rest has a meaning of its own in some kinds."""

    @classmethod
    def parse(cls, block: bytes) -> Self:
        """The header in a block.

        Raises:
            FormatError: it is none, or damaged.
        """
        if not _has_checksum(block):
            raise FormatError("a header is damaged, or this is no tar archive")
        kind, magic = block[156:157], block[257:263]
        name = _text(block[:100])
        # In this place GNU archives have times, and the oldest have anything.
        prefix = _text(block[345:500]) if magic == b"ustar\0" else b""
        is_device = kind in (CHARACTER, BLOCK_DEVICE)
        return cls(
            prefix + b"/" + name if prefix else name,
            parse_number(block[100:108]) & 0o7777,
            parse_number(block[108:116]),
            parse_number(block[116:124]),
            parse_number(block[124:136]),
            parse_number(block[136:148]),
            kind,
            _text(block[157:257]),
            parse_number(block[329:337]) if is_device else 0,
            parse_number(block[337:345]) if is_device else 0,
            block,
        )


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _has_checksum(block: bytes) -> bool:
    try:
        expected = parse_number(block[148:156])
    except FormatError:
        return False
    # The sum is taken with spaces in its own place.
    rest = block[:148] + b" " * 8 + block[156:]
    total = sum(rest)
    # Old archivers took bytes for signed.
    return expected == total or expected == total - 256 * sum(byte > 127 for byte in rest)


def parse_number(field: bytes) -> int:
    """The number in a field: octal digits, or binary if its first bit is set.

    Raises:
        FormatError: it is neither.
    """
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        number = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return number - (1 << bits) if number >> (bits - 1) else number
    digits = _text(field).strip(b" ")
    if not digits:
        return 0
    if not _OCTAL.fullmatch(digits):
        raise FormatError("a header has a number that is none")
    return int(digits, 8)


def parse_records(data: bytes) -> Records:
    """Keys and values of an extended header, in their order.

    Raises:
        FormatError: it is damaged.
    """
    records: Records = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + _LENGTH_DIGITS)
        end = at + parse_decimal(data[at : max(space, at)])
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space or data[end - 1 : end] != b"\n" or not (key and equals):
            raise FormatError("an extended header is damaged")
        records.append((key, value))
        at = end
    return records


def parse_decimal(text: bytes) -> int:
    """A number of an extended header.

    Raises:
        FormatError: it is none, or negative.
    """
    if not _DECIMAL.fullmatch(text):
        raise FormatError(f"an extended header has a number that is none: {text[:40]!r}")
    return int(text)


def parse_time(text: bytes) -> int:
    """The nanoseconds that a time of an extended header means, rounded down.

    Raises:
        FormatError: it is none.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        raise FormatError(f"an extended header has a time that is none: {text[:40]!r}")
    sign, seconds, fraction = found.groups(default=b"")
    nanoseconds = int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    if not sign:
        return nanoseconds
    return -nanoseconds - bool(fraction[9:].strip(b"0"))
