"""`Repository`: a repository and the parts that read it, put together."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from lazyfs.cas.cached_store import CachedStore
from lazyfs.cas.digest import Digest, ObjectKind
from lazyfs.cas.http_store import HttpStore
from lazyfs.cas.local_cache import LocalCache
from lazyfs.cas.store import SMALL_LIMIT, ObjectRef
from lazyfs.config.load import load_settings
from lazyfs.config.settings import NetworkSettings, RepositorySettings, RevisionChoice
from lazyfs.errors import (
    ConfigError,
    FormatError,
    NetworkError,
    ObjectMissing,
    RevisionNotFound,
)
from lazyfs.net.downloader import Downloader
from lazyfs.repository.authority import Authority, Verdict
from lazyfs.repository.catalog_tree import CatalogTree
from lazyfs.repository.history import Tag, find_date, find_tag, read_tags
from lazyfs.repository.manifest import Manifest
from lazyfs.repository.remembered import Remembered
from lazyfs.repository.revision import Revision, RevisionInfo
from lazyfs.repository.trust import check_revision, load_blacklist
from lazyfs.repository.whitelist import Whitelist

log = logging.getLogger("lazyfs.repository")

METAINFO_LIMIT = 65536
"""Bytes of meta-info that are shown; upstream's bound."""


