"""Opening the index, and making a new one from the objects themselves when it is damaged."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from pathlib import Path

import xxhash

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Digest
from lazyfs.cas.index import CacheEntry, CacheIndex
from lazyfs.cas.layout import CacheLayout
from lazyfs.cas.prove import proves
from lazyfs.cas.writer import signed64
from lazyfs.errors import FormatError

log = logging.getLogger("lazyfs.cas")


def open_index(layout: CacheLayout) -> CacheIndex:
    """The index of a cache; a damaged one is put aside and made anew from what can be proven."""
    try:
        return CacheIndex(layout.index)
    except sqlite3.DatabaseError as exc:
        log.warning("the cache index is damaged, rebuilding it: %s: %s", layout.index, exc)
    for suffix in ("", "-wal", "-shm"):
        path = Path(f"{layout.index}{suffix}")
        if path.exists():
            path.replace(f"{layout.index}.damaged{suffix}")
    index = CacheIndex(layout.index)
    adopted, dropped = adopt_orphans(layout, index)
    log.warning("the cache index is rebuilt: %d objects kept, %d dropped", adopted, dropped)
    return index


def adopt_orphans(layout: CacheLayout, index: CacheIndex) -> tuple[int, int]:
    """Take files without a row into the index if they can be proven, remove the others.

    Returns:
        The numbers of files kept and removed.
    """
    known = {entry.key for entry in index.entries()}
    adopted = dropped = 0
    for key, path in layout.object_keys():
        if key in known:
            continue
        entry = prove_file(key, path)
        if entry is None:
            path.unlink(missing_ok=True)
            dropped += 1
        else:
            index.insert(entry)
            adopted += 1
    return adopted, dropped


def prove_file(key: str, path: Path) -> CacheEntry | None:
    """An entry for the file if its content has the digest that ``key`` says, else None."""
    try:
        digest, codec = parse_key(key)
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not proves(file, digest, codec):
                return None
            file.seek(0)
            checksum = xxhash.xxh3_64()
            while piece := file.read(1 << 20):
                checksum.update(piece)
    except (FormatError, OSError):
        return None
    return CacheEntry(
        key,
        status.st_size,
        signed64(checksum.intdigest()),
        kind="",
        label="found when the index was rebuilt",
        pinned=False,
        last_used=min(status.st_atime_ns, time.time_ns()),
    )


def parse_key(key: str) -> tuple[Digest, Codec]:
    """The digest and codec that a cache key stands for.

    Raises:
        FormatError: it is not a cache key.
    """
    text = key.removesuffix(".raw")
    return Digest.parse(text), Codec.NONE if text != key else Codec.ZLIB
