"""Checking a cache: every file against its checksum and its name, every row against its file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lazyfs.cas.index import CacheEntry
from lazyfs.cas.layout import is_unused, open_object, remove_if_unused
from lazyfs.cas.local_cache import LocalCache, checksum_of
from lazyfs.cas.rebuild import adopt
from lazyfs.cas.writer import signed64

Progress = Callable[[int, int], None]
"""Called with the objects checked so far and their number in all."""


@dataclass(frozen=True, slots=True)
class CacheProblem:
    """One thing that is wrong in a cache."""

    key: str
    message: str
    repaired: bool


@dataclass(frozen=True, slots=True)
class FsckReport:
    """What a check of the cache found."""

    objects: int
    bytes: int
    problems: tuple[CacheProblem, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong, or all of it was repaired."""
        return all(problem.repaired for problem in self.problems)


def fsck(
    cache: LocalCache, *, repair: bool = False, progress: Progress | None = None
) -> FsckReport:
    """Check a whole cache, also while others use it.

    Args:
        cache: The cache; must be writable.
        repair: Remove what is damaged (it is fetched again when next wanted), adopt or remove
            files that the index does not know, and make the sums right.
        progress: Called after each object.
    """
    problems = _check_index(cache, repair=repair)
    if problems and not repair:
        return FsckReport(0, 0, tuple(problems))
    entries = list(cache.entries())
    total = 0
    for number, entry in enumerate(entries, 1):
        total += entry.size
        problems += _check_entry(cache, entry, repair=repair)
        if progress is not None:
            progress(number, len(entries))
    problems += _check_orphans(cache, repair=repair)
    problems += _check_temporary(cache, repair=repair)
    if not cache.index.sums_agree():
        problems.append(CacheProblem("", "the sums in the index are wrong", repaired=repair))
    if repair:
        cache.sweep()
        cache.index.recount()
        cache.evictor.shrink_to_limit()
    return FsckReport(len(entries), total, tuple(problems))


def _check_index(cache: LocalCache, *, repair: bool) -> list[CacheProblem]:
    if cache.index.is_sound():
        return []
    if repair:
        cache.rebuild_index()
    return [CacheProblem("", "the index is damaged", repaired=repair)]


def _check_entry(cache: LocalCache, entry: CacheEntry, *, repair: bool) -> list[CacheProblem]:
    message = _damage(cache, entry)
    if not message:
        return []
    with cache.index.exclusive():
        # It may have been evicted or fetched again meanwhile; nothing moves in here.
        found = cache.index.find(entry.key)
        message = _damage(cache, found) if found is not None else ""
        if not message:
            return []
        return [CacheProblem(entry.key, message, repair and _drop(cache, entry.key))]


def _damage(cache: LocalCache, entry: CacheEntry) -> str:
    path = cache.layout.object_path(entry.key)
    try:
        fd = open_object(path)
    except FileNotFoundError:
        return "the file is missing"
    except OSError as exc:
        return f"cannot be opened: {exc.strerror}"
    try:
        size = os.fstat(fd).st_size
        if size != entry.size:
            return f"{size} bytes where {entry.size} are expected"
        if signed64(checksum_of(fd)) != entry.checksum:
            return "the checksum differs"
    except OSError as exc:
        return f"cannot be read: {exc.strerror}"
    finally:
        os.close(fd)
    return ""


def _drop(cache: LocalCache, key: str) -> bool:
    try:
        cache.layout.object_path(key).unlink(missing_ok=True)
    except OSError:
        return False
    cache.index.remove(key, counter="healed")
    return True


def _check_orphans(cache: LocalCache, *, repair: bool) -> list[CacheProblem]:
    known = {entry.key for entry in cache.index.entries()}
    return [
        CacheProblem(key, "the index does not know the file", repair and _adopt(cache, key, path))
        for key, path in cache.layout.object_keys()
        if key not in known and cache.index.find(key) is None and os.path.lexists(path)
    ]


def _adopt(cache: LocalCache, key: str, path: Path) -> bool:
    return adopt(cache.index, key, path) or not os.path.lexists(path)


def _check_temporary(cache: LocalCache, *, repair: bool) -> list[CacheProblem]:
    return [
        CacheProblem(path.name, "a dead process left it", repair and remove_if_unused(path))
        for path in cache.layout.temporary_files()
        if is_unused(path)
    ]
