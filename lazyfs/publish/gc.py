"""Garbage collection: old revisions are let go, and what no kept one needs is removed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lazyfs.cas.digest import ObjectKind, parse_object_path
from lazyfs.errors import PublishError
from lazyfs.publish.content import ContentStore
from lazyfs.publish.gc_mark import Marker
from lazyfs.publish.gc_roots import GcPolicy, KeptRevision, find_roots
from lazyfs.publish.history_writer import REFLOG_CATALOG, REFLOG_KINDS, Reference
from lazyfs.publish.lease import LEASE_PATH, Lease, held
from lazyfs.publish.ledger import Head, Ledger
from lazyfs.publish.marks import Marks
from lazyfs.publish.target import StoredObject
from lazyfs.publish.target_store import TargetStore, opened_store

Progress = Callable[[int, int], None]
"""Called with the catalogs read, objects looked at and objects removed so far, and 0."""

_STAGING = "data/txn/"
_IN_USE = frozenset((LEASE_PATH, f"{_STAGING}documents.lock"))
"""What lies among abandoned uploads and is none."""

_BATCH = 1000
"""Objects that are removed at a time, and as many as S3 takes in one request."""


@dataclass(frozen=True, slots=True)
class GcReport:
    """What a garbage collection did, or would do."""

    dry_run: bool
    kept: tuple[KeptRevision, ...]
    dropped: tuple[Reference, ...]
    """Revisions, by their root catalogs, that the reflog had until now."""
    catalogs: int
    """Catalogs of the kept revisions."""
    kept_objects: int
    kept_bytes: int
    """As they are stored."""
    removed_objects: int
    """Abandoned uploads are among them."""
    removed_bytes: int


def collect_garbage(
    ledger: Ledger,
    policy: GcPolicy | None = None,
    *,
    dry_run: bool = False,
    force: bool = False,
    wait: float = 0.0,
    workers: int = 8,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.time,
) -> GcReport:
    """Remove what no kept revision needs.

    First all catalogs of the kept revisions are read; if one of them cannot be, nothing happens.
    Then reflog and manifest let go of the others, and only then are objects removed: whoever is
    killed at any point leaves a repository that is whole, and at worst objects for the next time.
    Nobody else may publish meanwhile, and who began before cannot end. Memory is bounded; the
    list of what is needed, some 30 bytes an object, lies in the folder for temporary files.

    Args:
        ledger: Of the repository.
        policy: Which revisions stay.
        dry_run: Only tell what would happen; whoever publishes meanwhile may blur it.
        force: Also if the repository is said not to be collectable.
        wait: Seconds to wait for another publisher to end.
        workers: Catalogs fetched at a time.
        progress: Called as the collection goes on.
        clock: Tells Unix time.

    Raises:
        PublishError: it may not be collected, or what must stay cannot be told.
        LazyfsError: manifest, tags or reflog cannot be read or believed.
    """
    collection = _Collection(ledger, policy or GcPolicy(), workers, progress, clock)
    _check_collectable(ledger, ledger.head(), force=force)
    if dry_run:
        return collection.run(None)
    with held(ledger.target, "collect garbage", wait=wait) as lease:
        return collection.run(lease)


def _check_collectable(ledger: Ledger, head: Head, *, force: bool) -> None:
    if not head.manifest.garbage_collectable and not force:
        raise PublishError(
            "the repository is not made for garbage collection: its readers may count on old"
            " revisions",
            path=ledger.target.name,
            hint="collect all the same with --force",
        )


class _Collection:
    def __init__(
        self,
        ledger: Ledger,
        policy: GcPolicy,
        workers: int,
        progress: Progress | None,
        clock: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._policy = policy
        self._workers = workers
        self._progress = progress
        self._fresh_since = clock() - policy.grace
        self._steps = 0

    def run(self, lease: Lease | None) -> GcReport:
        """Collect; without a lease, tell what would be collected."""
        with (
            opened_store(self._ledger.target) as store,
            Marks(store.workspace / "marks") as marks,
        ):
            return self._run(store, marks, lease)

    def _run(self, store: TargetStore, marks: Marks, lease: Lease | None) -> GcReport:
        ledger = self._ledger
        head = ledger.head()
        references = ledger.references()
        if not references:
            raise PublishError(
                "there is no reflog: nobody knows which revisions there are",
                path=ledger.target.name,
                hint="publish once: that makes one of the newest revision, all others will go",
            )
        kept = find_roots(store, head, ledger.tags(head), references, self._policy)
        marker = Marker(store, marks, self._workers, self._step)
        marker.mark(kept)
        rows = self._kept_rows(head, kept, references)
        for row in rows:
            if row.type in REFLOG_KINDS:
                marks.need(row.digest, REFLOG_KINDS[row.type])
        self._need_documents(head, marks)
        objects, size = self._condemn(marks)
        if lease is not None and (rows != references or marks.any_condemned()):
            lease.renew()
            self._need_documents(self._let_go(head, rows), marks)
        removed_objects, removed_size = self._remove(marks, lease)
        gone = [r for r in references if r.type == REFLOG_CATALOG and r not in rows]
        return GcReport(
            lease is None,
            tuple(kept),
            tuple(gone),
            marker.catalogs,
            objects,
            size,
            removed_objects,
            removed_size,
        )

    def _kept_rows(
        self, head: Head, kept: Sequence[KeptRevision], references: Sequence[Reference]
    ) -> list[Reference]:
        """What the reflog shall hold: the kept revisions, and documents that readers may hold."""
        manifest = head.manifest
        roots = {k.revision.root_hash: k.revision.timestamp for k in kept}
        named = {manifest.certificate, manifest.history, manifest.metainfo}

        def stays(row: Reference) -> bool:
            if row.type == REFLOG_CATALOG:
                return row.digest in roots
            # What is of no known type belongs to a later format.
            recent = row.timestamp >= self._fresh_since
            return recent or row.digest in named or row.type not in REFLOG_KINDS

        rows = [row for row in references if stays(row)]
        logged = {row.digest for row in rows}
        rows += [Reference(r, REFLOG_CATALOG, t) for r, t in roots.items() if r not in logged]
        return rows

    def _let_go(self, head: Head, rows: Sequence[Reference]) -> Head:
        """Reflog and manifest without the revisions that go.

        The manifest changes even if there are none: a publisher that has lost its lease without
        knowing may count on objects that nothing names yet, and must not find the manifest as it
        was when it replaces it.
        """
        ledger = self._ledger
        ledger.check_readable()
        store = ContentStore(ledger.target, head.manifest.root_catalog.algorithm)
        later = max(ledger.now(head), head.manifest.timestamp + 1)
        manifest = replace(head.manifest, timestamp=later)
        return ledger.advance(store, manifest, after=head, tags=ledger.tags(head), references=rows)

    def _need_documents(self, head: Head, marks: Marks) -> None:
        manifest = head.manifest
        for digest, kind in (
            (manifest.certificate, ObjectKind.CERTIFICATE),
            (manifest.history, ObjectKind.HISTORY),
            (manifest.metainfo, ObjectKind.METAINFO),
        ):
            if digest is not None:
                marks.need(digest, kind)

    def _condemn(self, marks: Marks) -> tuple[int, int]:
        """Note all that shall go; objects and bytes that stay."""
        objects = size = 0
        for stored in self._ledger.target.objects():
            found = parse_object_path(stored.path)
            if found is None:
                # What has no name of an object is left alone, but for abandoned uploads.
                if self._is_abandoned(stored):
                    marks.condemn(stored.path, stored.size)
            elif marks.is_needed(*found):
                objects, size = objects + 1, size + stored.size
            else:
                marks.condemn(stored.path, stored.size)
            self._step()
        return objects, size

    def _is_abandoned(self, stored: StoredObject) -> bool:
        return (
            stored.path.startswith(_STAGING)
            and stored.path not in _IN_USE
            and stored.modified < self._fresh_since
        )

    def _remove(self, marks: Marks, lease: Lease | None) -> tuple[int, int]:
        """Remove what is condemned, if somebody holds the lease; how much that is."""
        objects = size = 0
        for batch in marks.condemned(_BATCH):
            if lease is not None:
                # Whoever took the right to publish meanwhile may count on what is still there.
                lease.renew()
                batch = [each for each in batch if not self._is_needed_now(each[0], marks)]
                self._ledger.target.remove(path for path, _ in batch)
            objects += len(batch)
            size += sum(each for _, each in batch)
            self._step(len(batch))
        return objects, size

    def _is_needed_now(self, path: str, marks: Marks) -> bool:
        """Whether the new manifest names what was condemned: another certificate, perhaps."""
        found = parse_object_path(path)
        return found is not None and marks.is_needed(*found)

    def _step(self, steps: int = 1) -> None:
        self._steps += steps
        if self._progress is not None:
            self._progress(self._steps, 0)
