"""A target at whose boundaries the process dies, as by ``kill -9``."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator

from lazyfs.cas.store import ObjectRef, Receiver
from lazyfs.publish.target import Document, StoredObject, Upload, UploadTarget


class Boundaries:
    """Counts them, and kills the process at one.

    Args:
        deadly: The number of the boundary, from 0; None: only count.
    """

    def __init__(self, deadly: int | None) -> None:
        self._deadly = deadly
        self._lock = threading.Lock()
        self.passed = 0

    def cross(self) -> None:
        """Come to a boundary."""
        with self._lock:
            if self.passed == self._deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            self.passed += 1


class KilledTarget:
    """Before and after each step that may change something there is a boundary.

    Args:
        target: What is changed.
        boundaries: Where to die.
    """

    def __init__(self, target: UploadTarget, boundaries: Boundaries) -> None:
        self._target = target
        self._boundaries = boundaries

    @property
    def name(self) -> str:
        return self._target.name

    def prepare(self) -> None:
        self._target.prepare()

    def has(self, path: str) -> bool:
        return self._target.has(path)

    def upload(self) -> Upload:
        return KilledUpload(self._target.upload(), self._boundaries)

    def fetch(self, ref: ObjectRef, receiver: Receiver) -> None:
        self._target.fetch(ref, receiver)

    def objects(self) -> Iterator[StoredObject]:
        return self._target.objects()

    def remove(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._boundaries.cross()
            self._target.remove([path])
        self._boundaries.cross()

    def read(self, path: str) -> Document | None:
        return self._target.read(path)

    def replace(self, path: str, content: bytes) -> None:
        self._boundaries.cross()
        self._target.replace(path, content)
        self._boundaries.cross()

    def replace_if(self, path: str, content: bytes, version: str | None) -> str | None:
        self._boundaries.cross()
        found = self._target.replace_if(path, content, version)
        self._boundaries.cross()
        return found


class KilledUpload:
    """An upload with boundaries."""

    def __init__(self, upload: Upload, boundaries: Boundaries) -> None:
        self._upload = upload
        self._boundaries = boundaries

    def write(self, data: bytes) -> None:
        self._upload.write(data)

    def commit(self, path: str, *, replace: bool = False) -> bool:
        self._boundaries.cross()
        made = self._upload.commit(path, replace=replace)
        self._boundaries.cross()
        return made

    def discard(self) -> None:
        self._upload.discard()


def count_boundaries(work: Callable[[Boundaries], None]) -> int:
    """How many ``work`` crosses."""
    boundaries = Boundaries(None)
    work(boundaries)
    return boundaries.passed


def killed_at(number: int, work: Callable[[Boundaries], None]) -> bool:
    """Have a process do ``work`` until the boundary of that number; whether it came so far."""
    child = os.fork()
    if child == 0:
        try:
            work(Boundaries(number))
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
