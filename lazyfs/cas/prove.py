"""Whether cached content has the digest it is named by, found by compressing it again."""

from __future__ import annotations

import zlib
from typing import BinaryIO

from lazyfs.cas.codec import ZLIB_LEVEL, Codec
from lazyfs.cas.digest import Algorithm, Digest

_PIECE = 1 << 20


def proves(file: BinaryIO, digest: Digest, codec: Codec) -> bool:
    """Whether the content, stored with ``codec``, has ``digest``.

    False for zlib content proves nothing: another publisher's zlib may have compressed it
    otherwise. Upstream's ``cvmfs_fsck`` works in the same way.
    """
    return recompute(file, digest.algorithm, codec) == digest


def recompute(file: BinaryIO, algorithm: Algorithm, codec: Codec) -> Digest:
    """The digest that the content has when it is stored with ``codec`` as lazyfs would."""
    hasher = algorithm.hasher()
    compressor = zlib.compressobj(ZLIB_LEVEL) if codec is Codec.ZLIB else None
    while piece := file.read(_PIECE):
        hasher.update(compressor.compress(piece) if compressor else piece)
    if compressor is not None:
        hasher.update(compressor.flush())
    return hasher.result()
