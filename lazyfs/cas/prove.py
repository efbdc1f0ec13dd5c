"""Whether cached content has the digest it is named by, found by compressing it again."""

from __future__ import annotations

import zlib
from typing import BinaryIO

from lazyfs.cas.codec import ZLIB_LEVEL, Codec
from lazyfs.cas.digest import Digest

_PIECE = 1 << 20


def proves(file: BinaryIO, digest: Digest, codec: Codec) -> bool:
    """Whether the content, stored with ``codec``, has ``digest``.

    False for zlib content proves nothing: another publisher's zlib may have compressed it
    otherwise. Upstream's ``cvmfs_fsck`` works in the same way.
    """
    hasher = digest.algorithm.hasher()
    if codec is Codec.NONE:
        while piece := file.read(_PIECE):
            hasher.update(piece)
        return hasher.result() == digest
    compressor = zlib.compressobj(ZLIB_LEVEL)
    while piece := file.read(_PIECE):
        hasher.update(compressor.compress(piece))
    hasher.update(compressor.flush())
    return hasher.result() == digest
