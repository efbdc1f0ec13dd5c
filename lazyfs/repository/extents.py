"""Where a regular file's content lies: extents made from a node and its chunk rows."""

from __future__ import annotations

from collections.abc import Sequence

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import ObjectKind
from lazyfs.cas.store import ExternalLocation, ObjectRef
from lazyfs.errors import FormatError
from lazyfs.repository.catalog import Chunk
from lazyfs.repository.node import Node
from lazyfs.repository.pathhash import printable
from lazyfs.repository.view import Extent


def whole_extents(node: Node) -> tuple[Extent, ...]:
    """The one extent of a file that is one object; none for an empty file.

    Raises:
        FormatError: the file has content but no object.
    """
    if node.size == 0:
        return ()
    if node.digest is None:
        raise FormatError("the file has no content hash", path=node.path)
    label = printable(node.path)
    external = ExternalLocation(node.path) if node.external else None
    ref = ObjectRef(
        node.digest, ObjectKind.FILE, node.codec, node.size, label=label, external=external
    )
    return (Extent(0, node.size, ref),)


def chunk_extents(node: Node, chunks: Sequence[Chunk]) -> tuple[Extent, ...]:
    """The extents of a chunked file.

    Raises:
        FormatError: no chunks, gaps, overlaps, or a sum that is not the file's size.
    """
    if not chunks:
        raise FormatError("the file is chunked but has no chunks", path=node.path)
    label = f"Part of {printable(node.path)}"
    extents = []
    end = 0
    for chunk in chunks:
        if chunk.offset != end or chunk.size < 0 or (chunk.size == 0 and len(chunks) > 1):
            raise FormatError(f"a chunk at {chunk.offset} does not follow {end}", path=node.path)
        end += chunk.size
        extents.append(Extent(chunk.offset, chunk.size, _chunk_ref(node, chunk, label)))
    if end != node.size:
        raise FormatError(
            f"the chunks have {end} bytes, the file is said to have {node.size}", path=node.path
        )
    return tuple(extents)


def _chunk_ref(node: Node, chunk: Chunk, label: str) -> ObjectRef:
    external = None
    if node.external:
        if node.codec is not Codec.NONE:
            raise FormatError("external chunks cannot be compressed", path=node.path)
        external = ExternalLocation(node.path, chunk.offset, chunk.size)
    return ObjectRef(
        chunk.digest, ObjectKind.CHUNK, node.codec, chunk.size, label=label, external=external
    )
