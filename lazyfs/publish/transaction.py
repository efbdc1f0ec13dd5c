"""`Transaction`: changes to a repository that become visible together, or not at all."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from lazyfs.cas.digest import Digest, ObjectKind
from lazyfs.errors import PublishError
from lazyfs.publish.content import ContentStore
from lazyfs.publish.directory_source import DirectorySource
from lazyfs.publish.history_writer import TRUNK, check_new_name, moved_trunk
from lazyfs.publish.ingest import Ingestor, TreeOptions
from lazyfs.publish.ledger import Head, Ledger
from lazyfs.publish.nesting import apply_dirtab, balance, dirtab_digest, read_dirtab
from lazyfs.publish.pipeline import ContentPipeline, workers
from lazyfs.publish.source import Source
from lazyfs.publish.tree_finisher import FinishedTree, Stamp, finish_tree
from lazyfs.publish.writable_tree import WritableTree
from lazyfs.repository.history import Tag
from lazyfs.repository.manifest import Manifest
from lazyfs.repository.pathhash import normalize


@dataclass(frozen=True, slots=True)
class PublishResult:
    """What a publish did."""

    revision: int
    root_hash: Digest
    files: int
    """Regular files in the new revision."""
    file_bytes: int
    """Their content, uncompressed."""
    catalogs: int
    """In the new revision."""
    new_catalogs: int
    """Those of them that had to be written."""
    new_objects: int
    """Objects that were not in the store before."""
    new_bytes: int
    """Their stored bytes."""


class Transaction:
    """Changes the tree of one revision into that of the next; not safe to use from many threads.

    Made by `Publisher.transaction`. Paths are those of the repository, ``/a/b``, as text or bytes.

    Args:
        ledger: Of the repository.
        head: The revision to follow; for a repository's first one, a stand-in numbered -1.
        store: Where content goes.
        tree: What is changed.
        options: How trees are published.
        dirtab: The rules of the old revision, see `dirtab_digest`.
    """

    def __init__(
        self,
        ledger: Ledger,
        head: Head,
        store: ContentStore,
        tree: WritableTree,
        options: TreeOptions,
        *,
        dirtab: Digest | None = None,
    ) -> None:
        self._ledger = ledger
        self.head = head
        self._store = store
        self._options = options
        self._pool = ThreadPoolExecutor(workers(), thread_name_prefix="lazyfs-publish")
        self.tree = tree
        """What is changed."""
        self.dirtab = dirtab

    # --- changes -----------------------------------------------------------------------------

    def ingest(self, source: Source, at: bytes | str = b"", *, replace: bool = False) -> None:
        """Add all that ``source`` has below the directory ``at``.

        Args:
            source: A `DirectorySource`, a `TarSource`, …
            at: Is made if it is not there.
            replace: Remove first what is there; otherwise the source's entries take the place of
                those with the same path, and all others stay.

        Raises:
            PublishError: something cannot be read, or has no place.
        """
        path = normalize(at)
        with local_errors():
            if replace:
                self._clear(path)
            self._ingestor().ingest(source, path)

    def sync(self, source: DirectorySource, at: bytes | str = b"") -> None:
        """Make the subtree ``at`` equal to a directory.

        Files of the same size and time as before are taken for unchanged, and not read.

        Raises:
            PublishError: something cannot be read, or has no place.
        """
        with local_errors():
            self._ingestor().sync(source, normalize(at))

    def remove(self, path: bytes | str) -> None:
        """Remove an entry and all below it.

        Raises:
            PublishError: there is none.
        """
        with local_errors():
            self.tree.remove(normalize(path))

    def _clear(self, path: bytes) -> None:
        if path and self.tree.find(path) is not None:
            self.tree.remove(path)
        elif not path:
            for child in self.tree.children(b""):
                self.tree.remove(child.path)

    def _ingestor(self) -> Ingestor:
        # A file that was changed in the same second as the catalog may have been read before.
        settled = max(0, self.head.manifest.timestamp - 1) * 1_000_000_000
        pipeline = ContentPipeline(self._store, self._pool, workers())
        dirtab = read_dirtab(self.tree, self._store)
        return Ingestor(
            self.tree,
            pipeline,
            self._options,
            trusted_before=settled,
            keeps_marker=dirtab.matches if dirtab is not None else lambda path: False,
        )

    def _nest(self) -> None:
        """Begin nested catalogs where the rules or the sizes ask for them."""
        dirtab = read_dirtab(self.tree, self._store)
        if dirtab is not None:
            changed = dirtab_digest(self.tree) != self.dirtab
            apply_dirtab(self.tree, self._store, dirtab, everywhere=changed)
        if self._options.weights is not None:
            balance(self.tree, self._store, self._options.weights)

    # --- the end -----------------------------------------------------------------------------

    def commit(
        self,
        *,
        tag: str | None = None,
        description: str = "",
        ttl: int | None = None,
        metainfo: bytes | None = None,
    ) -> PublishResult:
        """Publish the tree as a new revision.

        Objects are stored by now; catalogs follow from the leaves up, then history, and the
        manifest last, in one step.

        Args:
            tag: Name the new revision.
            description: Of the tag.
            ttl: Seconds after which clients look for a newer revision; None: as before.
            metainfo: JSON text about the repository, for people; None: as before.

        Raises:
            PublishError: somebody else has published meanwhile, or something cannot be written.
                The old revision stands.
        """
        old = self.head.manifest
        tags = self.check_tag(tag)
        now = self._ledger.now(self.head)
        manifest = replace(
            old,
            ttl=old.ttl if ttl is None else ttl,
            revision=old.revision + 1,
            timestamp=now,
        )
        if metainfo is not None:
            digest = self._store.put_bytes(metainfo, ObjectKind.METAINFO)
            manifest = replace(manifest, metainfo=digest)
        with local_errors():
            self._nest()
            stamp = Stamp(manifest.revision, now, {"TTL": str(manifest.ttl)})
            finished = finish_tree(self.tree.slots, self._store, stamp, self._pool)
        manifest = replace(manifest, root_catalog=finished.root, catalog_size=finished.size)
        head = moved_trunk(tags, _trunk(manifest), tag, description)
        after = self.head if old.revision >= 0 else None
        self.head = self._ledger.advance(self._store, manifest, after=after, tags=head)
        return self._result(finished)

    def check_tag(self, tag: str | None) -> tuple[Tag, ...]:
        """All tags so far, if the new revision may be named so: better known before the work.

        Raises:
            PublishError: the name is taken, or can be none.
        """
        tags = self._ledger.tags(self.head)
        if tag is not None:
            check_new_name(tag, {known.name for known in tags})
        return tags

    def _result(self, finished: FinishedTree) -> PublishResult:
        counters = finished.counters
        return PublishResult(
            self.head.manifest.revision,
            finished.root,
            counters["regular"],
            counters["file_size"],
            counters["nested"] + 1,
            finished.written,
            self._store.uploaded.objects,
            self._store.uploaded.bytes,
        )

    def close(self) -> None:
        """End without publishing what was not committed."""
        self._pool.shutdown(cancel_futures=True)
        self.tree.close()


@contextlib.contextmanager
def local_errors() -> Iterator[None]:
    """Tell in an error of ours what goes wrong with files on this machine."""
    try:
        yield
    except sqlite3.Error as exc:
        raise PublishError(f"cannot change a catalog: {exc}", hint=_ROOM) from exc
    except OSError as exc:
        raise PublishError(
            f"cannot publish: {exc.strerror}", path=str(exc.filename or ""), hint=_ROOM
        ) from exc


_ROOM = "is there room for temporary files? TMPDIR says where they go"


def _trunk(manifest: Manifest) -> Tag:
    return Tag(
        TRUNK,
        manifest.root_catalog,
        manifest.revision,
        manifest.timestamp,
        "current HEAD",
        manifest.catalog_size,
    )
