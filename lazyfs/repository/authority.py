"""`Authority`: fetches what says which revision is the newest, and believes only what is signed."""

from __future__ import annotations

import contextlib
import datetime
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from lazyfs.cas.digest import Digest, ObjectKind
from lazyfs.cas.store import SMALL_LIMIT, ObjectRef, ObjectStore
from lazyfs.config.settings import TrustSettings
from lazyfs.errors import (
    CacheError,
    FormatError,
    HashMismatch,
    LazyfsError,
    NetworkError,
    ObjectMissing,
    RollbackRefused,
    VerificationError,
)
from lazyfs.repository.manifest import MANIFEST_PATH, Manifest
from lazyfs.repository.remembered import Documents, Remembered
from lazyfs.repository.trust import (
    MasterKey,
    check_blacklist,
    check_certificate,
    load_blacklist,
    load_master_keys,
    read_manifest,
    verify_manifest,
    verify_whitelist,
)
from lazyfs.repository.whitelist import WHITELIST_PATH, Whitelist

log = logging.getLogger("lazyfs.repository")

Clock = Callable[[], datetime.datetime]

_PATHS = {"manifest": MANIFEST_PATH, "whitelist": WHITELIST_PATH}
_UNREACHABLE = (NetworkError, ObjectMissing)
_UNUSABLE = (*_UNREACHABLE, FormatError, HashMismatch, RollbackRefused)
"""What lets a repository go on with the revision last seen: no answer, garbage (a portal's login
page), or an older revision. A false signature or a revoked certificate does not."""


def utc_now() -> datetime.datetime:
    """The time of day, in UTC."""
    return datetime.datetime.now(datetime.UTC)


class _Status(Protocol):
    @property
    def host(self) -> str: ...


