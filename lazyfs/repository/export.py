"""Copying out of a repository: trees as they were published, never outside the destination."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lazyfs.errors import (
    FormatError,
    IsADirectory,
    LazyfsError,
    ObjectMissing,
    PathError,
    VerificationError,
    WriteError,
)
from lazyfs.repository.node import Node
from lazyfs.repository.revision import Revision

Progress = Callable[[int, int], None]
"""Called with the bytes of content copied so far, and how many there will be; 0: not known."""

_PIECE = 1 << 20
_ZEROS = bytes(_PIECE)
_SET_ID = stat.S_ISUID | stat.S_ISGID

_DAMAGE = (VerificationError, FormatError, ObjectMissing)
"""What is wrong with one object and says nothing of the next; without a server all would fail."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What a copy did."""

    entries: int
    """Copied, or found where an earlier run left them."""
    damaged: tuple[tuple[bytes, LazyfsError], ...]
    """Files whose content cannot be had, with the reason; nothing was left at their place."""
    skipped: tuple[bytes, ...]
    """Devices that this user may not make."""


def export_tree(
    revision: Revision,
    path: bytes,
    destination: Path,
    *,
    recursive: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Copy ``path`` to ``destination``.

    A destination that is a directory gets the copy inside it, unless ``resume`` is set. Modes,
    times, links, hard links and extended attributes are kept; owners and device nodes where
    permitted; runs of zeros become holes. Directories that exist are filled and stay as they are;
    nothing else that exists is overwritten.

    Args:
        revision: Where to copy from.
        path: What to copy.
        destination: Where to.
        recursive: Copy directories.
        resume: ``destination`` is a copy that was not finished: keep what looks as published,
            replace other files.
        progress: Called as content is copied.

    Raises:
        IsADirectory: ``path`` is a directory and ``recursive`` is not set.
        PathError: something exists at a place that would be written to.
        WriteError: the destination cannot be written.
        LazyfsError: something cannot be read, and the next would not be better.
    """
    top = revision.resolve(path, follow=not recursive)
    if top.is_dir and not recursive:
        raise IsADirectory("is a directory", path=top.path, hint="give --recursive")
    base = destination
    if not resume and os.path.isdir(destination) and top.name:  # noqa: PTH112
        base = destination / os.fsdecode(top.name)
    exporter = _Exporter(revision, top, os.fsencode(base), resume, progress)
    for node in revision.walk(top.path):
        exporter.copy(node)
    exporter.finish()
    return exporter.report()


class _Exporter:
    def __init__(
        self,
        revision: Revision,
        top: Node,
        base: bytes,
        resume: bool,
        progress: Progress | None,
    ) -> None:
        self._revision = revision
        self._top = top.path
        self._base = base
        self._resume = resume
        self._progress = progress
        self._total = top.size if top.is_file else 0
        if not top.path:
            self._total = revision.counters()["file_size"]
        self._links: dict[tuple[bytes, int], bytes] = {}
        self._directories: list[tuple[bytes, Node]] = []
        self._damaged: list[tuple[bytes, LazyfsError]] = []
        self._skipped: list[bytes] = []
        self._entries = self._bytes = 0

    def report(self) -> ExportReport:
        return ExportReport(self._entries, tuple(self._damaged), tuple(self._skipped))

    def copy(self, node: Node) -> None:
        # Names were checked when the catalog was read: the path cannot leave the base.
        target = self._base + node.path[len(self._top) :]
        try:
            if node.is_dir:
                self._make_directory(target, node)
            elif self._resume and self._is_there(target, node):
                pass
            elif not self._linked(target, node):
                self._make(target, node)
            self._entries += 1
        except FileExistsError as exc:
            hint = (
                f"give another place, or --resume to go on with a copy at {os.fsdecode(self._base)}"
            )
            raise PathError("exists already", path=target, hint=hint) from exc
        except OSError as exc:
            raise _write_error(target, exc) from exc
        except _DAMAGE as exc:
            self._damaged.append((node.path, exc))

    def _make_directory(self, target: bytes, node: Node) -> None:
        exists = os.path.isdir(target) and not os.path.islink(target)  # noqa: PTH112, PTH114
        if not exists:
            os.mkdir(target, 0o700)  # noqa: PTH102
        elif self._resume:
            os.chmod(target, 0o700)  # noqa: PTH101
        # Modes and times come last: a directory may be read-only, and filling it changes it.
        if self._resume or not exists:
            self._directories.append((target, node))

    def _is_there(self, target: bytes, node: Node) -> bool:
        """Whether an earlier run made the file; what it left unfinished is removed."""
        try:
            found = os.lstat(target)
        except FileNotFoundError:
            return False
        # The time is the last thing that is set: who has it is complete.
        complete = (
            stat.S_IFMT(found.st_mode) == stat.S_IFMT(node.mode)
            and found.st_mtime_ns == node.mtime_ns
            and (not node.is_file or found.st_size == node.size)
        )
        if complete and node.hardlink_group:
            first = self._links.setdefault((node.catalog, node.hardlink_group), target)
            complete = os.path.samestat(found, os.lstat(first))
        if complete:
            self._advance(node.size if node.is_file else 0)
        else:
            os.unlink(target)  # noqa: PTH108
        return complete

    def _linked(self, target: bytes, node: Node) -> bool:
        """Whether the node is a further name of a file that was copied."""
        if not node.hardlink_group:
            return False
        first = self._links.get((node.catalog, node.hardlink_group), target)
        if first == target:
            return False
        os.link(first, target, follow_symlinks=False)
        return True

    def _make(self, target: bytes, node: Node) -> None:
        if node.is_symlink:
            os.symlink(self._revision.readlink(node), target)  # noqa: PTH211
        elif node.is_file:
            self._make_file(target, node)
        elif stat.S_ISSOCK(node.mode) or stat.S_ISFIFO(node.mode):
            os.mknod(target, node.mode)
        else:
            try:
                os.mknod(target, node.mode, node.rdev)
            except PermissionError:
                self._skipped.append(node.path)
                return
        self._set_metadata(target, node)
        if node.hardlink_group:
            self._links[node.catalog, node.hardlink_group] = target

    def _make_file(self, target: bytes, node: Node) -> None:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with self._revision.open_file(node) as source:
                position = 0
                while piece := source.read(_PIECE):
                    if piece != _ZEROS:
                        _write(fd, piece, position)
                    position += len(piece)
                    self._advance(len(piece))
            os.ftruncate(fd, position)
        except BaseException:
            os.unlink(target)  # noqa: PTH108
            raise
        finally:
            os.close(fd)

    def _advance(self, size: int) -> None:
        self._bytes += size
        if self._progress is not None:
            self._progress(self._bytes, max(self._total, self._bytes) if self._total else 0)

    def _set_metadata(self, target: bytes, node: Node) -> None:
        mode = stat.S_IMODE(node.mode)
        try:
            os.chown(target, node.uid, node.gid, follow_symlinks=False)
        except PermissionError:
            mode &= ~_SET_ID  # they were meant for another owner
        if not node.is_symlink:
            os.chmod(target, mode)  # noqa: PTH101
            for name, value in self._revision.xattrs(node).items():
                with contextlib.suppress(OSError):
                    os.setxattr(target, name, value)
        os.utime(target, ns=(node.mtime_ns, node.mtime_ns), follow_symlinks=False)

    def finish(self) -> None:
        for target, node in reversed(self._directories):
            try:
                self._set_metadata(target, node)
            except OSError as exc:
                raise _write_error(target, exc) from exc


def _write(fd: int, piece: bytes, position: int) -> None:
    view = memoryview(piece)
    while view:
        written = os.pwrite(fd, view, position)
        view, position = view[written:], position + written


def _write_error(target: bytes, exc: OSError) -> WriteError:
    return WriteError(f"cannot write: {exc.strerror}", path=target)
