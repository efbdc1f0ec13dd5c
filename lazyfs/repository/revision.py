"""`Revision`: one root catalog and the tree below it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from lazyfs.cas.digest import Digest
from lazyfs.cas.store import ObjectRef, VerifyingStore
from lazyfs.errors import FormatError, IsADirectory, NotADirectory, PathError, PathNotFound
from lazyfs.repository.catalog import sum_counters
from lazyfs.repository.catalog_tree import CatalogTree
from lazyfs.repository.extents import chunk_extents, whole_extents
from lazyfs.repository.file import RepositoryFile
from lazyfs.repository.node import Node
from lazyfs.repository.pathhash import normalize, printable
from lazyfs.repository.resolve import resolve
from lazyfs.repository.symlinks import expand
from lazyfs.repository.view import Extent

DEFAULT_TTL = 240
"""Seconds, where the root catalog states none (upstream: ``catalog.h``)."""

MAX_TTL = 30 * 86400
"""Seconds; a mount that looks more rarely than this does not look at all."""


@dataclass(frozen=True, slots=True)
class RevisionInfo:
    """What is known of a revision before its catalog is read."""

    fqrn: str
    root_hash: Digest
    root_size: int = 0
    """Bytes; 0: not declared."""
    tag: str = ""
    published: int = 0
    """Unix time; 0: ask the catalog."""


@dataclass(frozen=True, slots=True)
class CatalogInfo:
    """A catalog as its readers may want to know it."""

    mountpoint: bytes
    digest: Digest
    counters: dict[str, int]
    """Self and subtree added, by name."""


class Revision:
    """A tree that never changes; see `RepositoryView`. Safe to use from many threads.

    Args:
        info: Which revision.
        tree: Its catalogs, closed with the revision.
        store: Where file content comes from.
        variables: Values for symlink variables.
        fetch: False: never ask the network for catalogs, raise `NotCached`.
    """

    def __init__(
        self,
        info: RevisionInfo,
        tree: CatalogTree,
        store: VerifyingStore,
        variables: Mapping[str, str],
        *,
        fetch: bool = True,
    ) -> None:
        self._info = info
        self._tree = tree
        self._store = store
        self._variables = variables
        self._fetch = fetch

    @property
    def offline(self) -> Revision:
        """The same revision, answering from what is cached alone."""
        return Revision(self._info, self._tree, self._store, self._variables, fetch=False)

    # --- facts -----------------------------------------------------------------------------

    @property
    def fqrn(self) -> str:
        """The repository's name."""
        return self._info.fqrn

    @property
    def number(self) -> int:
        """The revision number."""
        return self._tree.root.number("revision")

    @property
    def root_hash(self) -> Digest:
        """Digest of the root catalog."""
        return self._info.root_hash

    @property
    def root_size(self) -> int:
        """Bytes of the root catalog, uncompressed; 0: not declared."""
        return self._info.root_size

    @property
    def tag(self) -> str:
        """The tag by which it was chosen; empty if by none."""
        return self._info.tag

    @property
    def timestamp(self) -> int:
        """Unix time of publication."""
        return self._info.published or self._tree.root.number("last_modified")

    @property
    def ttl(self) -> int:
        """Seconds after which a newer revision should be looked for."""
        return min(max(1, self._tree.root.number("TTL", DEFAULT_TTL)), MAX_TTL)

    def counters(self) -> dict[str, int]:
        """Entries and bytes of the whole repository by counter name."""
        return sum_counters(self._tree.root.counters())

    @property
    def tree(self) -> CatalogTree:
        """The catalogs."""
        return self._tree

    def catalog_info(self, path: bytes) -> CatalogInfo:
        """The deepest catalog at or above ``path``: that of a mountpoint is the nested one."""
        catalog = self._tree.lister(normalize(path), fetch=self._fetch)
        return CatalogInfo(catalog.mountpoint, catalog.digest, sum_counters(catalog.counters()))

    def open_catalogs(self) -> list[bytes]:
        """Mountpoints of the catalogs that are open."""
        return self._tree.open_catalogs()

    def detach_nested(self) -> None:
        """Let go of all nested catalogs."""
        self._tree.detach_nested()

    # --- the tree --------------------------------------------------------------------------

    def lookup(self, path: bytes) -> Node:
        """The entry at ``path``, hidden or not.

        Raises:
            PathNotFound: there is none.
            LazyfsError: a catalog on the way cannot be loaded.
        """
        path = normalize(path)
        node = self._tree.holder(path, fetch=self._fetch).find(path)
        if node is None:
            raise PathNotFound("no such file or directory", path=path)
        return node

    def listdir(self, path: bytes) -> list[Node]:
        """The entries of a directory in catalog order, without hidden ones.

        Raises:
            PathNotFound, NotADirectory: it is no directory.
            LazyfsError: a catalog on the way cannot be loaded.
        """
        return [node for node in self.children(path) if not node.hidden]

    def children(self, path: bytes) -> list[Node]:
        """The entries of a directory, hidden ones included; raises as `listdir`."""
        path = normalize(path)
        children = self._tree.lister(path, fetch=self._fetch).children(path)
        if not children and not self.lookup(path).is_dir:
            raise NotADirectory("not a directory", path=path)
        return children

    def children_now(self, directory: Node) -> list[Node] | None:
        """As `children`, if neither network nor disk nor another thread need be waited for.

        None: they would have to be, or there are many entries.

        Raises:
            FormatError: an entry cannot be.
        """
        mountpoint = directory.path if directory.mountpoint else directory.catalog
        catalog = self._tree.attached(mountpoint)
        return catalog.children_now(directory.path) if catalog is not None else None

    def walk(self, path: bytes = b"") -> Iterator[Node]:
        """``path`` itself and all below it, parents first, names in byte order."""
        stack = [self.lookup(path)]
        while stack:
            node = stack.pop()
            yield node
            if node.is_dir:
                children = self.listdir(node.path)
                stack += sorted(children, key=lambda child: child.path, reverse=True)

    def resolve(self, path: bytes | str, *, follow: bool = True) -> Node:
        """The entry at ``path``, links within the repository followed.

        Args:
            path: Absolute in the repository.
            follow: Follow a link in the last component too.

        Raises:
            PathNotFound: it does not exist, or a link leads out of the repository.
            PathError: it climbs above the root, or over more than 40 links.
        """
        mounted_at = b"/cvmfs/" + self.fqrn.encode()
        return resolve(self, path, follow=follow, mounted_at=mounted_at)

    def readlink(self, node: Node) -> bytes:
        """The link's target with its variables expanded.

        Raises:
            PathError: it is no symbolic link.
        """
        if not node.is_symlink:
            raise PathError("not a symbolic link", path=node.path)
        return expand(node.symlink, self._variables)

    def xattrs(self, node: Node) -> dict[bytes, bytes]:
        """Extended attributes as published."""
        if not node.has_xattrs:
            return {}
        return self._tree.holder(node.path, fetch=self._fetch).xattrs(node.path)

    def extents(self, node: Node) -> tuple[Extent, ...]:
        """Where a regular file's content lies.

        Raises:
            IsADirectory, PathError: it is no regular file.
            FormatError: chunks with gaps or overlaps, or sizes that do not add up.
        """
        if node.is_dir:
            raise IsADirectory("is a directory", path=node.path)
        if not node.is_file:
            raise PathError("not a regular file", path=node.path)
        try:
            if not node.chunked:
                return whole_extents(node)
            catalog = self._tree.holder(node.path, fetch=self._fetch)
            return chunk_extents(node, catalog.chunks(node.path, node.algorithm))
        except FormatError as exc:
            exc.object = exc.object or f"catalog at {printable(node.catalog)}"
            raise

    def verify(self, ref: ObjectRef) -> None:
        """Read an object from its origin, past the cache, and verify it.

        Raises:
            LazyfsError: it cannot be had, or is not what its name says.
        """
        self._store.verify(ref)

    def open_file(self, path: bytes | str | Node) -> RepositoryFile:
        """A regular file, open for reading; links are followed.

        Raises:
            PathNotFound, IsADirectory, PathError: there is no such file.
        """
        node = path if isinstance(path, Node) else self.resolve(path)
        return RepositoryFile(self._store, self.extents(node), node.size, name=node.path)

    # --- life cycle ------------------------------------------------------------------------

    def close(self) -> None:
        """Close all catalogs. Open files stay readable."""
        self._tree.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
