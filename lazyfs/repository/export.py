"""Copying out of a repository: trees as they were published, never outside the destination."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from lazyfs.errors import IsADirectory, PathError
from lazyfs.repository.node import Node
from lazyfs.repository.revision import Revision

Progress = Callable[[int, int], None]
"""Called with the entries copied so far, and 0: how many there will be is not known."""

_PIECE = 1 << 20


def export_tree(
    revision: Revision,
    path: bytes,
    destination: Path,
    *,
    recursive: bool = False,
    progress: Progress | None = None,
) -> int:
    """Copy ``path`` to ``destination``; the number of entries copied.

    A destination that is a directory gets the copy inside it. Modes, times, links, hard links and
    extended attributes are kept; owners and device nodes where permitted. Nothing that exists is
    overwritten but directories, which are filled.

    Raises:
        IsADirectory: ``path`` is a directory and ``recursive`` is not set.
        PathError: something exists at a place that would be written to.
        LazyfsError: something cannot be read.
    """
    top = revision.resolve(path, follow=not recursive)
    if top.is_dir and not recursive:
        raise IsADirectory("is a directory", path=top.path, hint="give --recursive")
    base = destination / os.fsdecode(top.name) if destination.is_dir() and top.name else destination
    exporter = _Exporter(revision, top.path, base)
    count = 0
    for node in revision.walk(top.path):
        exporter.copy(node)
        count += 1
        if progress is not None:
            progress(count, 0)
    exporter.finish()
    return count


class _Exporter:
    def __init__(self, revision: Revision, top: bytes, base: Path) -> None:
        self._revision = revision
        self._top = top
        self._base = os.fsencode(base)
        self._links: dict[tuple[bytes, int], bytes] = {}
        self._directories: list[tuple[bytes, Node]] = []

    def copy(self, node: Node) -> None:
        # Names were checked when the catalog was read: the path cannot leave the base.
        target = self._base + node.path[len(self._top) :]
        try:
            if node.is_dir:
                self._make_directory(target, node)
            elif not self._linked(target, node):
                self._make(target, node)
                self._set_metadata(target, node)
        except OSError as exc:
            raise PathError(f"cannot write: {exc.strerror}", path=target) from exc

    def _make_directory(self, target: bytes, node: Node) -> None:
        if not os.path.isdir(target) or os.path.islink(target):  # noqa: PTH112, PTH114
            os.mkdir(target, 0o700)  # noqa: PTH102
        # Modes and times come last: a directory may be read-only, and filling it changes it.
        self._directories.append((target, node))

    def _linked(self, target: bytes, node: Node) -> bool:
        """Whether the node is a further name of a file that was copied."""
        if not node.hardlink_group:
            return False
        group = (node.catalog, node.hardlink_group)
        first = self._links.setdefault(group, target)
        if first == target:
            return False
        os.link(first, target, follow_symlinks=False)
        return True

    def _make(self, target: bytes, node: Node) -> None:
        if node.is_symlink:
            os.symlink(self._revision.readlink(node), target)  # noqa: PTH211
        elif node.is_file:
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as output, self._revision.open_file(node) as source:
                while piece := source.read(_PIECE):
                    output.write(piece)
        elif stat.S_ISSOCK(node.mode) or stat.S_ISFIFO(node.mode):
            os.mknod(target, node.mode)
        else:
            # Devices need a privilege; without it the copy goes on without them.
            with contextlib.suppress(PermissionError):
                os.mknod(target, node.mode, node.rdev)

    def _set_metadata(self, target: bytes, node: Node) -> None:
        if not os.path.lexists(target):
            return
        with contextlib.suppress(PermissionError):
            os.chown(target, node.uid, node.gid, follow_symlinks=False)
        if not node.is_symlink:
            os.chmod(target, stat.S_IMODE(node.mode))  # noqa: PTH101
            for name, value in self._revision.xattrs(node).items():
                with contextlib.suppress(OSError):
                    os.setxattr(target, name, value)
        os.utime(target, ns=(node.mtime_ns, node.mtime_ns), follow_symlinks=False)

    def finish(self) -> None:
        for target, node in reversed(self._directories):
            try:
                self._set_metadata(target, node)
            except OSError as exc:
                raise PathError(f"cannot write: {exc.strerror}", path=target) from exc
