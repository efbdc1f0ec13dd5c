"""What a cache remembers of a repository: the last documents that were verified."""

from __future__ import annotations

from dataclasses import dataclass

from lazyfs.cas.local_cache import LocalCache


@dataclass(frozen=True, slots=True)
class Documents:
    """What is needed to believe a revision, as it came."""

    manifest: bytes
    """Signed by the certificate's key."""
    whitelist: bytes
    """Signed by a master key."""
    certificate: bytes
    """PEM."""


class Remembered:
    """The last verified documents of one repository.

    They let a repository open without a network, and tell a server that goes back in time. They
    are verified again whenever they are used.
    """

    def __init__(self, cache: LocalCache, fqrn: str) -> None:
        self._manifest = cache.state(f"{fqrn}/manifest")
        self._whitelist = cache.state(f"{fqrn}/whitelist")
        self._certificate = cache.state(f"{fqrn}/certificate")

    def load(self) -> Documents | None:
        """The documents, None if nothing is remembered.

        Raises:
            CacheError: they are there and cannot be read.
        """
        manifest, whitelist = self._manifest.read(), self._whitelist.read()
        certificate = self._certificate.read()
        if manifest is None or whitelist is None or certificate is None:
            return None
        return Documents(manifest, whitelist, certificate)

    def keep(self, documents: Documents) -> None:
        """Remember; the manifest last, so that it never stands without the others.

        Raises:
            CacheError: the disk refuses.
        """
        for file, content in (
            (self._whitelist, documents.whitelist),
            (self._certificate, documents.certificate),
            (self._manifest, documents.manifest),
        ):
            if file.read() != content:
                file.write(content)
