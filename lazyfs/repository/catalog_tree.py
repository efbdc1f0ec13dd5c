"""`CatalogTree`: the catalogs of one revision, loaded on demand and released under a bound."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from lazyfs.cas.digest import Digest, ObjectKind
from lazyfs.cas.flight import SingleFlight
from lazyfs.cas.store import ObjectRef, ObjectStore
from lazyfs.errors import FormatError, LazyfsError, NotCached
from lazyfs.repository.catalog import Catalog, NestedCatalog
from lazyfs.repository.pathhash import ancestors, is_below, printable

MAX_NESTING = 128
"""Catalogs on the way from the root to a path; real repositories have fewer than ten."""


@dataclass(frozen=True, slots=True)
class _Attached:
    catalog: Catalog
    lineage: frozenset[Digest]
    """Digests from the root to this catalog; a child that is among them is a cycle."""


class CatalogTree:
    """Finds the catalog that knows a path. Safe to use from many threads.

    Args:
        store: Where catalogs come from.
        fqrn: For labels.
        root: Digest of the root catalog.
        root_size: Its declared size; 0: not declared.
        limit: Nested catalogs kept open; the least recently used go first.
        memory: Bytes that they may take together. One that the cache could not take is in memory as
            a whole.
    """

    def __init__(
        self,
        store: ObjectStore,
        fqrn: str,
        root: Digest,
        *,
        root_size: int = 0,
        limit: int,
        memory: int,
    ) -> None:
        self._store = store
        self._fqrn = fqrn
        self._limit = max(1, limit)
        self._memory = memory
        self._lock = threading.Lock()
        self._flights: SingleFlight[_Attached] = SingleFlight()
        self._attached: OrderedDict[bytes, _Attached] = OrderedDict()
        catalog = self._load(NestedCatalog(b"", root, root_size), fetch=True)
        self._root = _Attached(catalog, frozenset((root,)))

    @property
    def root(self) -> Catalog:
        """The root catalog; never released."""
        return self._root.catalog

    def ref(self, catalog: Catalog) -> ObjectRef:
        """Where a catalog of this tree comes from."""
        return self._ref(NestedCatalog(catalog.mountpoint, catalog.digest, 0))

    def holder(self, path: bytes, *, fetch: bool = True) -> Catalog:
        """The catalog that has the row of ``path``; for a mountpoint, the parent.

        Raises:
            LazyfsError: a catalog on the way cannot be loaded.
            NotCached: it would have to be fetched and ``fetch`` is False.
        """
        return self._descend(path, ancestors(path), fetch=fetch)

    def lister(self, path: bytes, *, fetch: bool = True) -> Catalog:
        """The catalog that lists the directory ``path``; for a mountpoint, the nested one.

        Raises:
            LazyfsError: as `holder`.
        """
        return self._descend(path, [*ancestors(path), path], fetch=fetch)

    def attached(self, mountpoint: bytes) -> Catalog | None:
        """The catalog that begins at ``mountpoint``, if it is open."""
        if not mountpoint:
            return self.root
        with self._lock:
            found = self._attached.get(mountpoint)
        return found.catalog if found is not None else None

    def _descend(self, path: bytes, stations: list[bytes], *, fetch: bool) -> Catalog:
        """Follow nested catalogs that begin at one of ``stations`` (prefixes, shortest first)."""
        at, current = self._deepest(stations)
        for station in stations[at:]:
            nested = current.catalog.nested_at(station) if station else None
            if nested is not None:
                current = self._attach(current, nested, path, fetch=fetch)
        return current.catalog

    def _deepest(self, stations: list[bytes]) -> tuple[int, _Attached]:
        """The deepest catalog that is open on the way, and the stations that lie behind it."""
        with self._lock:
            for index in range(len(stations) - 1, -1, -1):
                found = self._attached.get(stations[index])
                if found is not None:
                    self._attached.move_to_end(stations[index])
                    return index + 1, found
        return 0, self._root

    def _attach(
        self, parent: _Attached, nested: NestedCatalog, path: bytes, *, fetch: bool
    ) -> _Attached:
        if nested.digest in parent.lineage:
            raise FormatError(
                f"catalog {nested.digest}C is its own ancestor", path=nested.mountpoint
            )
        if len(parent.lineage) >= MAX_NESTING:
            raise FormatError("catalogs are nested too deeply", path=nested.mountpoint)

        def load() -> _Attached:
            with self._lock:
                found = self._attached.get(nested.mountpoint)
            if found is not None:
                return found
            catalog = self._load(nested, fetch=fetch)
            attached = _Attached(catalog, parent.lineage | {nested.digest})
            self._keep(nested.mountpoint, attached)
            return attached

        key = f"{nested.digest}{'' if fetch else '?'}{nested.mountpoint!r}"
        return self._flights.do(key, load)

    def _load(self, nested: NestedCatalog, *, fetch: bool) -> Catalog:
        ref = self._ref(nested)
        try:
            handle = self._store.open(ref) if fetch else self._store.peek(ref)
            if handle is None:
                raise NotCached("the catalog is not cached", object=str(ref))
            return Catalog(handle, nested.digest, nested.mountpoint)
        except LazyfsError as exc:
            exc.object = exc.object or str(ref)
            exc.path = exc.path or printable(nested.mountpoint)
            raise

    def _ref(self, nested: NestedCatalog) -> ObjectRef:
        where = printable(nested.mountpoint)
        return ObjectRef(
            nested.digest,
            ObjectKind.CATALOG,
            size=nested.size or None,
            label=f"file catalog at {self._fqrn}:{where} ({nested.digest})",
        )

    def _keep(self, mountpoint: bytes, attached: _Attached) -> None:
        """Remember an open catalog; what is let go closes when its last user is done with it."""
        with self._lock:
            self._attached[mountpoint] = attached
            used = sum(other.catalog.memory for other in self._attached.values())
            while len(self._attached) > 1 and (
                len(self._attached) > self._limit or used > self._memory
            ):
                used -= self._attached.popitem(last=False)[1].catalog.memory

    def open_catalogs(self) -> list[bytes]:
        """Mountpoints of the catalogs that are open, the root first."""
        with self._lock:
            return [b"", *sorted(self._attached)]

    def detach_nested(self, below: bytes = b"") -> None:
        """Let go of the nested catalogs at and below a path."""
        with self._lock:
            for mountpoint in [m for m in self._attached if is_below(m, below)]:
                del self._attached[mountpoint]

    def close(self) -> None:
        """Let go of all catalogs."""
        self.detach_nested()
        self._root.catalog.close()
