"""`RepositoryView`: what every reader of a revision uses, be it a mount, a command or a test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from lazyfs.cas.digest import Digest
from lazyfs.cas.store import ObjectRef
from lazyfs.repository.node import Node


@dataclass(frozen=True, slots=True)
class Extent:
    """A stretch of a file and the object that holds it. A file's extents tile it from 0."""

    offset: int
    size: int
    ref: ObjectRef


class RepositoryView(Protocol):
    """One revision of a repository: a tree that never changes. Safe to use from many threads.

    Every method may block on the disk or the network. Paths are bytes, ``b""`` is the root.
    All raise `PathNotFound` for what does not exist, and `LazyfsError` (EIO) where a catalog
    cannot be loaded: a missing catalog is never an empty directory.
    """

    @property
    def number(self) -> int:
        """The revision number."""

    @property
    def root_hash(self) -> Digest:
        """Digest of the root catalog."""

    def lookup(self, path: bytes) -> Node:
        """The entry at ``path``."""

    def listdir(self, path: bytes) -> Sequence[Node]:
        """The entries of a directory in catalog order, without hidden ones.

        Raises:
            NotADirectory: ``path`` is something else.
        """

    def walk(self, path: bytes = b"") -> Iterator[Node]:
        """``path`` itself and all below it, parents first, names in byte order."""

    def readlink(self, node: Node) -> bytes:
        """The link's target with its variables expanded."""

    def xattrs(self, node: Node) -> dict[bytes, bytes]:
        """Extended attributes as published."""

    def extents(self, node: Node) -> Sequence[Extent]:
        """Where a regular file's content lies; empty for an empty file without an object.

        Raises:
            FormatError: chunks with gaps or overlaps, or sizes that do not add up.
        """