class Repository:
    """A repository, open at one revision. Safe to use from many threads.

    Make one with `Repository.open` or `Repository.from_settings`; close it when done.
    """

    def __init__(self, settings: RepositorySettings, cache: LocalCache) -> None:
        self.settings = settings
        self.cache = cache
        self.downloader = _downloader(settings.network)
        self.external_downloader = (
            _downloader(settings.external) if settings.external is not None else None
        )
        self.store = CachedStore(cache, HttpStore(self.downloader, self.external_downloader))
        self._verdict: Verdict | None = None
        self._authority: Authority | None = None
        self._current: Revision | None = None

    @classmethod
    def open(
        cls,
        source: str | os.PathLike[str],
        *,
        pubkey: str | os.PathLike[str] | None = None,
        cache: str | os.PathLike[str] | None = None,
        server: str | None = None,
        proxy: str | None = None,
        tag: str | None = None,
        date: str | None = None,
        root_hash: str | None = None,
        external_url: str | None = None,
        overrides: Mapping[str, str] | None = None,
    ) -> Self:
        """The repository at ``source``.

        Args:
            source: A configured name, a URL that ends in the name, or a folder.
            pubkey: A file (of one or more keys) or a folder (of ``*.pub``): the master keys.
            cache: Directory of the local cache.
            server: Base URLs separated by ``;``.
            proxy: Proxy groups, or ``DIRECT``.
            tag: Read the revision of that tag.
            date: Read the revision of that time, ``YYYY-MM-DDTHH:MM:SSZ``.
            root_hash: Read the revision with that root catalog; nothing else is then verified.
            external_url: Where external files lie.
            overrides: Any other parameters, by their ``CVMFS_`` names.

        Raises:
            ConfigError: something needed is not configured, or two revisions are asked for.
            VerificationError: the repository cannot be trusted.
            NetworkError, ObjectMissing: it cannot be reached and is not cached.
        """
        if (tag, date, root_hash).count(None) < 2:
            raise ConfigError("give only one of tag, date and root hash")
        options = {
            "CVMFS_PUBLIC_KEY": pubkey and os.fspath(pubkey),
            "CVMFS_CACHE_DIR": cache and os.fspath(cache),
            "CVMFS_SERVER_URL": server,
            "CVMFS_HTTP_PROXY": proxy,
            "CVMFS_REPOSITORY_TAG": tag,
            "CVMFS_REPOSITORY_DATE": date,
            "CVMFS_ROOT_HASH": root_hash,
            "CVMFS_EXTERNAL_URL": external_url,
        }
        given = {name: value for name, value in options.items() if value}
        if any((tag, date, root_hash)):
            # What the configuration chooses must not win over the choice made here.
            choices = ("CVMFS_REPOSITORY_TAG", "CVMFS_REPOSITORY_DATE", "CVMFS_ROOT_HASH")
            given = dict.fromkeys(choices, "") | given
        return cls.from_settings(
            load_settings(os.fspath(source), overrides=given | dict(overrides or {}))
        )

    @classmethod
    def from_settings(cls, settings: RepositorySettings) -> Self:
        """The repository that ``settings`` describe."""
        cache = LocalCache.open(settings.cache)
        try:
            repository = cls(settings, cache)
        except BaseException:
            cache.close()
            raise
        try:
            repository._start()
        except BaseException:
            repository.close()
            raise
        return repository

    def _start(self) -> None:
        choice = self.settings.revision
        if self.settings.network.use_geoapi:
            self.downloader.geo_sort()
        if choice.root_hash is not None:
            # The hash itself is the anchor of trust: neither manifest nor whitelist is asked for.
            self._current = self._load(self._chosen(choice))
            return
        self._authority = Authority(
            self.fqrn,
            self.downloader,
            self.store,
            Remembered(self.cache, self.fqrn),
            self.settings.trust,
        )
        verdict = self._authority.decide()
        self._verdict = verdict
        if choice.is_fixed:
            self._current = self._load(self._chosen(choice))
            # The newest root catalog was not loaded: rather remember one that was.
            if self._authority.knows_nothing():
                self._authority.believe(verdict)
        else:
            self._current = self._load_newest(verdict)
            self._authority.believe(verdict)

    def close(self) -> None:
        """End running transfers, close catalogs and cache; what is open stays readable."""
        self.downloader.close()
        if self.external_downloader is not None:
            self.external_downloader.close()
        if self._current is not None:
            self._current.close()
        self.cache.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- facts -----------------------------------------------------------------------------

    @property
    def fqrn(self) -> str:
        """The repository's name."""
        return self.settings.fqrn

    @property
    def current(self) -> Revision:
        """The revision that is read; another one only after `adopt`."""
        assert self._current is not None
        return self._current

    @property
    def manifest(self) -> Manifest | None:
        """The manifest that is believed; None if the revision was chosen by its root hash."""
        return self._verdict.manifest if self._verdict else None

    @property
    def whitelist(self) -> Whitelist | None:
        """The whitelist that is believed; None as for the manifest."""
        return self._verdict.whitelist if self._verdict else None

    @property
    def offline_reason(self) -> str:
        """Why the servers' word was not taken when the repository was opened; empty if it was."""
        offline = self._verdict.offline if self._verdict else None
        return "" if offline is None else str(offline)

    def public_keys_pem(self) -> bytes:
        """The master public keys, one after the other."""
        return b"".join(key.pem for key in self._authority.keys) if self._authority else b""

    # --- revisions -------------------------------------------------------------------------

    def tags(self) -> tuple[Tag, ...]:
        """All named tags, newest first; none if the repository has no history.

        Raises:
            LazyfsError: the history cannot be had.
        """
        if self.manifest is None or self.manifest.history is None:
            return ()
        ref = ObjectRef(
            self.manifest.history, ObjectKind.HISTORY, label=f"tag database for {self.fqrn}"
        )
        return read_tags(self.store.open(ref), str(ref))

    def revision(
        self, *, tag: str | None = None, date: str | None = None, root_hash: str | None = None
    ) -> Revision:
        """Any revision, beside the current one; the caller closes it.

        Raises:
            RevisionNotFound: there is no such tag or date.
            ConfigError: not just one of the three is given, or it is malformed.
        """
        choice = RevisionChoice(tag, date, root_hash)
        if (tag, date, root_hash).count(None) != 2:
            raise ConfigError("give just one of tag, date and root hash")
        return self._load(self._chosen(choice))

    def _chosen(self, choice: RevisionChoice) -> RevisionInfo:
        if choice.root_hash is not None:
            return RevisionInfo(self.fqrn, _root_hash(choice.root_hash))
        tags = self.tags()
        if not tags:
            raise RevisionNotFound(
                "the repository has no history", hint="choose a revision by its root hash"
            )
        found = (
            find_tag(tags, choice.tag)
            if choice.tag is not None
            else find_date(tags, choice.date or "")
        )
        return RevisionInfo(self.fqrn, found.root_hash, found.size, found.name, found.timestamp)

    def _load(self, info: RevisionInfo) -> Revision:
        tree = CatalogTree(
            self.store,
            self.fqrn,
            info.root_hash,
            root_size=info.root_size,
            limit=self.settings.catalog_watermark,
            memory=self.settings.catalog_memory,
        )
        revision = Revision(info, tree, self.store, self.settings.symlink_variables)
        try:
            self._admit(revision)
        except BaseException:
            revision.close()
            raise
        return revision

    def _admit(self, revision: Revision) -> None:
        """Raise for a revision that cannot be read: better now than in the middle of it."""
        catalog = revision.tree.root
        root = catalog.find(b"")
        if root is None or not root.is_dir:
            raise FormatError("the root is no directory", object=catalog.name)
        if catalog.properties.get("voms_authz"):
            raise ConfigError(
                f"{self.fqrn} admits members only, and no authorisation helper is supported"
            )
        # A tag, a date or a root hash does not lead round the blacklist.
        blacklist = load_blacklist(self.settings.trust.blacklists)
        check_revision(self.fqrn, revision.number, blacklist)
        log.info(
            "%s: revision %d, published at Unix time %d, to be looked after every %d s",
            *(self.fqrn, revision.number, revision.timestamp, revision.ttl),
        )

    def _load_newest(self, verdict: Verdict) -> Revision:
        manifest = verdict.manifest
        info = RevisionInfo(
            manifest.fqrn,
            manifest.root_catalog,
            manifest.catalog_size,
            published=manifest.timestamp,
        )
        try:
            return self._load(info)
        except (NetworkError, ObjectMissing) as exc:
            if verdict.offline is None:
                raise
            raise verdict.offline from exc

    def refresh(self) -> Revision | None:
        """A newer revision if the servers have one, else None; see `adopt`.

        The manifest is verified before anything of it is used. An older one is refused.

        Raises:
            LazyfsError: the servers do not answer, or say something that must not be believed.
        """
        if self._authority is None or self._verdict is None or self.settings.revision.is_fixed:
            return None
        verdict = self._authority.update(self._verdict, self.current.root_hash)
        if verdict is None:
            return None
        revision = self._load_newest(verdict)
        self._authority.believe(verdict)
        self._verdict = verdict
        return revision

    def adopt(self, revision: Revision) -> Revision:
        """Make ``revision`` the current one; the previous one, for the caller to close."""
        previous, self._current = self.current, revision
        return previous

    def metainfo(self) -> bytes | None:
        """The repository's description in JSON, None if it has none.

        Raises:
            LazyfsError: it cannot be had.
        """
        if self.manifest is None or self.manifest.metainfo is None:
            return None
        ref = ObjectRef(
            self.manifest.metainfo,
            ObjectKind.METAINFO,
            limit=SMALL_LIMIT,
            label=f"metainfo for {self.fqrn}",
        )
        with self.store.open(ref) as handle:
            return handle.pread(handle.size, 0)


def _downloader(settings: NetworkSettings) -> Downloader:
    return Downloader(settings)


def _root_hash(text: str) -> Digest:
    try:
        return Digest.parse_content(text)
    except FormatError as exc:
        raise ConfigError(
            f"not a root hash: {text[:80]!r}", hint="write the hex digits and the suffix, if any"
        ) from exc
