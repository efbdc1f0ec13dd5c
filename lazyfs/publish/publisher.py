"""Making repositories and publishing directories into them."""

from __future__ import annotations

import contextlib
import datetime
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from lazyfs.cas.digest import Algorithm, Digest, ObjectKind
from lazyfs.cas.directory_store import DirectoryStore
from lazyfs.cas.store import ObjectRef
from lazyfs.config.files import check_fqrn
from lazyfs.errors import PublishError
from lazyfs.publish import history_writer as history
from lazyfs.publish.content import ContentStore
from lazyfs.publish.cutter import ChunkSizes
from lazyfs.publish.keys import RepositoryKeys
from lazyfs.publish.signing import WHITELIST_DAYS, make_whitelist, sign_manifest, sign_whitelist
from lazyfs.publish.target import DirectoryTarget
from lazyfs.publish.tree_writer import TreeOptions, TreeWriter, workers
from lazyfs.repository.history import Tag, read_tags
from lazyfs.repository.manifest import MANIFEST_PATH, ROOT_PATH_MD5, Manifest, parse_manifest
from lazyfs.repository.whitelist import WHITELIST_PATH

REFLOG_PATH = ".cvmfsreflog"
DEFAULT_TTL = 240
"""Seconds, upstream's default for new repositories."""


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
    new_objects: int
    """Objects that were not in the store before."""
    new_bytes: int
    """Their stored bytes."""


@dataclass(frozen=True, slots=True)
class _Step:
    """From one revision to the next."""

    source: Path
    old: Manifest
    """The revision to follow; for a repository's first one, a stand-in numbered -1."""
    metainfo: bytes | None = None
    options: TreeOptions = field(default_factory=TreeOptions)
    tag: str | None = None
    description: str = ""

    @property
    def is_first(self) -> bool:
        """Whether there is no revision before."""
        return self.old.revision < 0


