"""Where a repository is published to: nouns and protocols that targets implement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from lazyfs.cas.store import ObjectRef, Receiver

DOCUMENT_LIMIT = 256 << 20
"""Most bytes of a document that is read into memory; a reflog has 100 bytes for each revision."""


@dataclass(frozen=True, slots=True)
class Document:
    """A small file that changes: a manifest, a whitelist, a reflog, a lease."""

    content: bytes
    version: str
    """Names just this content at just this place; see `UploadTarget.replace_if`."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as a target lists it."""

    path: str
    """Below the repository: ``data/ab/cdef…``."""
    size: int
    """Stored bytes."""
    modified: float
    """Unix time of its upload."""


class Upload(Protocol):
    """One object on its way; nothing is visible before `commit`."""

    def write(self, data: bytes) -> None:
        """Append stored bytes."""

    def commit(self, path: str, *, replace: bool = False) -> bool:
        """Make it visible at ``path``, whole.

        Args:
            path: Below the repository.
            replace: Take the place of an object that is there, which must be damaged.

        Returns:
            False if an object was there already and stays.
        """

    def discard(self) -> None:
        """Forget it, unless it was committed."""


class UploadTarget(Protocol):
    """A place that serves a repository to its readers. Safe to use from many threads.

    Every method blocks, and raises `PublishError` with what to do next if the place cannot be
    reached or refuses.
    """

    @property
    def name(self) -> str:
        """The place, for people: a folder or a URL."""

    def prepare(self) -> None:
        """Make what has to be there before the first upload."""

    # --- objects: named by their content, never changed --------------------------------------

    def has(self, path: str) -> bool:
        """Whether there is an object at ``path``."""

    def upload(self) -> Upload:
        """A new upload."""

    def fetch(self, ref: ObjectRef, receiver: Receiver) -> None:
        """Deliver the stored bytes of one object; a target is an `Origin`.

        Raises:
            ObjectMissing: it is not there.
            VerificationError, FormatError: something else is.
        """

    def objects(self) -> Iterator[StoredObject]:
        """All objects, in any order."""

    def remove(self, paths: Iterable[str]) -> None:
        """Remove objects or documents; those that are not there do no harm."""

    # --- documents: small files that change --------------------------------------------------

    def read(self, path: str) -> Document | None:
        """A whole document, None if there is none."""

    def replace(self, path: str, content: bytes) -> None:
        """Put a document at ``path``; readers see the old or the whole new one."""

    def replace_if(self, path: str, content: bytes, version: str | None) -> str | None:
        """As `replace`, if the document is still what the caller knows.

        Args:
            path: Of the document.
            content: The new one.
            version: What `read` or `replace_if` told; None: there must be no document.

        Returns:
            The version of the new document; None if somebody else was there first, in which case
            nothing is changed.
        """
