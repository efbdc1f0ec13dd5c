"""What a cache remembers of a repository: the last documents that were verified."""

from __future__ import annotations

from lazyfs.cas.local_cache import LocalCache


class Remembered:
    """The last verified manifest and whitelist of one repository, as they came.

    They let a repository open without a network, and tell a server that goes back in time. They
    are verified again whenever they are used.
    """

    def __init__(self, cache: LocalCache, fqrn: str) -> None:
        self._manifest = cache.state(f"{fqrn}/manifest")
        self._whitelist = cache.state(f"{fqrn}/whitelist")

    def manifest(self) -> bytes | None:
        """The signed manifest."""
        return self._manifest.read()

    def whitelist(self) -> bytes | None:
        """The signed whitelist."""
        return self._whitelist.read()

    def keep(self, manifest: bytes, whitelist: bytes) -> None:
        """Remember both; the whitelist first, so that a manifest never stands without one."""
        if self.whitelist() != whitelist:
            self._whitelist.write(whitelist)
        if self.manifest() != manifest:
            self._manifest.write(manifest)
