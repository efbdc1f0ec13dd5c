"""URL escaping as the real client does it (upstream: ``network/download.cc``)."""

from __future__ import annotations

import string
from urllib.parse import urlsplit, urlunsplit

_KEPT = frozenset((string.ascii_letters + string.digits + "/:.@+-_~[],").encode())


def escape_path(path: str) -> str:
    """``path`` with all bytes but ``0-9 A-Z a-z / : . @ + - _ ~ [ ] ,`` as ``%XX``.

    Surrogate escapes stand for bytes that are not UTF-8, as in names of the file system.
    """
    return "".join(
        chr(byte) if byte in _KEPT else f"%{byte:02X}"
        for byte in path.encode(errors="surrogateescape")
    )


def redact(url: str) -> str:
    """``url`` without user name and password, for logs and errors."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(a malformed URL)"
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
