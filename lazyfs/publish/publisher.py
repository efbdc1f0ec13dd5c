"""Making repositories and publishing directories into them."""

from __future__ import annotations

import datetime
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
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


class Publisher:
    """Publishes into one repository in a folder.

    Args:
        target: Where the repository lies.
        keys: Sign what is published.
        fqrn: The repository's name.
        algorithm: Names new objects.
        sizes: Of chunks.
        ttl: Seconds after which clients look for a newer revision.
    """

    def __init__(
        self,
        target: DirectoryTarget,
        keys: RepositoryKeys,
        fqrn: str,
        *,
        algorithm: Algorithm = Algorithm.SHA1,
        sizes: ChunkSizes | None = None,
        ttl: int = DEFAULT_TTL,
    ) -> None:
        self._target = target
        self._keys = keys
        self._fqrn = check_fqrn(fqrn)
        self._ttl = ttl
        self._store = ContentStore(target, algorithm, sizes or ChunkSizes())

    def init(self) -> PublishResult:
        """Make the repository, with an empty revision.

        Raises:
            PublishError: there is one already, or the folder cannot be written.
        """
        if self._target.read(MANIFEST_PATH) is not None:
            raise PublishError("there is a repository already", path=str(self._target.root))
        self._target.prepare()
        self.renew_whitelist()
        self._target.replace(
            ".cvmfs_master_replica", b"This file marks the repository as replicatable\n"
        )
        with tempfile.TemporaryDirectory() as empty:
            Path(empty).chmod(0o755)
            return self.publish(Path(empty))

    def renew_whitelist(self, *, days: int = WHITELIST_DAYS) -> None:
        """Sign a whitelist that is valid for ``days`` from now."""
        algorithm = self._store.algorithm
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
        with self._target.lock(), tempfile.TemporaryDirectory() as workspace:
            return self._publish(
                source, Path(workspace), options or TreeOptions(), tag, description
            )

    def _publish(
        self, source: Path, workspace: Path, options: TreeOptions, tag: str | None, description: str
    ) -> PublishResult:
        old = self._manifest()
        before = self._store.uploaded
        now = int(time.time())
        revision = old.revision + 1 if old else 0
        properties = {
            "revision": str(revision),
            "last_modified": str(now),
            "TTL": str(self._ttl),
            **({"previous_revision": str(old.root_catalog)} if old else {}),
        }
        with ThreadPoolExecutor(workers(), thread_name_prefix="lazyfs-publish") as pool:
            writer = TreeWriter(self._store, workspace, options, pool)
            root = writer.write(os.fsencode(source), properties)
        head = Tag(history.TRUNK, root.digest, revision, now, "current head", root.size)
        manifest = Manifest(
            root_catalog=root.digest,
            root_path=ROOT_PATH_MD5,
            ttl=self._ttl,
            revision=revision,
            catalog_size=root.size,
            fqrn=self._fqrn,
            certificate=self._store.put_bytes(self._keys.certificate_pem, ObjectKind.CERTIFICATE),
            history=self._write_history(workspace, old, head, tag, description),
            timestamp=now,
            garbage_collectable=True,
        )
        manifest = replace(manifest, reflog=self._write_reflog(workspace, manifest))
        signed = sign_manifest(manifest, self._keys.key, self._store.algorithm)
        self._target.replace(MANIFEST_PATH, signed)
        uploaded = self._store.uploaded
        return PublishResult(
            revision,
            root.digest,
            root.counters["regular"],
            root.counters["file_size"],
            root.counters["nested"] + 1,
            uploaded.objects - before.objects,
            uploaded.bytes - before.bytes,
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

    def _write_history(
        self, workspace: Path, old: Manifest | None, head: Tag, tag: str | None, description: str
    ) -> Digest:
        tags: tuple[Tag, ...] = ()
        if old is not None and old.history is not None:
            ref = ObjectRef(old.history, ObjectKind.HISTORY)
            tags = read_tags(DirectoryStore(self._target.root).open(ref), str(ref))
        path = workspace / "history"
        moved = history.moved_trunk(tags, head, tag, description)
        history.write_history(path, self._fqrn, moved, old.history if old else None)
        return self._store.put_path(path, ObjectKind.HISTORY)[0]

    def _write_reflog(self, workspace: Path, manifest: Manifest) -> Digest:
        content = self._target.read(REFLOG_PATH)
        refs = history.read_reflog(content) if content is not None else []
        new = (
            (manifest.root_catalog, history.REFLOG_CATALOG),
            (manifest.certificate, history.REFLOG_CERTIFICATE),
            (manifest.history, history.REFLOG_HISTORY),
        )
        refs += [(digest, kind, manifest.timestamp) for digest, kind in new if digest is not None]
        path = workspace / "reflog"
        history.write_reflog(path, self._fqrn, refs)
        written = path.read_bytes()
        self._target.replace(REFLOG_PATH, written)
        return self._store.algorithm.digest(written)
