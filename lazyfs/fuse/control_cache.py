"""Control commands that look after the cache of a mount."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import trio

from lazyfs.cas.digest import ObjectKind
from lazyfs.cas.index import CacheEntry
from lazyfs.cas.local_cache import LocalCache
from lazyfs.cas.store import ObjectRef
from lazyfs.config.settings import MIB
from lazyfs.errors import ControlError, PathError
from lazyfs.fuse.blocking import run_blocking
from lazyfs.fuse.control_values import Json, number
from lazyfs.fuse.filesystem import Filesystem

LOOKING_THREADS = 2
"""Commands that look at the index, in parallel."""

WORKING_THREADS = 2
"""Commands that fetch or evict, in parallel; others wait, and hold up nothing else."""

_HINT = "size, list [pinned|catalogs], limit [get|set MB], cleanup MB, evict|pin|unpin PATH"


class CacheCommands:
    """``cache …``; works on the revision that is shown.

    Args:
        filesystem: The mount.
    """

    def __init__(self, filesystem: Filesystem) -> None:
        self._filesystem = filesystem
        self._looking = trio.CapacityLimiter(LOOKING_THREADS)
        self._working = trio.CapacityLimiter(WORKING_THREADS)

    @property
    def _cache(self) -> LocalCache:
        return self._filesystem.repository.cache

    async def run(self, words: list[str]) -> Json:
        """Do what ``words`` ask for.

        Raises:
            ControlError: there is no such command, or its arguments are wrong.
            LazyfsError: it failed.
        """
        match words:
            case [] | ["size"]:
                return await run_blocking(self._looking, self._size)
            case ["list"]:
                return await run_blocking(self._looking, self._list, lambda entry: True)
            case ["list", "pinned"]:
                return await run_blocking(self._looking, self._list, lambda entry: entry.pinned)
            case ["list", "catalogs"]:
                return await run_blocking(self._looking, self._list, _is_catalog)
            case ["limit"] | ["limit", "get"]:
                return await run_blocking(self._looking, self._limit)
            case ["limit", "set", megabytes]:
                limit = None if megabytes == "-1" else number(megabytes) * MIB
                return await run_blocking(self._working, self._set_limit, limit)
            case ["cleanup", megabytes]:
                target = number(megabytes) * MIB
                return await run_blocking(self._working, self._cache.evictor.shrink, target)
            case ["evict" | "pin" | "unpin" as verb, path]:
                return await run_blocking(self._working, self._change, verb, path)
        raise ControlError("unknown cache command", hint=_HINT)

    def _size(self) -> Json:
        return dict(asdict(self._cache.usage()))

    def _list(self, wanted: Callable[[CacheEntry], bool]) -> Json:
        return [entry.label or entry.key for entry in self._cache.entries() if wanted(entry)]

    def _limit(self) -> Json:
        limit = self._cache.usage().limit
        return None if limit is None else limit // MIB

    def _set_limit(self, limit: int | None) -> Json:
        self._cache.set_limit(limit)
        return self._limit()

    def _change(self, verb: str, path: str) -> Json:
        """Evict, pin or unpin the objects of one file; how many there are."""
        change: dict[str, Callable[[ObjectRef], bool]] = {
            "evict": self._evict,
            "pin": self._pin,
            "unpin": lambda ref: self._cache.unpin(ref.key),
        }
        revision = self._filesystem.revision
        node = revision.resolve(path)
        if not node.is_file:
            raise PathError("not a regular file", path=node.path)
        refs = {extent.ref.key: extent.ref for extent in revision.extents(node)}
        failed = [str(ref) for ref in refs.values() if not change[verb](ref)]
        if failed:
            raise ControlError(
                f"cannot {verb} {len(failed)} of {len(refs)} objects", object=failed[0], path=path
            )
        return len(refs)

    def _evict(self, ref: ObjectRef) -> bool:
        return self._cache.evict(ref.key) or not self._cache.has(ref)

    def _pin(self, ref: ObjectRef) -> bool:
        """Fetch and pin; while it is open nobody evicts it."""
        with self._filesystem.repository.store.open(ref):
            return self._cache.pin(ref.key)


def _is_catalog(entry: CacheEntry) -> bool:
    return entry.kind == ObjectKind.CATALOG.value
