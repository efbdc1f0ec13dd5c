"""Path hashes: how catalogs name paths. Source: upstream ``crypto/hash.h``, ``shortstring.h``."""

from __future__ import annotations

import hashlib
import struct

from lazyfs.errors import PathError

MAX_PATH_BYTES = 4096
MAX_NAME_BYTES = 255


def path_hash(path: bytes) -> tuple[int, int]:
    """The columns ``md5path_1``, ``md5path_2`` of ``path`` (``b""`` or ``b"/a/b"``)."""
    first, second = struct.unpack("<qq", hashlib.md5(path, usedforsecurity=False).digest())
    return first, second


def normalize(path: bytes | str) -> bytes:
    """``path`` as catalogs know it: leading slash, no trailing one, ``b""`` for the root.

    Raises:
        PathError: it has a NUL byte, ``..`` that would leave the root, or is too long.
    """
    raw = path.encode(errors="surrogateescape") if isinstance(path, str) else path
    parts: list[bytes] = []
    for part in raw.split(b"/"):
        if part == b"..":
            if not parts:
                raise PathError("the path leaves the repository", path=raw)
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    result = b"".join(b"/" + part for part in parts)
    if b"\0" in result or len(result) > MAX_PATH_BYTES:
        raise PathError("not a path", path=raw[:200])
    return result


def printable(path: bytes) -> str:
    """``path`` for people, logs and labels: one line whatever bytes it has; ``/`` for the root."""
    text = path.decode(errors="backslashreplace") or "/"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def is_below(path: bytes, ancestor: bytes) -> bool:
    """Whether ``path`` is ``ancestor`` or lies below it, at a component border."""
    return path == ancestor or path.startswith(ancestor + b"/")


def ancestors(path: bytes) -> list[bytes]:
    """All prefixes of ``path`` at component borders, from the root, without ``path`` itself."""
    found = []
    at = -1
    while (at := path.find(b"/", at + 1)) >= 0:
        found.append(path[:at])
    return found
