"""`Publisher`: makes a repository, and publishes into it."""

from __future__ import annotations

import contextlib
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lazyfs.cas.digest import Algorithm, Digest
from lazyfs.config.files import check_fqrn
from lazyfs.errors import PublishError
from lazyfs.publish.catalog_slots import SlotState
from lazyfs.publish.content import ContentStore
from lazyfs.publish.cutter import ChunkSizes
from lazyfs.publish.directory_source import DirectorySource
from lazyfs.publish.ingest import TreeOptions
from lazyfs.publish.keys import RepositoryKeys
from lazyfs.publish.lease import Lease, held, new_holder
from lazyfs.publish.ledger import Head, Ledger
from lazyfs.publish.nesting import dirtab_digest
from lazyfs.publish.signing import WHITELIST_DAYS
from lazyfs.publish.source import SourceEntry
from lazyfs.publish.target import UploadTarget
from lazyfs.publish.transaction import PublishResult, Transaction, local_errors
from lazyfs.publish.writable_tree import WritableTree
from lazyfs.repository.catalog import NestedCatalog
from lazyfs.repository.manifest import ROOT_PATH_MD5, Manifest

DEFAULT_TTL = 240
"""Seconds, upstream's default for new repositories."""

_MASTER_REPLICA = (
    ".cvmfs_master_replica",
    b"This file marks the repository as replicatable\n",
)


