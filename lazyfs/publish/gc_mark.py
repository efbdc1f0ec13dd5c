"""Marking what revisions need: every catalog is read once, however many revisions share it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from lazyfs.cas.digest import ObjectKind
from lazyfs.cas.store import UNDECLARED_LIMIT, ObjectRef
from lazyfs.errors import LazyfsError, ObjectMissing, PublishError
from lazyfs.publish.gc_roots import REPAIR_HINT, KeptRevision
from lazyfs.publish.marks import Marks
from lazyfs.publish.target_store import TargetStore
from lazyfs.repository.catalog import Catalog, NestedCatalog

_AHEAD = 2
"""Catalogs that wait, fetched, for each thread that fetches."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    nested: NestedCatalog
    why: str
    """The revision that needs it, for people."""
    bound: bool
    """It belongs to another revision, of which a kept one shows a view."""


class Marker:
    """Marks all that revisions need.

    Args:
        store: Reads catalogs.
        marks: What is needed.
        workers: Catalogs fetched at a time.
        progress: Called for each catalog.
    """

    def __init__(
        self, store: TargetStore, marks: Marks, workers: int, progress: Callable[[], None]
    ) -> None:
        self._store = store
        self._marks = marks
        self._workers = workers
        self._progress = progress
        self._bound: deque[_Wanted] = deque()
        self.catalogs = 0
        """How many were read."""

    def mark(self, revisions: Iterable[KeptRevision]) -> None:
        """Mark all objects that the revisions name.

        Views of other revisions that a kept one shows are marked too, as far as they are there:
        as with the real server, what keeps such a revision is its tag.

        Raises:
            PublishError: a catalog cannot be read; nothing can be said then.
        """
        roots = deque(
            _Wanted(
                NestedCatalog(b"", kept.revision.root_hash, kept.revision.size),
                f"revision {kept.revision.number}, {kept.reasons[0]}",
                bound=False,
            )
            for kept in revisions
        )
        # What must be readable comes first: a catalog may be both.
        for waiting in (roots, self._bound):
            with ThreadPoolExecutor(self._workers, thread_name_prefix="lazyfs-gc") as pool:
                self._walk(waiting, pool)

    def _walk(self, waiting: deque[_Wanted], pool: ThreadPoolExecutor) -> None:
        fetched: deque[tuple[_Wanted, Future[Catalog]]] = deque()
        try:
            while waiting or fetched:
                while waiting and len(fetched) < self._workers * _AHEAD:
                    wanted = waiting.pop()
                    if not self._marks.is_needed(wanted.nested.digest, ObjectKind.CATALOG):
                        self._marks.need(wanted.nested.digest, ObjectKind.CATALOG)
                        fetched.append((wanted, pool.submit(self._open, wanted)))
                if fetched:
                    self._take(*fetched.popleft(), waiting)
        finally:
            for _, future in fetched:
                if not future.cancel() and future.exception() is None:
                    future.result().close()

    def _take(self, wanted: _Wanted, future: Future[Catalog], waiting: deque[_Wanted]) -> None:
        try:
            catalog = future.result()
            try:
                for digest, kind in catalog.content_objects():
                    self._marks.need(digest, kind)
                below, bound = catalog.nested(), catalog.bound()
            finally:
                catalog.close()
        except PublishError:
            raise  # the target or the disk fails, not the catalog
        except LazyfsError as exc:
            if wanted.bound and isinstance(exc, ObjectMissing):
                return
            raise PublishError(
                f"a catalog of a revision that is to stay ({wanted.why}) cannot be read: {exc}",
                hint=REPAIR_HINT,
            ) from exc
        waiting.extend(_Wanted(nested, wanted.why, wanted.bound) for nested in below)
        for nested in bound:
            root = NestedCatalog(b"", nested.digest, nested.size)
            self._bound.append(_Wanted(root, wanted.why, bound=True))
        self.catalogs += 1
        self._progress()

    def _open(self, wanted: _Wanted) -> Catalog:
        nested = wanted.nested
        # Not of just the recorded size: to read a catalog that its parent says something wrong
        # of is safer than to do nothing about what both name.
        ref = ObjectRef(nested.digest, ObjectKind.CATALOG, limit=max(UNDECLARED_LIMIT, nested.size))
        return Catalog(self._store.open(ref), nested.digest, nested.mountpoint)
