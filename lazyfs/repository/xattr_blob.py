"""Extended attributes as catalogs keep them.

One byte version (1), one byte count, then per attribute one byte key length, one byte value
length, key, value. Source: upstream ``xattr.cc``.
"""

from __future__ import annotations

from collections.abc import Mapping

from lazyfs.errors import FormatError

VERSION = 1
MAX_ENTRIES = 255
MAX_BYTES = 255
"""Of a key, and of a value."""


def parse_xattrs(blob: bytes) -> dict[bytes, bytes]:
    """The attributes in ``blob``; none if it is damaged, as the real client takes it."""
    try:
        return _parse(blob)
    except IndexError:
        return {}


def _parse(blob: bytes) -> dict[bytes, bytes]:
    if len(blob) < 2 or blob[0] != VERSION:
        return {}
    result: dict[bytes, bytes] = {}
    at = 2
    for _ in range(blob[1]):
        key_length, value_length = blob[at], blob[at + 1]
        key = blob[at + 2 : at + 2 + key_length]
        value = blob[at + 2 + key_length : at + 2 + key_length + value_length]
        at += 2 + key_length + value_length
        if at > len(blob) or not key or b"\0" in key:
            return {}
        result[key] = value
    return result


def dump_xattrs(attributes: Mapping[bytes, bytes]) -> bytes | None:
    """The blob for ``attributes``, keys in byte order; None for no attributes.

    Raises:
        FormatError: too many of them, or one too long.
    """
    if not attributes:
        return None
    if len(attributes) > MAX_ENTRIES:
        raise FormatError(f"more than {MAX_ENTRIES} extended attributes")
    blob = bytearray((VERSION, len(attributes)))
    for key, value in sorted(attributes.items()):
        if not 0 < len(key) <= MAX_BYTES or len(value) > MAX_BYTES:
            raise FormatError(f"extended attribute {key!r} is longer than {MAX_BYTES} bytes")
        blob += bytes((len(key), len(value))) + key + value
    return bytes(blob)
