"""Checking what a target holds, and repairing it from the tree that was published."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lazyfs.cas.digest import Digest
from lazyfs.cas.store import ObjectRef
from lazyfs.errors import ConfigError, LazyfsError, PublishError
from lazyfs.publish.lease import held
from lazyfs.publish.mend import Mended, Mender
from lazyfs.publish.target import UploadTarget
from lazyfs.publish.target_store import TargetStore, opened_store
from lazyfs.publish.verify_documents import Documents, check_documents
from lazyfs.repository.authority import Clock, utc_now
from lazyfs.repository.check import Problem, Progress, Thoroughness, check_revision
from lazyfs.repository.pathhash import normalize
from lazyfs.repository.revision import Revision
from lazyfs.repository.trust import MasterKey


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """How much is checked."""

    content: bool = True
    """Read every object; False: catalogs and documents are read, other objects are only looked
    for."""
    tags: bool = False
    """Check all tagged revisions as the newest one; False: of them only the root catalogs."""
    journal: Path | None = None
    """A file that remembers objects whose content was verified, so that a later check goes on."""
    workers: int = 8
    """Objects in parallel."""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a check of a target found."""

    revisions: int
    """How many were checked with all that they hold."""
    catalogs: int
    objects: int
    """Objects found in order."""
    bytes: int
    """Their content, uncompressed."""
    problems: tuple[Problem, ...]
    """What is wrong; after a repair, what still is."""
    mended: tuple[Mended, ...] = ()
    whitelist_expires: datetime.datetime | None = None
    """None: there is no whitelist that a master key signed."""


def verify_target(
    target: UploadTarget,
    fqrn: str,
    keys: Sequence[MasterKey],
    options: VerifyOptions | None = None,
    *,
    progress: Progress | None = None,
    clock: Clock = utc_now,
) -> VerifyReport:
    """Check the repository in a target, past every cache and web server.

    Documents are checked by `check_documents`, the newest revision as `check_revision` does it,
    and the objects of empty files too, which the real client wants. Problems are collected.

    Args:
        target: Where the repository lies.
        fqrn: Its name.
        keys: Master public keys; `RepositoryKeys.trusted` are some.
        options: How much is checked.
        progress: Called as the check of each revision goes on.
        clock: The time in UTC.

    Raises:
        PublishError: the target cannot be reached, or holds no repository.
        ConfigError: there are no keys, or the journal cannot be used.
    """
    return _verify(target, fqrn, keys, options or VerifyOptions(), progress, clock, None)


def repair_target(
    target: UploadTarget,
    fqrn: str,
    keys: Sequence[MasterKey],
    source: Path,
    options: VerifyOptions | None = None,
    *,
    at: bytes | str = b"",
    wait: float = 0.0,
    progress: Progress | None = None,
    clock: Clock = utc_now,
) -> VerifyReport:
    """As `verify_target`, and make missing and damaged objects again from the tree ``source``.

    A file is read at its path in the repository, cut where the catalog says, and what comes out
    is uploaded only if it has the digest that the catalog names. Catalogs and documents cannot be
    made so.

    Args:
        target: Where the repository lies.
        fqrn: Its name.
        keys: Master public keys.
        source: The folder that was published, or a copy of it.
        options: How much is checked; what is not looked at is not repaired.
        at: Where in the repository it was published.
        wait: Seconds to wait for another publisher to end.
        progress: As `verify_target`.
        clock: The time in UTC.

    Raises:
        PublishError: as `verify_target`; or there is no such folder, or another publisher is at
            work.
    """
    if not source.is_dir():
        raise PublishError("not a directory", path=str(source))
    with held(target, "repair", wait=wait):
        mender = Mender(target, source, normalize(at))
        return _verify(target, fqrn, keys, options or VerifyOptions(), progress, clock, mender)


def _verify(
    target: UploadTarget,
    fqrn: str,
    keys: Sequence[MasterKey],
    options: VerifyOptions,
    progress: Progress | None,
    clock: Clock,
    mender: Mender | None,
) -> VerifyReport:
    if not keys:
        raise ConfigError(
            "without a master public key nothing can be believed",
            hint="put FQRN.pub into the folder of keys",
        )
    with opened_store(target, content=options.content) as store:
        documents = check_documents(store, fqrn, keys, clock())
        verification = _Verification(store, fqrn, options, mender)
        for root in _roots(documents, tags=options.tags):
            verification.check(root, progress)
        problems = [*documents.problems, *verification.problems]
        if mender is not None:
            problems += mender.problems
        return VerifyReport(
            verification.revisions,
            verification.catalogs,
            verification.objects,
            verification.bytes,
            tuple(problems),
            tuple(mender.mended) if mender is not None else (),
            documents.whitelist_expires,
        )


def _roots(documents: Documents, *, tags: bool) -> list[Digest]:
    """Root catalogs of what is to be checked, each once."""
    manifest = documents.manifest
    newest = [manifest.root_catalog] if manifest is not None else []
    return list(dict.fromkeys([*newest, *(tag.root_hash for tag in documents.tags if tags)]))


class _Verification:
    def __init__(
        self, store: TargetStore, fqrn: str, options: VerifyOptions, mender: Mender | None
    ) -> None:
        self._store = store
        self._fqrn = fqrn
        self._options = options
        self._mender = mender
        self._finished: set[tuple[bytes, Digest]] = set()
        # What was only looked for must not count as verified for a later check of content.
        kept = options.journal if options.content else None
        self._journal = kept or store.workspace / "journal"
        self.problems: list[Problem] = []
        self.revisions = self.catalogs = self.objects = self.bytes = 0

    def check(self, root: Digest, progress: Progress | None) -> None:
        """Check one revision; what it shares with those before is not looked at again."""
        try:
            revision = self._store.revision(self._fqrn, root)
        except PublishError:
            raise
        except LazyfsError:
            return  # among the problems of the documents, which name it
        with revision:
            try:
                self._check(revision, progress)
            except (ConfigError, PublishError):
                raise
            except LazyfsError as exc:  # not even the root entry is there
                self.problems.append(Problem(b"", f"{root}C", str(exc)))

    def _check(self, revision: Revision, progress: Progress | None) -> None:
        report = check_revision(
            revision,
            journal=self._journal,
            workers=self._options.workers,
            progress=progress,
            thoroughness=Thoroughness(True, self._finished, self._on_damage(revision)),
        )
        if self._mender is not None:
            self._mender.mend_elsewhere(revision)
        self.revisions += 1
        self.catalogs += report.catalogs
        self.objects += report.objects
        self.bytes += report.bytes
        self.problems += report.problems

    def _on_damage(self, revision: Revision) -> Callable[[bytes, ObjectRef, LazyfsError], bool]:
        mender = self._mender
        if mender is None:
            return lambda path, ref, why: False
        return lambda path, ref, why: mender.mend(revision, path, ref, why)