class Publisher:
    """Publishes into one repository in a folder.

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
        target: DirectoryTarget,
        keys: RepositoryKeys,
        fqrn: str,
        *,
        algorithm: Algorithm | None = None,
        sizes: ChunkSizes | None = None,
        ttl: int | None = None,
    ) -> None:
        self._target = target
        self._keys = keys
        self._fqrn = check_fqrn(fqrn)
        self._ttl = ttl
        self._algorithm = algorithm
        self._sizes = sizes or ChunkSizes()

    def init(
        self, *, garbage_collectable: bool = True, metainfo: bytes | None = None
    ) -> PublishResult:
        """Make the repository, with an empty revision.

        Args:
            garbage_collectable: Old revisions may be removed some day.
            metainfo: JSON text about the repository, for people.

        Raises:
            PublishError: there is one already, or the folder cannot be written.
        """
        if self._target.read(MANIFEST_PATH) is not None:
            raise PublishError("there is a repository already", path=str(self._target.root))
        self._target.prepare()
        self._sign_whitelist(self._algorithm or Algorithm.SHA1, WHITELIST_DAYS)
        self._target.replace(
            ".cvmfs_master_replica", b"This file marks the repository as replicatable\n"
        )
        with tempfile.TemporaryDirectory() as empty:
            Path(empty).chmod(0o755)
            seed = Manifest(
                root_catalog=Digest(self._algorithm or Algorithm.SHA1, bytes(20)),
                root_path=ROOT_PATH_MD5,
                ttl=self._ttl or DEFAULT_TTL,
                revision=-1,
                garbage_collectable=garbage_collectable,
            )
            with self._work() as workspace:
                return self._publish(_Step(Path(empty), seed, metainfo), workspace)

    def renew_whitelist(self, *, days: int = WHITELIST_DAYS) -> None:
        """Sign a whitelist that is valid for ``days`` from now.

        Raises:
            PublishError: there is no repository, or its folder cannot be written.
        """
        self._sign_whitelist(self._algorithm_after(self._existing()), days)

    def _sign_whitelist(self, algorithm: Algorithm, days: int) -> None:
        now = datetime.datetime.now(datetime.UTC)
        whitelist = make_whitelist(self._fqrn, self._keys, algorithm, now=now, days=days)
        self._target.replace(
            WHITELIST_PATH, sign_whitelist(whitelist, self._keys.master, algorithm)
        )

    def publish(
        self,
        source: Path,
        *,
        options: TreeOptions | None = None,
        tag: str | None = None,
        description: str = "",
    ) -> PublishResult:
        """Publish the directory ``source`` as the whole content of a new revision.

        Objects go first, then catalogs from the leaves up, then history, and the manifest last,
        so that readers never see a part of it. Objects that exist are not written again.

        Raises:
            PublishError: something cannot be read or written; the old revision stands.
        """
        if not source.is_dir():
            raise PublishError("not a directory", path=str(source))
        with self._work() as workspace:
            step = _Step(source, self._existing(), None, options or TreeOptions(), tag, description)
            return self._publish(step, workspace)

    @contextlib.contextmanager
    def _work(self) -> Iterator[Path]:
        """A folder for catalogs in the making, while other publishers are kept out."""
        with self._target.lock():
            try:
                with tempfile.TemporaryDirectory(prefix="lazyfs-publish-") as workspace:
                    yield Path(workspace)
            except sqlite3.Error as exc:
                raise PublishError(f"cannot write a catalog: {exc}") from exc
            except OSError as exc:
                raise PublishError(
                    f"cannot publish: {exc.strerror}", path=str(exc.filename or "")
                ) from exc

    def _algorithm_after(self, old: Manifest) -> Algorithm:
        return self._algorithm or old.root_catalog.algorithm

    def _existing(self) -> Manifest:
        """The manifest of the repository that must be there."""
        manifest = self._manifest()
        if manifest is None:
            raise PublishError(
                "no repository in this folder",
                path=str(self._target.root),
                hint="make one with 'lazyfs publish init'",
            )
        return manifest

    def _publish(self, step: _Step, workspace: Path) -> PublishResult:
        old, now = step.old, int(time.time())
        store = ContentStore(self._target, self._algorithm_after(old), self._sizes)
        tags = self._new_tags(step)
        ttl = self._ttl if self._ttl is not None else old.ttl
        properties = {
            "revision": str(old.revision + 1),
            "last_modified": str(now),
            "TTL": str(ttl),
            **({} if step.is_first else {"previous_revision": str(old.root_catalog)}),
        }
        with ThreadPoolExecutor(workers(), thread_name_prefix="lazyfs-publish") as pool:
            writer = TreeWriter(store, workspace, step.options, pool)
            root = writer.write(os.fsencode(step.source), properties)
        # All that is not said here stays as it was: meta-info, garbage collection, …
        manifest = replace(
            old,
            root_catalog=root.digest,
            ttl=ttl,
            revision=old.revision + 1,
            catalog_size=root.size,
            fqrn=self._fqrn,
            certificate=store.put_bytes(self._keys.certificate_pem, ObjectKind.CERTIFICATE),
            timestamp=now,
            alternative_paths=False,
        )
        if step.metainfo is not None:
            metainfo = store.put_bytes(step.metainfo, ObjectKind.METAINFO)
            manifest = replace(manifest, metainfo=metainfo)
        manifest = self._with_history(store, workspace, manifest, old.history, tags)
        manifest = replace(manifest, reflog=self._write_reflog(store, workspace, manifest))
        self._target.replace(
            MANIFEST_PATH, sign_manifest(manifest, self._keys.key, store.algorithm)
        )
        return PublishResult(
            manifest.revision,
            root.digest,
            root.counters["regular"],
            root.counters["file_size"],
            root.counters["nested"] + 1,
            store.uploaded.objects,
            store.uploaded.bytes,
        )

    def _manifest(self) -> Manifest | None:
        content = self._target.read(MANIFEST_PATH)
        if content is None:
            return None
        manifest = parse_manifest(content)
        if manifest.fqrn != self._fqrn:
            raise PublishError(
                f"the folder holds {manifest.fqrn}, not {self._fqrn}", path=str(self._target.root)
            )
        return manifest

    def _new_tags(self, step: _Step) -> Callable[[Tag], list[Tag]]:
        """What the tags will be once the new head is known; a bad name is refused at once."""
        tags: tuple[Tag, ...] = ()
        if step.old.history is not None:
            ref = ObjectRef(step.old.history, ObjectKind.HISTORY)
            tags = read_tags(DirectoryStore(self._target.root).open(ref), str(ref))
        if step.tag is not None:
            history.check_new_name(step.tag, {tag.name for tag in tags})
        return lambda head: history.moved_trunk(tags, head, step.tag, step.description)

    def _with_history(
        self,
        store: ContentStore,
        workspace: Path,
        manifest: Manifest,
        previous: Digest | None,
        tags: Callable[[Tag], list[Tag]],
    ) -> Manifest:
        head = Tag(
            history.TRUNK,
            manifest.root_catalog,
            manifest.revision,
            manifest.timestamp,
            "current HEAD",
            manifest.catalog_size,
        )
        path = workspace / "history"
        history.write_history(path, self._fqrn, tags(head), previous)
        return replace(manifest, history=store.put_path(path, ObjectKind.HISTORY)[0])

    def _write_reflog(self, store: ContentStore, workspace: Path, manifest: Manifest) -> Digest:
        content = self._target.read(REFLOG_PATH)
        refs = history.read_reflog(content) if content is not None else []
        new = (
            (manifest.root_catalog, history.REFLOG_CATALOG),
            (manifest.certificate, history.REFLOG_CERTIFICATE),
            (manifest.history, history.REFLOG_HISTORY),
            (manifest.metainfo, history.REFLOG_METAINFO),
        )
        refs += [(digest, kind, manifest.timestamp) for digest, kind in new if digest is not None]
        path = workspace / "reflog"
        history.write_reflog(path, self._fqrn, refs)
        written = path.read_bytes()
        self._target.replace(REFLOG_PATH, written)
        return store.algorithm.digest(written)
