"""Revisions and stores that exist in memory alone, for tests of the file system's parts."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lazyfs.cas.digest import Algorithm, Digest
from lazyfs.cas.handle import FileHandle
from lazyfs.cas.store import ObjectRef
from lazyfs.errors import LazyfsError, NotADirectory, NotCached, ObjectMissing, PathNotFound
from lazyfs.repository.extents import whole_extents
from lazyfs.repository.node import Node
from lazyfs.repository.view import Extent


def digest_of(content: bytes) -> Digest:
    """A digest for content; the fakes do not compress."""
    return Algorithm.SHA1.digest(content)


def directory(path: str, **more: object) -> Node:
    """A directory; ``""`` is the root."""
    return _node(path, stat.S_IFDIR | 0o755, **{"nlink": 2, "size": 4096, **more})


def file(path: str, content: bytes = b"content", **more: object) -> Node:
    """A regular file of one object."""
    values = {"digest": digest_of(content), "size": len(content), **more}
    return _node(path, stat.S_IFREG | 0o644, **values)


def symlink(path: str, target: bytes, **more: object) -> Node:
    """A symbolic link."""
    return _node(path, stat.S_IFLNK | 0o777, symlink=target, size=len(target), **more)


def hard_link(path: str, group: int, content: bytes = b"content", **more: object) -> Node:
    """A member of a hard-link group of two."""
    return file(path, content, **{"hardlink_group": group, "nlink": 2, **more})


def _node(path: str, usual_mode: int, **more: object) -> Node:
    values: dict[str, object] = {"size": 0, "mtime_ns": 1, "uid": 0, "gid": 0, "nlink": 1}
    values |= {"path": path.encode(), "mode": usual_mode, **more}
    return Node(**values)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class FakeCatalog:
    """What a revision says of the catalog that lists a directory."""

    mountpoint: bytes
    digest: Digest


class FakeTree:
    """The catalogs of a fake revision: one for each path given, the root's among them."""

    def __init__(self, catalogs: Mapping[bytes, Digest]) -> None:
        self._catalogs = catalogs

    def lister(self, path: bytes, *, fetch: bool = True) -> FakeCatalog:
        found = max((m for m in self._catalogs if path.startswith(m)), key=len)
        return FakeCatalog(found, self._catalogs[found])


class FakeRevision:
    """A revision made of nodes.

    Args:
        nodes: All entries but the root, which is made if it is missing.
        number: Of the revision.
        cached: False: the offline twin raises `NotCached` for everything.
    """

    def __init__(self, nodes: Iterable[Node], number: int = 1, *, cached: bool = True) -> None:
        self.nodes = {node.path: node for node in (directory(""), *nodes)}
        self.number = number
        self.cached = cached
        self.ttl = 240
        self.closed = False
        self.at_hand = False
        """Whether `children_now` answers."""
        self.calls: list[tuple[str, bytes]] = []
        self.errors: dict[bytes, LazyfsError] = {}
        """Raised for a path, whatever is asked."""
        self.chunks: dict[bytes, tuple[Extent, ...]] = {}
        self.attributes: dict[bytes, dict[bytes, bytes]] = {}
        self.catalogs = {b"": digest_of(b"revision %d" % number)}
        self.gate = threading.Event()
        """Cleared: every question waits, as for a network."""
        self.gate.set()

    @property
    def root_hash(self) -> Digest:
        return self.catalogs[b""]

    @property
    def offline(self) -> FakeRevision:
        return self if self.cached else _Uncached(self)

    @property
    def tree(self) -> FakeTree:
        return FakeTree(self.catalogs)

    def _ask(self, question: str, path: bytes) -> None:
        self.calls.append((question, path))
        assert self.gate.wait(10)
        if path in self.errors:
            raise self.errors[path]

    def lookup(self, path: bytes) -> Node:
        self._ask("lookup", path)
        node = self.nodes.get(path)
        if node is None:
            raise PathNotFound("no such file or directory", path=path)
        return node

    def children(self, path: bytes) -> Sequence[Node]:
        self._ask("children", path)
        if path not in self.nodes:
            raise PathNotFound("no such file or directory", path=path)
        if not self.nodes[path].is_dir:
            raise NotADirectory("not a directory", path=path)
        return [n for n in self.nodes.values() if n.path and n.path.rpartition(b"/")[0] == path]

    def children_now(self, directory: Node) -> Sequence[Node] | None:
        return self.children(directory.path) if self.at_hand else None

    def listdir(self, path: bytes) -> Sequence[Node]:
        return [node for node in self.children(path) if not node.hidden]

    def walk(self, path: bytes = b"") -> Iterator[Node]:
        yield from (self.nodes[p] for p in sorted(self.nodes) if p.startswith(path))

    def readlink(self, node: Node) -> bytes:
        return node.symlink.replace(b"$(VAR)", b"value")

    def xattrs(self, node: Node) -> dict[bytes, bytes]:
        self._ask("xattrs", node.path)
        return self.attributes.get(node.path, {})

    def extents(self, node: Node) -> Sequence[Extent]:
        if not node.chunked:
            return whole_extents(node)
        self._ask("extents", node.path)
        return self.chunks[node.path]

    def detach_nested(self) -> None:
        self.calls.append(("detach_nested", b""))

    def close(self) -> None:
        self.closed = True


class _Uncached(FakeRevision):
    """The offline twin of a revision of which nothing is cached."""

    def __init__(self, real: FakeRevision) -> None:
        super().__init__(real.nodes.values(), real.number)
        self.calls = real.calls

    def _ask(self, question: str, path: bytes) -> None:
        self.calls.append((f"offline {question}", path))
        raise NotCached("not cached", path=path)


def changed(revision: FakeRevision, *nodes: Node, removed: Iterable[str] = ()) -> FakeRevision:
    """The next revision: the same entries, but for those given."""
    entries = {p: n._replace() for p, n in revision.nodes.items() if p}
    for path in removed:
        del entries[path.encode()]
    entries |= {node.path: node for node in nodes}
    return FakeRevision(entries.values(), revision.number + 1)


@dataclass(slots=True)
class FakeStore:
    """An object store in memory: some objects are cached, the others must be fetched."""

    remote: dict[Digest, bytes] = field(default_factory=dict)
    cached: dict[Digest, bytes] = field(default_factory=dict)
    fetched: list[Digest] = field(default_factory=list)
    peeked: list[Digest] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    """Cleared: fetches wait. Set when the store is made."""
    error: LazyfsError | None = None
    """Raised by each fetch."""
    handles: list[FileHandle] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    def add(self, content: bytes, *, cached: bool = False) -> Digest:
        """Have an object."""
        digest = digest_of(content)
        (self.cached if cached else self.remote)[digest] = content
        return digest

    def peek(self, ref: ObjectRef) -> FileHandle | None:
        self.peeked.append(ref.digest)
        content = self.cached.get(ref.digest)
        return None if content is None else self._handle(content)

    def open(self, ref: ObjectRef) -> FileHandle:
        self.fetched.append(ref.digest)
        assert self.gate.wait(10)
        if self.error is not None:
            raise self.error
        if ref.digest not in self.remote:
            raise ObjectMissing("no server has it", object=str(ref))
        self.cached[ref.digest] = self.remote[ref.digest]
        return self._handle(self.remote[ref.digest])

    def _handle(self, content: bytes) -> FileHandle:
        handle = FileHandle.from_bytes(content)
        self.handles.append(handle)
        return handle

    @property
    def open_handles(self) -> int:
        """Handles that were not closed."""
        return sum(handle.fileno() >= 0 for handle in self.handles)
