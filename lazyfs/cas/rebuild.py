"""Opening the index, and making a new one from the objects themselves when it is damaged."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import xxhash

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Digest
from lazyfs.cas.index import CacheEntry, CacheIndex
from lazyfs.cas.layout import CacheLayout, open_object, remove_if_unused
from lazyfs.cas.prove import proves
from lazyfs.cas.writer import signed64
from lazyfs.errors import CacheError, FormatError

log = logging.getLogger("lazyfs.cas")

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""Errors of a file that is no index; the last stands for tables of another form."""


def open_index(layout: CacheLayout) -> CacheIndex | None:
    """The index of a cache; a damaged or lost one is made anew from what can be proven.

    None if the disk refuses: then nothing new can be kept. An index is put aside for damage
    alone, not because another process is busy with it or the disk is full.
    """
    try:
        index = _open_sound(layout)
        if index is None:
            with _locked(layout.index_lock):
                # Another process may have made one while we waited.
                index = _open_sound(layout) or rebuild_index(layout)
    except (OSError, sqlite3.Error, CacheError) as exc:
        log.warning("nothing new is cached, the index cannot be used: %s: %s", layout.index, exc)
        return None
    return index


def _open_sound(layout: CacheLayout) -> CacheIndex | None:
    """The index, also of an empty cache; None if it is damaged or lost."""
    if not layout.index.exists() and any(layout.object_keys()):
        return None
    try:
        return CacheIndex(layout.index)
    except sqlite3.DatabaseError as exc:
        if exc.sqlite_errorcode & 0xFF not in _DAMAGE:
            raise
        log.warning("the cache index is damaged: %s: %s", layout.index, exc)
        return None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def rebuild_index(layout: CacheLayout) -> CacheIndex:
    """A new index of what can be proven; the old one is put aside."""
    for suffix in ("", "-wal", "-shm"):
        path = Path(f"{layout.index}{suffix}")
        if path.exists():
            path.replace(f"{layout.index}.damaged{suffix}")
    index = CacheIndex(layout.index)
    try:
        outcomes = [adopt(index, key, path) for key, path in layout.object_keys()]
    except BaseException:
        index.close()
        raise
    kept, dropped = outcomes.count(True), outcomes.count(False)
    log.warning("the cache index is rebuilt: %d objects kept, %d dropped", kept, dropped)
    return index


def adopt(index: CacheIndex, key: str, path: Path) -> bool:
    """Take a file without a row into the index if it can be proven, else remove it.

    Returns:
        Whether the index knows the file now.
    """
    entry = prove_file(key, path)
    with index.exclusive():
        if index.find(key) is not None:
            return True  # fetched in the meantime
        if entry is not None and path.exists():
            index.insert(entry)
            return True
        remove_if_unused(path)
        return False


def prove_file(key: str, path: Path) -> CacheEntry | None:
    """An entry for the file if its content has the digest that ``key`` says, else None."""
    try:
        digest, codec = parse_key(key)
        if not path.is_file() or path.is_symlink():
            return None
        with os.fdopen(open_object(path), "rb") as file:
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