class Publisher:
    """Publishes into one repository.

    ::

        with publisher.transaction() as transaction:
            transaction.sync(DirectorySource(folder), at="/software")
            transaction.remove("/old")
            transaction.commit(tag="v2")

    Args:
        target: Where the repository lies.
        keys: Sign what is published.
        fqrn: The repository's name.
        algorithm: Names objects; None: the repository's own, SHA-1 for a new one.
        sizes: Of chunks.
        ttl: Seconds after which clients look for a newer revision; None: as before.
    """

    def __init__(
        self,
        target: UploadTarget,
        keys: RepositoryKeys,
        fqrn: str,
        *,
        algorithm: Algorithm | None = None,
        sizes: ChunkSizes | None = None,
        ttl: int | None = None,
    ) -> None:
        self._target = target
        self._ttl = ttl
        self._algorithm = algorithm
        self._sizes = sizes or ChunkSizes()
        self.ledger = Ledger(target, keys, check_fqrn(fqrn))

    def init(
        self, *, garbage_collectable: bool = True, metainfo: bytes | None = None
    ) -> PublishResult:
        """Make the repository, with an empty revision.

        Args:
            garbage_collectable: Old revisions may be removed some day.
            metainfo: JSON text about the repository, for people.

        Raises:
            PublishError: there is one already, or the place cannot be written.
        """
        self._target.prepare()
        if self.ledger.find_head() is not None:
            raise PublishError("there is a repository already", path=self._target.name)
        algorithm = self._algorithm or Algorithm.SHA1
        seed = Manifest(
            root_catalog=Digest(algorithm, bytes(algorithm.size)),
            root_path=ROOT_PATH_MD5,
            ttl=self._ttl or DEFAULT_TTL,
            revision=-1,
            garbage_collectable=garbage_collectable,
        )
        with held(self._target, "init"), _workspace() as workspace:
            self.ledger.sign_whitelist(algorithm, WHITELIST_DAYS)
            self._target.replace(*_MASTER_REPLICA)
            store = self.store(algorithm)
            tree = WritableTree(store, workspace, None)
            tree.put(b"", SourceEntry(b"", stat.S_IFDIR | 0o755, 4096, time.time_ns(), 0, 0))
            with contextlib.closing(
                Transaction(self.ledger, Head(seed, ""), store, tree, TreeOptions())
            ) as transaction:
                return transaction.commit(metainfo=metainfo)

    @contextlib.contextmanager
    def transaction(
        self, *, options: TreeOptions | None = None, wait: float = 0.0
    ) -> Iterator[Transaction]:
        """Change the newest revision; what is not committed when the block ends is forgotten.

        Args:
            options: How trees are published.
            wait: Seconds to wait for another publisher to end.

        Raises:
            PublishError: another publisher is at work, or clients would not believe what these
                keys sign.
        """
        self.ledger.head()  # better known before the lease is taken
        with (
            held(self._target, "publish", wait=wait),
            _workspace() as workspace,
            self.opened(workspace, options or TreeOptions()) as transaction,
        ):
            yield transaction

    @contextlib.contextmanager
    def opened(
        self,
        workspace: Path,
        options: TreeOptions,
        *,
        slots: list[SlotState] | None = None,
        dirtab: Digest | None = None,
    ) -> Iterator[Transaction]:
        """A transaction for who has the lease already.

        Args:
            workspace: A folder for catalogs that are being changed.
            options: How trees are published.
            slots: What another process has left in the workspace.
            dirtab: The rules of the old revision, if there are slots.

        Raises:
            PublishError: clients would not believe what these keys sign.
        """
        head = self.ledger.head()
        self.ledger.check_readable()
        store = self.store(self.algorithm_after(head))
        root = NestedCatalog(b"", head.manifest.root_catalog, head.manifest.catalog_size)
        with local_errors():
            tree = WritableTree(
                store, workspace, None if slots else root, nanoseconds=options.nanoseconds
            )
            if slots:
                tree.slots.restore(slots)
            else:
                dirtab = dirtab_digest(tree)
        with contextlib.closing(
            Transaction(self.ledger, head, store, tree, options, dirtab=dirtab)
        ) as transaction:
            yield transaction

    def lease_for_user(self, purpose: str, seconds: float, *, wait: float = 0.0) -> Lease:
        """The right to publish, for a user's commands and not for this process.

        Raises:
            PublishError: somebody else has it.
        """
        self.ledger.head()
        holder = new_holder(purpose, seconds, now=time.time(), process=False)
        return Lease.acquire(self._target, holder, wait=wait)

    def publish(
        self,
        source: Path,
        *,
        options: TreeOptions | None = None,
        tag: str | None = None,
        description: str = "",
    ) -> PublishResult:
        """Publish the directory ``source`` as the whole content of a new revision.

        Raises:
            PublishError: something cannot be read or written; the old revision stands.
        """
        options = options or TreeOptions()
        folder = DirectorySource(source, xattrs=options.xattrs)
        with self.transaction(options=options) as transaction:
            transaction.check_tag(tag)
            transaction.sync(folder)
            return transaction.commit(tag=tag, description=description, ttl=self._ttl)

    def renew_whitelist(self, *, days: int = WHITELIST_DAYS) -> None:
        """Sign a whitelist that is valid for ``days`` from now.

        Raises:
            PublishError: there is no repository, or its place cannot be written.
        """
        self.ledger.sign_whitelist(self.algorithm_after(self.ledger.head()), days)

    def renew_certificate(
        self, keys: RepositoryKeys, *, days: int = WHITELIST_DAYS, wait: float = 0.0
    ) -> None:
        """Have the newest revision signed by another certificate, which the whitelist lists then.

        At no moment is there a manifest that the whitelist does not vouch for. The old
        certificate stays listed until the whitelist is renewed the next time, so that caches may
        still have the old manifest.

        Args:
            keys: The new repository key and certificate, with the old master key.
            days: How long the whitelist shall hold.
            wait: Seconds to wait for another publisher to end.

        Raises:
            PublishError: another publisher is at work, or something cannot be written.
        """
        with held(self._target, "new certificate", wait=wait):
            head = self.ledger.head()
            algorithm = self.algorithm_after(head)
            tags = self.ledger.tags(head)
            old = self.ledger.keys.certificate_der
            self.ledger = Ledger(self._target, keys, self.ledger.fqrn)
            self.ledger.sign_whitelist(algorithm, days, others=[old])
            manifest = replace(head.manifest, timestamp=self.ledger.now(head))
            self.ledger.advance(self.store(algorithm), manifest, after=head, tags=tags)

    def store(self, algorithm: Algorithm) -> ContentStore:
        """Where content goes."""
        return ContentStore(self._target, algorithm, self._sizes)

    def algorithm_after(self, head: Head) -> Algorithm:
        """What names objects of the next revision."""
        return self._algorithm or head.manifest.root_catalog.algorithm


@contextlib.contextmanager
def _workspace() -> Iterator[Path]:
    """A folder for catalogs in the making."""
    with local_errors():
        folder = tempfile.TemporaryDirectory(prefix="lazyfs-publish-")
    with folder as name:
        yield Path(name)
