"""`Authority`: fetches what says which revision is the newest, and believes only what is signed."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lazyfs.cas.digest import ObjectKind
from lazyfs.cas.store import SMALL_LIMIT, ObjectRef, ObjectStore
from lazyfs.config.settings import TrustSettings
from lazyfs.errors import (
    FormatError,
    LazyfsError,
    NetworkError,
    ObjectMissing,
    RollbackRefused,
    VerificationError,
)
from lazyfs.repository.manifest import MANIFEST_PATH, Manifest
from lazyfs.repository.remembered import Remembered
from lazyfs.repository.trust import (
    MasterKey,
    check_certificate,
    check_revision,
    load_blacklist,
    load_master_keys,
    read_manifest,
    verify_manifest,
    verify_whitelist,
)
from lazyfs.repository.whitelist import WHITELIST_PATH, Whitelist

log = logging.getLogger("lazyfs.repository")

Clock = Callable[[], datetime.datetime]


def utc_now() -> datetime.datetime:
    """The time of day, in UTC."""
    return datetime.datetime.now(datetime.UTC)


class DocumentSource(Protocol):
    """Where manifest and whitelist come from."""

    def fetch_document(
        self, path: str, *, limit: int = SMALL_LIMIT, no_cache: bool = False
    ) -> bytes:
        """The document at ``path``."""

    def switch_host(self) -> None:
        """Try another server next time."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A manifest that is to be believed."""

    manifest: Manifest
    whitelist: Whitelist
    manifest_bytes: bytes
    whitelist_bytes: bytes
    offline: str = ""
    """Why the servers' word was not taken; empty if it was."""


class Authority:
    """Decides which manifest of a repository is believed.

    Args:
        fqrn: The repository's name.
        source: Where documents come from.
        store: Where the certificate comes from.
        remembered: The last documents that were believed.
        trust: Keys and exceptions.
        clock: The time in UTC.
    """

    def __init__(
        self,
        fqrn: str,
        source: DocumentSource,
        store: ObjectStore,
        remembered: Remembered,
        trust: TrustSettings,
        clock: Clock = utc_now,
    ) -> None:
        self._fqrn = fqrn
        self._source = source
        self._store = store
        self._remembered = remembered
        self._trust = trust
        self._clock = clock
        self.keys: tuple[MasterKey, ...] = load_master_keys(trust.public_keys)

    def decide(self) -> Verdict:
        """The newest manifest that may be believed: the servers', else the remembered one.

        Raises:
            VerificationError, FormatError: what the servers say is wrong, and nothing is
                remembered, or the remembered one is no longer valid either.
            NetworkError, ObjectMissing: no server answers, and nothing is remembered.
        """
        try:
            offered = self.ask()
        except (NetworkError, ObjectMissing) as exc:
            return self._stay(exc)
        known = self._known()
        if known is None or not _is_older(offered.manifest, known.manifest):
            return offered
        if self._trust.allow_rollback:
            return offered
        refusal = RollbackRefused(
            f"the server offers revision {offered.manifest.revision}, this cache has seen"
            f" {known.manifest.revision}",
            object="manifest",
            hint="accept it with --allow-rollback if the repository was reset on purpose",
        )
        return self._stay(refusal)

    def ask(self) -> Verdict:
        """What the servers say, verified; one other server is tried if the first is wrong.

        Raises:
            VerificationError, FormatError: it is wrong.
            NetworkError, ObjectMissing: they do not answer.
        """
        try:
            return self._ask_once(no_cache=False)
        except (VerificationError, FormatError) as exc:
            log.warning("%s: %s; asking another server", self._fqrn, exc)
            self._source.switch_host()
            return self._ask_once(no_cache=True)

    def peek_manifest(self) -> Manifest:
        """The servers' manifest, its digest and name checked, its signature not.

        Raises:
            LazyfsError: as `ask`.
        """
        return read_manifest(self._source.fetch_document(MANIFEST_PATH), self._fqrn)[0]

    def _ask_once(self, *, no_cache: bool) -> Verdict:
        manifest = self._source.fetch_document(MANIFEST_PATH, no_cache=no_cache)
        # What cannot even parse needs no whitelist to be refused.
        read_manifest(manifest, self._fqrn)
        whitelist = self._source.fetch_document(WHITELIST_PATH, no_cache=no_cache)
        return self._judge(manifest, whitelist)

    def _judge(self, manifest_bytes: bytes, whitelist_bytes: bytes, offline: str = "") -> Verdict:
        manifest, document = read_manifest(manifest_bytes, self._fqrn)
        blacklist = load_blacklist(self._trust.blacklists)
        check_revision(manifest, blacklist)
        certificate = verify_manifest(document, self._certificate(manifest))
        whitelist = verify_whitelist(
            whitelist_bytes,
            self._fqrn,
            self.keys,
            now=self._clock(),
            allow_expired=self._trust.allow_expired,
        )
        check_certificate(certificate, whitelist, blacklist)
        return Verdict(manifest, whitelist, manifest_bytes, whitelist_bytes, offline)

    def _certificate(self, manifest: Manifest) -> bytes:
        if manifest.certificate is None:
            raise FormatError("the manifest names no certificate", object="manifest")
        ref = ObjectRef(
            manifest.certificate,
            ObjectKind.CERTIFICATE,
            limit=SMALL_LIMIT,
            label=f"certificate for {self._fqrn}",
        )
        with self._store.open(ref) as handle:
            return handle.pread(handle.size, 0)

    def _stay(self, why: LazyfsError) -> Verdict:
        """Go on with the remembered manifest, because of ``why``."""
        manifest, whitelist = self._remembered.manifest(), self._remembered.whitelist()
        if manifest is None or whitelist is None:
            raise why
        log.warning("%s: going on with the revision last seen: %s", self._fqrn, why)
        try:
            return self._judge(manifest, whitelist, str(why))
        except (NetworkError, ObjectMissing):
            raise why from None

    def _known(self) -> Verdict | None:
        """The remembered manifest if it still holds; one that does not forbids nothing."""
        manifest, whitelist = self._remembered.manifest(), self._remembered.whitelist()
        if manifest is None or whitelist is None:
            return None
        try:
            found, _ = read_manifest(manifest, self._fqrn)
            return Verdict(found, _NO_WHITELIST, manifest, whitelist)
        except (VerificationError, FormatError) as exc:
            log.warning("%s: the remembered manifest is damaged: %s", self._fqrn, exc)
            return None

    def believe(self, verdict: Verdict) -> None:
        """Remember a manifest whose root catalog could be loaded."""
        self._remembered.keep(verdict.manifest_bytes, verdict.whitelist_bytes)


_EPOCH = datetime.datetime.fromtimestamp(0, datetime.UTC)
_NO_WHITELIST = Whitelist(_EPOCH, _EPOCH, "", ())


def _is_older(offered: Manifest, known: Manifest) -> bool:
    """Whether ``offered`` would go back: by revision, then by time for another root catalog."""
    if offered.revision != known.revision:
        return offered.revision < known.revision
    return offered.root_catalog != known.root_catalog and offered.timestamp < known.timestamp
