"""URL escaping as the real client does it (upstream: ``network/download.cc``)."""

from __future__ import annotations

import string

_KEPT = frozenset((string.ascii_letters + string.digits + "/:.@+-_~[],").encode())


def escape_path(path: str) -> str:
    """``path`` with all bytes but ``0-9 A-Z a-z / : . @ + - _ ~ [ ] ,`` as ``%XX``.

    Surrogate escapes stand for bytes that are not UTF-8, as in names of the file system.
    """
    return "".join(
        chr(byte) if byte in _KEPT else f"%{byte:02X}"
        for byte in path.encode(errors="surrogateescape")
    )
