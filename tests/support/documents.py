"""Signed manifests and whitelists without a repository behind them."""

from __future__ import annotations

import datetime
import functools

from lazyfs.cas.digest import Algorithm, Digest
from lazyfs.publish.keys import RepositoryKeys
from lazyfs.publish.signing import make_whitelist, sign_manifest, sign_whitelist
from lazyfs.repository.manifest import ROOT_PATH_MD5, Manifest

FQRN = "test.example.org"
NOW = datetime.datetime(2030, 1, 1, 12, tzinfo=datetime.UTC)


@functools.cache
def make_keys(name: str = "") -> RepositoryKeys:
    """Keys, the same ones for the same name: making them takes longer than most tests."""
    return RepositoryKeys.generate(f"{name}{FQRN}")


def manifest_for(
    keys: RepositoryKeys,
    *,
    revision: int = 7,
    timestamp: int = 1_000_000,
    root: Digest | None = None,
    certificate: Digest | None = None,
) -> Manifest:
    """A manifest of a repository with these keys; it has no objects."""
    return Manifest(
        root_catalog=root or Algorithm.SHA1.digest(f"catalog {revision}".encode()),
        root_path=ROOT_PATH_MD5,
        ttl=240,
        revision=revision,
        fqrn=FQRN,
        certificate=certificate or Algorithm.SHA1.digest(keys.certificate_pem),
        timestamp=timestamp,
    )


def signed_manifest(
    keys: RepositoryKeys,
    manifest: Manifest | None = None,
    *,
    algorithm: Algorithm = Algorithm.SHA1,
) -> bytes:
    """``.cvmfspublished``."""
    return sign_manifest(manifest or manifest_for(keys), keys.key, algorithm)


def signed_whitelist(
    keys: RepositoryKeys, *, now: datetime.datetime = NOW, days: int = 30
) -> bytes:
    """``.cvmfswhitelist``."""
    whitelist = make_whitelist(FQRN, keys, Algorithm.SHA1, now=now, days=days)
    return sign_whitelist(whitelist, keys.need_master(), Algorithm.SHA1)
