"""Whether a file can be read without waiting for a disk."""

from __future__ import annotations

import os

MOST_BYTES = 8 << 20
"""Of larger files it is not asked: to find out takes a millisecond for each 4 MiB or so."""

_PIECE = 256 << 10
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)


def is_resident(fd: int, size: int) -> bool:
    """Whether all bytes of a file are in memory at this moment; False where it cannot be told."""
    if not _NOWAIT or size > MOST_BYTES:
        return False
    buffer = bytearray(min(size, _PIECE))
    offset = 0
    try:
        while offset < size:
            got = os.preadv(fd, [buffer], offset, _NOWAIT)
            if not got:
                return False
            offset += got
    except OSError:
        return False
    return True
