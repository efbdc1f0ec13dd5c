"""`Ledger`: the signed documents of a repository, and the order in which they may change."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from lazyfs.cas.digest import Algorithm, Digest, ObjectKind
from lazyfs.cas.origin import open_uncached
from lazyfs.cas.store import SMALL_LIMIT, ObjectRef
from lazyfs.errors import CertificateRefused, FormatError, PublishError
from lazyfs.publish.content import ContentStore
from lazyfs.publish.history_writer import (
    REFLOG_CATALOG,
    REFLOG_CERTIFICATE,
    REFLOG_HISTORY,
    REFLOG_METAINFO,
    Reference,
    dump_history,
    dump_reflog,
    parse_reflog,
)
from lazyfs.publish.keys import RepositoryKeys
from lazyfs.publish.signing import make_whitelist, sign_manifest, sign_whitelist
from lazyfs.publish.target import UploadTarget
from lazyfs.repository.history import Tag, read_tags
from lazyfs.repository.manifest import MANIFEST_PATH, Manifest, parse_manifest
from lazyfs.repository.signed import parse_signed
from lazyfs.repository.trust import check_certificate, verify_manifest, verify_whitelist
from lazyfs.repository.whitelist import WHITELIST_PATH, Whitelist, is_listed, parse_whitelist

REFLOG_PATH = ".cvmfsreflog"

MAX_CLOCK_SKEW = 300
"""Seconds by which this clock may be behind the one of the last publisher."""


@dataclass(frozen=True, slots=True)
class Head:
    """The newest revision as the target has it."""

    manifest: Manifest
    version: str
    """Of the manifest, for its conditional replacement."""


class Ledger:
    """Reads and replaces manifest, whitelist, history and reflog of one repository.

    Args:
        target: Where they lie.
        keys: Sign them.
        fqrn: The repository's name.
        clock: Tells Unix time.
    """

    def __init__(
        self,
        target: UploadTarget,
        keys: RepositoryKeys,
        fqrn: str,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.target = target
        self.keys = keys
        self.fqrn = fqrn
        self._clock = clock

    # --- reading -----------------------------------------------------------------------------

    def find_head(self) -> Head | None:
        """The newest revision; None: there is no repository.

        Raises:
            PublishError: the place holds another repository.
            VerificationError, FormatError: the manifest was signed neither with these keys, nor
                with others that the master key vouches for. Whoever can write to the place must
                not be able to have these keys sign what they put there.
        """
        document = self.target.read(MANIFEST_PATH)
        if document is None:
            return None
        manifest = parse_manifest(document.content)
        if manifest.fqrn != self.fqrn:
            raise PublishError(
                f"the folder holds {manifest.fqrn}, not {self.fqrn}", path=self.target.name
            )
        self._verify(manifest, document.content)
        return Head(manifest, document.version)

    def _verify(self, manifest: Manifest, content: bytes) -> None:
        if manifest.certificate is None:
            raise FormatError("names no certificate", object="manifest")
        ref = ObjectRef(manifest.certificate, ObjectKind.CERTIFICATE, limit=SMALL_LIMIT)
        with open_uncached(self.target, ref) as handle:
            certificate = verify_manifest(parse_signed(content, "manifest"), handle.read_all())
        if certificate == self.keys.certificate_der:
            return
        whitelist = self.target.read(WHITELIST_PATH)
        if not self.keys.trusted or whitelist is None:
            raise CertificateRefused(
                "another certificate signed the newest revision",
                object="manifest",
                hint="put the master public key, FQRN.pub, into the folder of keys",
            )
        now = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC)
        trusted = self.keys.trusted
        listed = verify_whitelist(
            whitelist.content, self.fqrn, trusted, now=now, allow_expired=True
        )
        check_certificate(certificate, listed)

    def head(self) -> Head:
        """The newest revision.

        Raises:
            PublishError: there is no repository.
        """
        head = self.find_head()
        if head is None:
            raise PublishError(
                "no repository there",
                path=self.target.name,
                hint="make one with 'lazyfs publish init'",
            )
        return head

    def tags(self, head: Head) -> tuple[Tag, ...]:
        """All tags, newest first."""
        if head.manifest.history is None:
            return ()
        ref = ObjectRef(head.manifest.history, ObjectKind.HISTORY)
        return read_tags(open_uncached(self.target, ref), str(ref))

    def references(self) -> list[Reference]:
        """The rows of the reflog; none if there is no reflog.

        A reflog may be ahead of its manifest: a publisher that was killed has added rows.

        Raises:
            FormatError: it is damaged.
        """
        document = self.target.read(REFLOG_PATH)
        return parse_reflog(document.content) if document is not None else []

    def whitelist(self) -> Whitelist:
        """The whitelist as it is, its signature not looked at.

        Raises:
            PublishError: there is none.
        """
        document = self.target.read(WHITELIST_PATH)
        if document is None:
            raise PublishError("no whitelist", path=self.target.name, hint=_RESIGN)
        return parse_whitelist(document.content)

    def check_readable(self) -> None:
        """Return if clients would take what these keys sign.

        Raises:
            PublishError: the whitelist has expired, or does not list the certificate.
        """
        whitelist = self.whitelist()
        now = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC)
        if not whitelist.is_valid_at(now):
            raise PublishError("the whitelist has expired", path=self.target.name, hint=_RESIGN)
        if not is_listed(whitelist.fingerprints, self.keys.certificate_der):
            raise PublishError(
                "the whitelist does not list the certificate of these keys: clients would refuse"
                " what they sign",
                path=self.target.name,
                hint=_RESIGN,
            )

    def now(self, head: Head) -> int:
        """The Unix time of a revision that follows ``head``; clients refuse to go back in time.

        Raises:
            PublishError: the clock has been set back.
        """
        now, before = int(self._clock()), head.manifest.timestamp
        if now < before - MAX_CLOCK_SKEW:
            raise PublishError(
                f"the clock is {before - now} s behind the last publication",
                path=self.target.name,
                hint="set the clock; clients refuse a revision that is older than theirs",
            )
        return max(now, before)

    # --- writing -----------------------------------------------------------------------------

    def sign_whitelist(
        self, algorithm: Algorithm, days: int, *, others: Iterable[bytes] = ()
    ) -> None:
        """Replace the whitelist by one that lists the certificate for ``days`` from now.

        ``others`` are further certificates that are listed, in DER form.
        """
        now = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC)
        whitelist = make_whitelist(
            self.fqrn, self.keys, algorithm, now=now, days=days, others=others
        )
        signed = sign_whitelist(whitelist, self.keys.need_master(), algorithm)
        self.target.replace(WHITELIST_PATH, signed)

    def advance(
        self,
        store: ContentStore,
        manifest: Manifest,
        *,
        after: Head | None,
        tags: Iterable[Tag],
        references: Iterable[Reference] | None = None,
    ) -> Head:
        """Make ``manifest`` the newest one. All that it names must be stored.

        History and reflog go first, the manifest last and in one step: until then readers see the
        old revision, and whoever is killed has changed nothing.

        Args:
            store: Where objects go.
            manifest: The new one; certificate, history and reflog are filled in here.
            after: The head that it follows; None: there is no repository yet.
            tags: All tags.
            references: What the reflog shall hold beside what the manifest names; None: all that
                it holds now.

        Raises:
            PublishError: somebody else has published since ``after`` was read.
        """
        manifest = replace(
            manifest,
            fqrn=self.fqrn,
            certificate=store.put_bytes(self.keys.certificate_pem, ObjectKind.CERTIFICATE),
            history=self._put_history(store, after, tuple(tags)),
            alternative_paths=False,
        )
        kept = self.references() if references is None else list(references)
        reflog = dump_reflog(self.fqrn, [*kept, *_references(manifest)])
        self.target.replace(REFLOG_PATH, reflog)
        manifest = replace(manifest, reflog=store.algorithm.digest(reflog))
        signed = sign_manifest(manifest, self.keys.key, store.algorithm)
        known = after.version if after is not None else None
        version = self.target.replace_if(MANIFEST_PATH, signed, known)
        if version is None:
            raise PublishError(
                "somebody else has published meanwhile",
                path=self.target.name,
                hint="nothing of this is visible; begin again",
            )
        return Head(manifest, version)

    def _put_history(self, store: ContentStore, after: Head | None, tags: Sequence[Tag]) -> Digest:
        """A history database with just these tags: the one that is there if it has them.

        So nothing that readers may be about to fetch is replaced without need, and collecting
        garbage makes none.
        """
        previous = after.manifest.history if after is not None else None
        if after is not None and previous is not None and set(tags) == set(self.tags(after)):
            return previous
        return store.put_bytes(dump_history(self.fqrn, tags, previous), ObjectKind.HISTORY)


_RESIGN = "renew it with 'lazyfs publish resign', which needs the master key"


def _references(manifest: Manifest) -> list[Reference]:
    """What a manifest names, as the reflog has it."""
    named: tuple[tuple[Digest | None, int], ...] = (
        (manifest.root_catalog, REFLOG_CATALOG),
        (manifest.certificate, REFLOG_CERTIFICATE),
        (manifest.history, REFLOG_HISTORY),
        (manifest.metainfo, REFLOG_METAINFO),
    )
    return [
        Reference(digest, kind, manifest.timestamp) for digest, kind in named if digest is not None
    ]
