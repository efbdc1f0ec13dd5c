"""A directory target that tells what is done to it, and can die before any step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from lazyfs.cas.digest import Digest
from lazyfs.cas.store import ObjectRef, Receiver
from lazyfs.publish.directory_target import DirectoryTarget, DirectoryUpload
from lazyfs.publish.lease import LEASE_PATH


class Killed(BaseException):
    """The process would be gone by now."""


class WatchedTarget(DirectoryTarget):
    """Each step that changes something is noted; see `die_before`."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.steps: list[str] = []
        """What was changed, without the lease."""
        self.fetched: Counter[Digest] = Counter()
        self.die_before: int | None = None
        """The number of the step before which the process dies; from then on nothing works."""
        self.before_removing: Callable[[], None] = lambda: None

    def _step(self, what: str) -> None:
        if self.die_before is not None and len(self.steps) >= self.die_before:
            raise Killed
        self.steps.append(what)

    def _alive(self) -> None:
        if self.die_before is not None and len(self.steps) >= self.die_before:
            raise Killed

    def fetch(self, ref: ObjectRef, receiver: Receiver) -> None:
        self.fetched[ref.digest] += 1
        super().fetch(ref, receiver)

    def upload(self) -> DirectoryUpload:
        target = self

        class Upload(DirectoryUpload):
            def commit(self, path: str, *, replace: bool = False) -> bool:
                target._step(path)
                return super().commit(path, replace=replace)

        return Upload(self.root, self.root / "data" / "txn")

    def remove(self, paths: Iterable[str]) -> None:
        self.before_removing()
        for path in paths:
            self._step(f"-{path}")
            super().remove([path])

    def replace(self, path: str, content: bytes) -> None:
        if path == LEASE_PATH:
            self._alive()
        else:
            self._step(path)
        super().replace(path, content)