class DocumentSource(Protocol):
    """Where manifest and whitelist come from."""

    def fetch_document(
        self, path: str, *, limit: int = SMALL_LIMIT, no_cache: bool = False
    ) -> bytes:
        """The document at ``path``."""

    def switch_host(self) -> None:
        """Try another server next time."""

    def status(self) -> _Status:
        """Among others, the server in use."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A manifest that is to be believed."""

    manifest: Manifest
    whitelist: Whitelist
    certificate_der: bytes
    documents: Documents
    offline: LazyfsError | None = None
    """Why the servers' word was not taken; None if it was."""


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

    # --- deciding --------------------------------------------------------------------------

    def decide(self) -> Verdict:
        """The newest manifest that may be believed: the servers', else the remembered one.

        Raises:
            VerificationError: what the servers say must not be believed.
            LazyfsError: they say nothing usable, and nothing that still holds is remembered.
        """
        try:
            return self._refuse_older(self._ask())
        except _UNUSABLE as exc:
            return self._stay(exc)

    def update(self, held: Verdict, root_catalog: Digest) -> Verdict | None:
        """The servers' manifest if it names another root catalog than the one that is read.

        As long as it names the same one its signature is not looked at, as the real client does
        it: that catalog was verified when it was opened.

        Raises:
            RollbackRefused: the servers offer an older revision than ``held`` or the remembered.
            LazyfsError: they say nothing usable, or what must not be believed.
        """
        check_blacklist(held.certificate_der, held.manifest, load_blacklist(self._trust.blacklists))
        # A manifest that does not even parse may be fine on another server, which `_ask` tries.
        with contextlib.suppress(VerificationError, FormatError):
            content = self._source.fetch_document(MANIFEST_PATH)
            if read_manifest(content, self._fqrn)[0].root_catalog == root_catalog:
                return None
        offered = self._refuse_older(self._ask(), held.manifest)
        return None if offered.manifest.root_catalog == root_catalog else offered

    def believe(self, verdict: Verdict) -> None:
        """Remember a manifest whose root catalog could be loaded, unless a newer one is known."""
        try:
            if verdict.offline is None:
                self._refuse_older(verdict)
                self._remembered.keep(verdict.documents)
        except RollbackRefused:
            log.info("%s: another process has seen a newer revision", self._fqrn)
        except CacheError as exc:
            log.warning("%s: cannot remember the revision: %s", self._fqrn, exc)

    def knows_nothing(self) -> bool:
        """Whether no manifest is remembered."""
        return self._remembered.load() is None

    def _refuse_older(self, offered: Verdict, held: Manifest | None = None) -> Verdict:
        """``offered``, unless a manifest that is read, or remembered and still holds, is newer.

        What is read counts by itself: a cache that cannot be written remembers nothing.
        """
        if self._trust.allow_rollback:
            return offered
        for known in (held, self._known()):
            if known is not None and _is_older(offered.manifest, known):
                raise RollbackRefused(
                    f"the server offers revision {offered.manifest.revision} of"
                    f" {offered.manifest.timestamp}, seen before was {known.revision} of"
                    f" {known.timestamp}",
                    object="manifest",
                    url=self._url("manifest"),
                    hint="accept it with --allow-rollback if the repository was reset on purpose",
                )
        return offered

    def _known(self) -> Manifest | None:
        """The remembered manifest, if the keys in force signed it; its age does not matter.

        A repository that was made anew under other keys is another one, and may begin at 0.
        """
        documents = self._remembered.load()
        if documents is None:
            return None
        try:
            manifest, signed = read_manifest(documents.manifest, self._fqrn)
            certificate = verify_manifest(signed, documents.certificate)
            whitelist = verify_whitelist(
                documents.whitelist, self._fqrn, self.keys, now=self._clock(), allow_expired=True
            )
            check_certificate(certificate, whitelist)
        except (VerificationError, FormatError) as exc:
            log.warning("%s: the remembered manifest does not hold: %s", self._fqrn, exc)
            return None
        return manifest

    def _stay(self, why: LazyfsError) -> Verdict:
        """Go on with the remembered manifest, because of ``why``."""
        documents = self._remembered.load()
        if documents is None:
            raise why
        try:
            verdict = self._judge(documents, why)
        except (VerificationError, FormatError) as exc:
            if isinstance(why, _UNREACHABLE):
                raise exc from why
            raise why from exc
        log.warning("%s: going on with the revision last seen: %s", self._fqrn, why)
        return verdict

    # --- asking ----------------------------------------------------------------------------

    def _ask(self) -> Verdict:
        """What the servers say, verified; one other server is tried if the first is wrong."""
        try:
            return self._ask_once(no_cache=False)
        except (VerificationError, FormatError) as exc:
            log.warning("%s: %s; asking again, past caches", self._fqrn, exc)
            self._source.switch_host()
            return self._ask_once(no_cache=True)

    def _ask_once(self, *, no_cache: bool) -> Verdict:
        with self._server_named():
            content = self._source.fetch_document(MANIFEST_PATH, no_cache=no_cache)
            manifest, signed = read_manifest(content, self._fqrn)
            certificate = self._certificate(manifest)
            verify_manifest(signed, certificate)  # before anything more is fetched for its sake
            whitelist = self._source.fetch_document(WHITELIST_PATH, no_cache=no_cache)
            return self._judge(Documents(content, whitelist, certificate))

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

    def _judge(self, documents: Documents, offline: LazyfsError | None = None) -> Verdict:
        """The verdict on documents that were gathered, in the order of the real client."""
        manifest, signed = read_manifest(documents.manifest, self._fqrn)
        certificate = verify_manifest(signed, documents.certificate)
        whitelist = verify_whitelist(
            documents.whitelist,
            self._fqrn,
            self.keys,
            now=self._clock(),
            allow_expired=self._trust.allow_expired,
        )
        check_certificate(certificate, whitelist)
        check_blacklist(certificate, manifest, load_blacklist(self._trust.blacklists))
        return Verdict(manifest, whitelist, certificate, documents, offline)

    @contextlib.contextmanager
    def _server_named(self) -> Iterator[None]:
        """Name the server in errors about what it said."""
        try:
            yield
        except (VerificationError, FormatError) as exc:
            exc.url = exc.url or self._url(exc.object)
            raise

    def _url(self, document: str | None) -> str:
        host = self._source.status().host
        path = _PATHS.get(document or "")
        return f"{host}/{path}" if path else host


def _is_older(offered: Manifest, known: Manifest) -> bool:
    """Whether ``offered`` would go back: by revision, then by time for another root catalog."""
    if offered.revision != known.revision:
        return offered.revision < known.revision
    return offered.root_catalog != known.root_catalog and offered.timestamp < known.timestamp
