"""Checking the documents of a target: what is signed, what is logged, what is tagged."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lazyfs.cas.digest import Digest, ObjectKind
from lazyfs.cas.store import SMALL_LIMIT, ObjectRef
from lazyfs.errors import FormatError, LazyfsError, PublishError
from lazyfs.publish.history_writer import (
    REFLOG_CATALOG,
    REFLOG_CERTIFICATE,
    REFLOG_HISTORY,
    REFLOG_KINDS,
    REFLOG_METAINFO,
    Reference,
    parse_reflog,
)
from lazyfs.publish.known_revision import read_revision
from lazyfs.publish.ledger import REFLOG_PATH
from lazyfs.publish.target_store import TargetStore
from lazyfs.repository.check import Problem
from lazyfs.repository.history import Tag, read_tags
from lazyfs.repository.manifest import MANIFEST_PATH, Manifest
from lazyfs.repository.signed import SignedDocument
from lazyfs.repository.trust import (
    MasterKey,
    check_certificate,
    read_manifest,
    verify_manifest,
    verify_whitelist,
)
from lazyfs.repository.whitelist import WHITELIST_PATH


@dataclass(slots=True)
class Documents:
    """What the documents of a repository say, as far as they can be read."""

    manifest: Manifest | None = None
    tags: tuple[Tag, ...] = ()
    whitelist_expires: datetime.datetime | None = None
    """None: there is no whitelist that a master key signed."""
    problems: list[Problem] = field(default_factory=list)


def check_documents(
    store: TargetStore, fqrn: str, keys: Sequence[MasterKey], now: datetime.datetime
) -> Documents:
    """Check manifest, certificate, whitelist, reflog, tags and meta-info, in this order.

    Root catalogs of tags must be there and be what the tags say. A reflog may hold more than the
    manifest names: a publisher that was killed has added rows.

    Args:
        store: Reads the target, content too.
        fqrn: The repository's name.
        keys: Master public keys.
        now: The time in UTC.

    Raises:
        PublishError: the target cannot be reached, or has no manifest at all.
    """
    check = _Check(store, fqrn, keys, now)
    check.run()
    return check.found


class _Check:
    def __init__(
        self, store: TargetStore, fqrn: str, keys: Sequence[MasterKey], now: datetime.datetime
    ) -> None:
        self._store = store
        self._target = store.target
        self._fqrn = fqrn
        self._keys = keys
        self._now = now
        self.found = Documents()

    def run(self) -> None:
        document = self._target.read(MANIFEST_PATH)
        if document is None:
            raise PublishError(
                "no repository there",
                path=self._target.name,
                hint="make one with 'lazyfs publish init'",
            )
        with self._noted("manifest"):
            manifest, signed = read_manifest(document.content, self._fqrn)
            self.found.manifest = manifest
            self._trust(manifest, signed)
            self._head(manifest)
            self._reflog(manifest)
            self._history(manifest)
            if manifest.metainfo is not None:
                with self._noted("meta-info"):
                    self._read(manifest.metainfo, ObjectKind.METAINFO)

    # --- trust -------------------------------------------------------------------------------

    def _trust(self, manifest: Manifest, signed: SignedDocument) -> None:
        certificate = None
        with self._noted("certificate"):
            if manifest.certificate is None:
                raise FormatError("the manifest names no certificate")
            pem = self._read(manifest.certificate, ObjectKind.CERTIFICATE)
            certificate = verify_manifest(signed, pem)
        with self._noted("whitelist"):
            document = self._target.read(WHITELIST_PATH)
            if document is None:
                raise FormatError("there is no whitelist")
            whitelist = verify_whitelist(
                document.content, self._fqrn, self._keys, now=self._now, allow_expired=True
            )
            self.found.whitelist_expires = whitelist.expires
            if not whitelist.is_valid_at(self._now):
                self._note("whitelist", f"expired at {whitelist.expires:%Y-%m-%d %H:%M} UTC")
            if certificate is not None:
                check_certificate(certificate, whitelist)

    def _head(self, manifest: Manifest) -> None:
        with self._noted(f"{manifest.root_catalog}C"):
            head = read_revision(self._store, manifest.root_catalog)
            if head.number != manifest.revision:
                self._note(
                    "manifest", f"says revision {manifest.revision}, its catalog {head.number}"
                )
            self._check_size("manifest", manifest.catalog_size, head.size)

    # --- reflog and history ------------------------------------------------------------------

    def _reflog(self, manifest: Manifest) -> None:
        with self._noted("reflog"):
            document = self._target.read(REFLOG_PATH)
            if document is None:
                raise FormatError("there is none; the next publish makes one")
            references = parse_reflog(document.content)
            logged = {(row.digest, row.type) for row in references}
            for digest, kind, what in (
                (manifest.root_catalog, REFLOG_CATALOG, "root catalog"),
                (manifest.certificate, REFLOG_CERTIFICATE, "certificate"),
                (manifest.history, REFLOG_HISTORY, "tag database"),
                (manifest.metainfo, REFLOG_METAINFO, "meta-info"),
            ):
                if digest is not None and (digest, kind) not in logged:
                    self._note("reflog", f"does not have the {what} of the manifest, {digest}")
            for row in references:
                self._check_logged(row)

    def _check_logged(self, row: Reference) -> None:
        kind = REFLOG_KINDS.get(row.type)
        if kind is None:
            self._note("reflog", f"has a row of unknown type {row.type}, {row.digest}")
        elif not self._target.has(row.digest.object_path(kind)):
            self._note("reflog", f"names {row.digest}{kind.value}, which is not there")

    def _history(self, manifest: Manifest) -> None:
        if manifest.history is None:
            return
        ref = ObjectRef(manifest.history, ObjectKind.HISTORY)
        with self._noted(str(ref)):
            self.found.tags = read_tags(self._store.open(ref), str(ref))
        for tag in self.found.tags:
            with self._noted(f"tag {tag.name}"):
                self._tag(tag)

    def _tag(self, tag: Tag) -> None:
        name = f"tag {tag.name}"
        revision = read_revision(self._store, tag.root_hash)
        if tag.revision != revision.number:
            self._note(name, f"says revision {tag.revision}, its catalog {revision.number}")
        self._check_size(name, tag.size, revision.size)

    # --- helpers -----------------------------------------------------------------------------

    def _check_size(self, name: str, recorded: int, real: int) -> None:
        if recorded and recorded != real:
            self._note(name, f"says the root catalog has {recorded} bytes, it has {real}")

    def _read(self, digest: Digest, kind: ObjectKind) -> bytes:
        with self._store.open(ObjectRef(digest, kind, limit=SMALL_LIMIT)) as handle:
            return handle.read_all()

    @contextlib.contextmanager
    def _noted(self, name: str) -> Iterator[None]:
        """Note what is wrong, and go on."""
        try:
            yield
        except PublishError:
            raise  # the target cannot be reached: that says nothing about what it holds
        except LazyfsError as exc:
            self._note(name, str(exc))

    def _note(self, name: str, message: str) -> None:
        self.found.problems.append(Problem(b"", name, f"{name}: {message}"))
