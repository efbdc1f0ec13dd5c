"""Checking a repository: catalogs agree with themselves and each other, content with its names."""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from lazyfs.cas.store import ObjectRef
from lazyfs.errors import ConfigError, LazyfsError
from lazyfs.repository.catalog import COUNTERS, Catalog
from lazyfs.repository.node import Node
from lazyfs.repository.revision import Revision

Progress = Callable[[int, int], None]
"""Called with the entries seen so far, and how many there are in all."""

_PENDING_PER_WORKER = 4


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    path: bytes
    object: str
    message: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found."""

    catalogs: int
    objects: int
    """Objects verified now, without those of an earlier run."""
    bytes: int
    """Their content, uncompressed."""
    problems: tuple[Problem, ...]


def check_revision(
    revision: Revision,
    *,
    subtree: bytes = b"",
    journal: Path | None = None,
    content: bool = True,
    workers: int = 8,
    progress: Progress | None = None,
) -> CheckReport:
    """Check a revision or a subtree of it; problems are collected, not raised.

    Args:
        revision: What to check.
        subtree: Only what lies at and below this path.
        journal: A file that remembers verified objects, so that a later run goes on.
        content: Verify file content; without it only catalogs.
        workers: Objects verified in parallel.
        progress: Called as the check goes on.

    Raises:
        PathNotFound: there is no such subtree.
        ConfigError: the journal cannot be used.
    """
    top = revision.resolve(subtree, follow=False)
    with (
        _Journal(journal) as done,
        ThreadPoolExecutor(workers, thread_name_prefix="lazyfs-check") as pool,
    ):
        checker = _Checker(revision, done, pool, workers, content=content, progress=progress)
        checker.run(top)
    return checker.report()


class _Checker:
    def __init__(
        self,
        revision: Revision,
        journal: _Journal,
        pool: ThreadPoolExecutor,
        workers: int,
        *,
        content: bool,
        progress: Progress | None,
    ) -> None:
        self._revision = revision
        self._journal = journal
        self._pool = pool
        self._limit = workers * _PENDING_PER_WORKER
        self._content = content
        self._progress = progress
        self._pending: deque[tuple[bytes, ObjectRef, Future[None]]] = deque()
        self._problems: list[Problem] = []
        self._catalogs: set[bytes] = set()
        self._objects = self._bytes = self._entries = 0

    def report(self) -> CheckReport:
        return CheckReport(len(self._catalogs), self._objects, self._bytes, tuple(self._problems))

    def run(self, top: Node) -> None:
        total = sum(self._revision.counters()[n] for n in ("regular", "symlink", "special", "dir"))
        stack = [top]
        if not top.path:
            self._catalog(top)
        while stack:
            node = stack.pop()
            self._entries += 1
            if self._progress is not None:
                self._progress(self._entries, total)
            if node.is_dir:
                stack += self._directory(node)
            elif node.is_file:
                self._file(node)
        self._drain(0)

    def _directory(self, node: Node) -> list[Node]:
        try:
            if node.mountpoint:
                self._catalog(node)
            children = self._revision.children(node.path)
        except LazyfsError as exc:
            self._problem(node.path, exc)
            return []
        links = 2 + sum(child.is_dir for child in children)
        if links != node.nlink:
            self._note(node.path, f"{node.nlink} links are recorded, there are {links}")
        self._hardlinks(node, children)
        return children

    def _hardlinks(self, node: Node, children: list[Node]) -> None:
        found = Counter(child.hardlink_group for child in children if child.hardlink_group)
        for child in children:
            if child.hardlink_group and found[child.hardlink_group] != child.nlink:
                self._note(child.path, f"{child.nlink} hard links are recorded, not all are there")

    def _catalog(self, node: Node) -> None:
        """Check one catalog: its root entry, its counters, its own nested catalogs."""
        catalog = self._revision.tree.lister(node.path)
        if catalog.mountpoint in self._catalogs:
            return
        self._catalogs.add(catalog.mountpoint)
        root = catalog.find(catalog.mountpoint)
        if root is None or not root.is_dir:
            self._note(node.path, "the catalog has no root entry")
        elif (root.mode, root.mtime_ns, root.uid, root.gid) != (
            node.mode,
            node.mtime_ns,
            node.uid,
            node.gid,
        ):
            self._note(node.path, "the mountpoint differs from the root of its catalog")
        self._counters(catalog)

    def _counters(self, catalog: Catalog) -> None:
        counted = Counter[str]()
        for node in _own_entries(catalog):
            counted.update(_count(node))
            if node.chunked:
                counted["chunks"] += len(catalog.chunks(node.path, node.algorithm))
        counted["nested"] = len(catalog.nested())
        recorded = catalog.counters()
        for name in COUNTERS:
            if counted[name] != recorded[f"self_{name}"]:
                self._note(
                    catalog.mountpoint,
                    f"counter self_{name} says {recorded[f'self_{name}']}, there are"
                    f" {counted[name]}",
                )

    def _file(self, node: Node) -> None:
        try:
            extents = self._revision.extents(node)
        except LazyfsError as exc:
            self._problem(node.path, exc)
            return
        if not self._content:
            return
        for extent in extents:
            if not self._journal.knows(extent.ref):
                future = self._pool.submit(self._revision.verify, extent.ref)
                self._pending.append((node.path, extent.ref, future))
        self._drain(self._limit)

    def _drain(self, limit: int) -> None:
        while len(self._pending) > limit:
            path, ref, future = self._pending.popleft()
            try:
                future.result()
            except LazyfsError as exc:
                self._problem(path, exc)
                continue
            self._objects += 1
            self._bytes += ref.size or 0
            self._journal.add(ref)

    def _problem(self, path: bytes, exc: LazyfsError) -> None:
        self._problems.append(Problem(path, exc.object or "", str(exc)))

    def _note(self, path: bytes, message: str) -> None:
        self._problems.append(Problem(path, "", message))


def _own_entries(catalog: Catalog) -> Iterator[Node]:
    """All entries of one catalog, its root entry first; children of other catalogs not."""
    root = catalog.find(catalog.mountpoint)
    stack = [root] if root is not None else []
    while stack:
        node = stack.pop()
        yield node
        if node.is_dir and (not node.mountpoint or node.path == catalog.mountpoint):
            stack += catalog.children(node.path)


def _count(node: Node) -> dict[str, int]:
    counts: dict[str, int] = {}
    if node.is_dir:
        counts["dir"] = 1
    elif node.is_symlink:
        counts["symlink"] = 1
    elif not node.is_file:
        counts["special"] = 1
    else:
        counts |= {"regular": 1, "file_size": node.size}
        if node.chunked:
            counts |= {"chunked": 1, "chunked_size": node.size}
        if node.external:
            counts |= {"external": 1, "external_file_size": node.size}
    if node.has_xattrs:
        counts["xattr"] = 1
    return counts


class _Journal:
    """Keys of verified objects, one a line, appended as the check goes on."""

    def __init__(self, path: Path | None) -> None:
        self._known: set[str] = set()
        self._file: TextIO | None = None
        if path is None:
            return
        try:
            with contextlib.suppress(FileNotFoundError):
                # A last line without its end was being written when the run was killed.
                lines = path.read_text().split("\n")[:-1]
                self._known = set(lines)
            self._file = path.open("a", buffering=1)
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"cannot use the journal: {exc}", path=str(path)) from exc

    def knows(self, ref: ObjectRef) -> bool:
        return ref.key in self._known

    def add(self, ref: ObjectRef) -> None:
        if ref.key not in self._known:
            self._known.add(ref.key)
            if self._file is not None:
                self._file.write(f"{ref.key}\n")

    def __enter__(self) -> _Journal:
        return self

    def __exit__(self, *args: object) -> None:
        if self._file is not None:
            self._file.close()
