"""`Mender`: makes damaged objects again from the files that they were made of."""

from __future__ import annotations

import contextlib
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lazyfs.cas.codec import ZLIB_LEVEL, Codec
from lazyfs.cas.digest import ObjectKind
from lazyfs.cas.store import ObjectRef
from lazyfs.errors import (
    FormatError,
    LazyfsError,
    ObjectMissing,
    PathNotFound,
    VerificationError,
)
from lazyfs.publish.target import UploadTarget
from lazyfs.repository.check import Problem
from lazyfs.repository.pathhash import is_below
from lazyfs.repository.revision import Revision

_PIECE = 1 << 20
_DAMAGE = (ObjectMissing, VerificationError, FormatError)
"""All else says that the object cannot be reached, not that it is bad."""


@dataclass(frozen=True, slots=True)
class Mended:
    """An object that was made again."""

    path: bytes
    """The file that it was made of."""
    object: str
    why: str
    """What was wrong with it."""


class Mender:
    """Mends objects of any revision from one source tree; single thread.

    What is made again is exactly what the catalogs name, or it is not uploaded: a file that has
    changed since it was published helps nothing, and does no harm.

    Args:
        target: Gets the objects.
        source: The tree that was published, laid out as in the repository.
        at: Where in the repository it stands.
    """

    def __init__(self, target: UploadTarget, source: Path, at: bytes = b"") -> None:
        self._target = target
        self._source = os.fsencode(source)
        self._at = at
        self._failed: dict[str, Problem] = {}
        self.mended: list[Mended] = []

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What could not be mended, and why."""
        return tuple(self._failed.values())

    def mend(self, revision: Revision, path: bytes, ref: ObjectRef, damage: LazyfsError) -> bool:
        """Make an object of the file at ``path`` again.

        Returns:
            Whether the damage is taken care of, either mended or among `problems`.
        """
        if not isinstance(damage, _DAMAGE):
            return False
        name = _name(ref)
        try:
            self._make(revision, path, ref)
        except (_Hopeless, OSError, LazyfsError) as exc:
            reason = f"cannot read: {exc.strerror}" if isinstance(exc, OSError) else str(exc)
            message = f"{damage}; cannot be repaired: {reason}"
            self._failed.setdefault(name, Problem(path, name, message))
        else:
            self._failed.pop(name, None)
            self.mended.append(Mended(path, name, str(damage)))
        return True

    def mend_elsewhere(self, revision: Revision) -> None:
        """Try to make what is among `problems` of other files that have the same content."""
        stack = [revision.lookup(b"")] if self._failed else []
        while stack and self._failed:
            node = stack.pop()
            # What cannot be read of the tree itself is among the problems of the check.
            with contextlib.suppress(LazyfsError):
                stack += revision.listdir(node.path) if node.is_dir else ()
                for extent in revision.extents(node) if node.is_file else ():
                    problem = self._failed.get(_name(extent.ref))
                    if problem is not None and problem.path != node.path:
                        self.mend(revision, node.path, extent.ref, ObjectMissing(problem.message))

    def _make(self, revision: Revision, path: bytes, ref: ObjectRef) -> None:
        offset, size = _stretch(revision, path, ref)
        upload = self._target.upload()
        try:
            hasher = ref.digest.algorithm.hasher()
            for stored in _stored(self._read(path, offset, size), ref.codec):
                hasher.update(stored)
                upload.write(stored)
            if hasher.result() != ref.digest:
                raise _Hopeless(
                    "the file's content is another one now, or was compressed in another way"
                )
            upload.commit(ref.digest.object_path(ref.kind), replace=True)
        finally:
            upload.discard()

    def _read(self, path: bytes, offset: int, size: int) -> Iterator[bytes]:
        if not size:
            return  # what is empty needs no source
        if not is_below(path, self._at):
            raise _Hopeless("the source does not reach there")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(self._source + path[len(self._at) :], flags)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise _Hopeless("there is no regular file in the source")
            end = offset + size
            while offset < end:
                piece = os.pread(fd, min(_PIECE, end - offset), offset)
                if not piece:
                    raise _Hopeless("the file is shorter now")
                offset += len(piece)
                yield piece
        finally:
            os.close(fd)


def _name(ref: ObjectRef) -> str:
    return f"{ref.digest}{ref.kind.value}"


class _Hopeless(Exception):
    """Why an object cannot be made again."""


def _stretch(revision: Revision, path: bytes, ref: ObjectRef) -> tuple[int, int]:
    """Offset and size of what the object holds of its file."""
    if ref.kind is ObjectKind.FILE:
        return 0, ref.size or 0
    if ref.kind is not ObjectKind.CHUNK:
        raise _Hopeless("catalogs are not made of files; roll back or publish again")
    try:
        extents = revision.extents(revision.lookup(path))
    except PathNotFound as exc:
        raise _Hopeless(str(exc)) from exc
    for extent in extents:
        if extent.ref.digest == ref.digest:
            return extent.offset, extent.size
    raise _Hopeless("the file has no such chunk")


def _stored(content: Iterator[bytes], codec: Codec) -> Iterator[bytes]:
    if codec is Codec.NONE:
        yield from content
        return
    compressor = zlib.compressobj(ZLIB_LEVEL)
    for piece in content:
        yield compressor.compress(piece)
    yield compressor.flush()
