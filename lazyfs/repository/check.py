"""Checking a repository: catalogs agree with themselves and each other, content with its names."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from lazyfs.cas.digest import Digest, ObjectKind
from lazyfs.cas.store import ObjectRef
from lazyfs.errors import LazyfsError
from lazyfs.repository.check_catalog import Problem, check_catalog, check_mountpoint
from lazyfs.repository.check_journal import CheckJournal
from lazyfs.repository.extents import whole_extents
from lazyfs.repository.node import Node
from lazyfs.repository.revision import Revision

__all__ = ["CheckReport", "Problem", "Progress", "Thoroughness", "check_revision"]

Progress = Callable[[int, int], None]
"""Called with the entries seen so far, and how many there are in all; 0: not known."""

MAX_PROBLEMS = 10_000
"""Problems collected before a check gives up."""

_PENDING_PER_WORKER = 4


@dataclass(frozen=True, slots=True)
class Thoroughness:
    """What whoever keeps a repository checks beyond what a reader does."""

    empty_objects: bool = False
    """The object of empty files must be there: lazyfs reads none, the real client does."""
    finished: set[tuple[bytes, Digest]] = field(default_factory=set)
    """Catalogs, by mountpoint and digest, that another check went through with all below them:
    passed over. Those of this check are added."""
    on_damage: Callable[[bytes, ObjectRef, LazyfsError], bool] = lambda path, ref, why: False
    """Called for an object that is missing or damaged; True: it is taken care of, no problem."""


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
    thoroughness: Thoroughness | None = None,
) -> CheckReport:
    """Check a revision or a subtree of it; problems are collected, not raised.

    Args:
        revision: What to check.
        subtree: Only what lies at and below this path.
        journal: A file that remembers verified objects, so that a later run goes on.
        content: Fetch and verify every object from its origin, past the cache; without it
            only catalogs are looked at.
        workers: Objects verified in parallel.
        progress: Called as the check goes on.
        thoroughness: What is checked beyond what readers need.

    Raises:
        PathNotFound: there is no such subtree.
        ConfigError: the journal cannot be used.
    """
    top = revision.resolve(subtree, follow=False)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="lazyfs-check")
    with CheckJournal(journal) as done:
        try:
            checker = _Checker(revision, done, pool, workers, thoroughness or Thoroughness())
            checker.run(top, content=content, progress=progress)
        finally:
            pool.shutdown(cancel_futures=True)
    return checker.report()


class _Checker:
    def __init__(
        self,
        revision: Revision,
        journal: CheckJournal,
        pool: ThreadPoolExecutor,
        workers: int,
        thoroughness: Thoroughness,
    ) -> None:
        self._revision = revision
        self._journal = journal
        self._pool = pool
        self._limit = workers * _PENDING_PER_WORKER
        self._thoroughness = thoroughness
        self._pending: deque[tuple[bytes, ObjectRef, Future[None]]] = deque()
        self._submitted: set[str] = set()
        self._problems: list[Problem] = []
        self._catalogs = self._objects = self._bytes = 0

    def report(self) -> CheckReport:
        return CheckReport(self._catalogs, self._objects, self._bytes, tuple(self._problems))

    def run(self, top: Node, *, content: bool, progress: Progress | None) -> None:
        counters = self._revision.counters()
        total = sum(counters[name] for name in ("regular", "symlink", "special", "dir"))
        total = 0 if top.path else total  # of a subtree it is not known
        seen = 0
        stack = [top]
        while stack and len(self._problems) < MAX_PROBLEMS:
            node = stack.pop()
            seen += 1
            if progress is not None:
                progress(seen, max(seen, total) if total else 0)
            if node.is_dir:
                stack += self._directory(node, content=content)
            elif node.is_file:
                self._file(node, content=content)
        self._drain(0)

    def _directory(self, node: Node, *, content: bool) -> list[Node]:
        try:
            is_root = node.mountpoint or not node.path
            if is_root and (self._is_bound(node) or not self._catalog(node, content=content)):
                return []
            children = self._revision.children(node.path)
        except LazyfsError as exc:
            self._failed(node.path, exc)
            return []
        links = 2 + sum(child.is_dir for child in children)
        if links != node.nlink:
            self._note(node.path, f"{node.nlink} links are recorded, there are {links}")
        self._hardlinks(children)
        return children

    def _is_bound(self, node: Node) -> bool:
        """Whether another revision is bound here; it is no part of this one."""
        if not node.path:
            return False
        parent = self._revision.tree.holder(node.path)
        return all(nested.mountpoint != node.path for nested in parent.nested())

    def _catalog(self, node: Node, *, content: bool) -> bool:
        """Check the catalog that begins at a directory; False: it was gone through before."""
        tree = self._revision.tree
        catalog = tree.lister(node.path)
        key, finished = (catalog.mountpoint, catalog.digest), self._thoroughness.finished
        if key in finished:
            # The entry in the parent may differ, whatever is below it.
            self._problems += check_mountpoint(catalog, node)
            return False
        finished.add(key)
        self._catalogs += 1
        if content:
            self._submit(node.path, (tree.ref(catalog),))
        try:
            self._problems += check_catalog(tree, catalog, node)
        except LazyfsError as exc:
            self._failed(node.path, exc)
        return True

    def _hardlinks(self, children: list[Node]) -> None:
        groups: dict[int, list[Node]] = {}
        for child in children:
            if child.hardlink_group:
                groups.setdefault(child.hardlink_group, []).append(child)
        for members in groups.values():
            first = members[0]
            if any(member.nlink != len(members) for member in members):
                self._note(first.path, f"{first.nlink} hard links recorded, {len(members)} found")
            if len(Counter(_shared(member) for member in members)) > 1:
                self._note(first.path, "hard links to one file differ")

    def _file(self, node: Node, *, content: bool) -> None:
        try:
            extents = self._revision.extents(node)
            if node.chunked and node.digest is not None:
                extents += whole_extents(node)  # an object of old servers beside the chunks
        except LazyfsError as exc:
            self._failed(node.path, exc)
            return
        if content:
            self._submit(node.path, (extent.ref for extent in extents))
            if self._thoroughness.empty_objects and not node.size and node.digest is not None:
                self._submit(node.path, (ObjectRef(node.digest, ObjectKind.FILE, node.codec, 0),))

    def _submit(self, path: bytes, refs: Iterable[ObjectRef]) -> None:
        for ref in refs:
            if ref.claim not in self._submitted and not self._journal.knows(ref):
                self._submitted.add(ref.claim)
                self._pending.append((path, ref, self._pool.submit(self._revision.verify, ref)))
                self._drain(self._limit)

    def _drain(self, limit: int) -> None:
        while len(self._pending) > limit:
            path, ref, future = self._pending.popleft()
            self._submitted.discard(ref.claim)
            try:
                future.result()
            except LazyfsError as exc:
                if not self._thoroughness.on_damage(path, ref, exc):
                    self._failed(path, exc)
                continue
            self._objects += 1
            self._bytes += ref.size or 0
            self._journal.add(ref)

    def _failed(self, path: bytes, exc: LazyfsError) -> None:
        self._problems.append(Problem(path, exc.object or "", str(exc)))

    def _note(self, path: bytes, message: str) -> None:
        self._problems.append(Problem(path, "", message))


def _shared(node: Node) -> tuple[object, ...]:
    """What all hard links to a file have in common."""
    return (node.mode, node.size, node.mtime_ns, node.uid, node.gid, node.digest, node.chunked)
