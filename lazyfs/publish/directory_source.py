"""`DirectorySource`: a directory on this machine, read entry by entry."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from lazyfs.errors import PublishError
from lazyfs.publish.graft import MAX_GRAFT_BYTES, grafted_name, parse_graft
from lazyfs.publish.owner_map import OwnerMap
from lazyfs.publish.source import PUBLISHED_XATTRS, SourceEntry, SourceItem
from lazyfs.repository.xattr_blob import MAX_BYTES, MAX_ENTRIES

Listing = tuple[bytes, list[SourceItem]]
"""A directory's path below the top, and all its entries in byte order of their names."""


class DirectorySource:
    """A directory and all below it; links are not followed.

    Args:
        folder: The directory, which becomes the top.
        xattrs: Read extended attributes: of users, and file capabilities. The others belong to
            the publishing machine.
        owners: By whom the entries will be owned; None: as they are.
    """

    def __init__(
        self, folder: Path, *, xattrs: bool = True, owners: OwnerMap | None = None
    ) -> None:
        if not folder.is_dir():
            raise PublishError("not a directory", path=str(folder))
        self._folder = os.fsencode(folder)
        self._xattrs = xattrs
        self._owners = owners or OwnerMap()

    @property
    def name(self) -> str:
        """The directory."""
        return os.fsdecode(self._folder)

    def top(self) -> SourceItem:
        """The directory itself."""
        return SourceItem(b"", self._read(self._folder, b""))

    def listings(self) -> Iterator[Listing]:
        """Every directory, each after the one that holds it.

        Raises:
            PublishError: something cannot be read.
        """
        pending = [b""]
        while pending:
            path = pending.pop()
            items = self._list(path)
            yield path, items
            pending += [item.path for item in reversed(items) if item.entry.is_dir]

    def items(self) -> Iterator[SourceItem]:
        """All entries, the top first."""
        yield self.top()
        for _, items in self.listings():
            yield from items

    def _list(self, path: bytes) -> list[SourceItem]:
        folder = self._folder + path
        try:
            names = sorted(os.listdir(folder))  # noqa: PTH208 - the path is bytes
        except OSError as exc:
            raise PublishError(f"cannot read: {exc.strerror}", path=folder) from exc
        grafts = {found: name for name in names if (found := grafted_name(name)) is not None}
        firsts: dict[tuple[int, int], bytes] = {}
        items = []
        for name in names:
            at, local = path + b"/" + name, folder + b"/" + name
            if grafted_name(name) is not None:
                if grafted_name(name) not in names:
                    raise PublishError("the marker of a graft without the file", path=local)
                continue
            entry = self._read(local, name)
            if name in grafts:
                items.append(_grafted(at, entry, folder + b"/" + grafts[name]))
            elif not entry.is_file:
                items.append(SourceItem(at, entry))
            else:
                first = firsts.setdefault(entry.identity, at)
                link = first if first != at else None
                items.append(SourceItem(at, entry, _Opener(local), link=link))
        return items

    def _read(self, path: bytes, name: bytes) -> SourceEntry:
        try:
            status = os.lstat(path)
            is_link = stat.S_ISLNK(status.st_mode)
            target = os.readlink(path) if is_link else b""  # noqa: PTH115 - the path is bytes
        except OSError as exc:
            raise PublishError(f"cannot read: {exc.strerror}", path=path) from exc
        entry = SourceEntry(
            name,
            status.st_mode,
            status.st_size,
            status.st_mtime_ns,
            status.st_uid,
            status.st_gid,
            status.st_rdev,
            target,
            _read_xattrs(path) if self._xattrs else {},
            (status.st_dev, status.st_ino),
        )
        return self._owners.map_entry(entry)


def _grafted(at: bytes, entry: SourceEntry, marker: bytes) -> SourceItem:
    """A file whose content its marker names."""
    if not entry.is_file:
        raise PublishError("only a regular file can be grafted", path=marker)
    with _Opener(marker)() as file:
        graft = parse_graft(file.read(MAX_GRAFT_BYTES + 1), marker)
    return SourceItem(at, replace(entry, size=graft.size), graft=graft)


class _Opener:
    """Opens one file; smaller than a closure, of which there may be very many."""

    __slots__ = ("_path",)

    def __init__(self, path: bytes) -> None:
        self._path = path

    def __call__(self) -> BinaryIO:
        try:
            return open(self._path, "rb", buffering=0)  # noqa: PTH123 - the path is bytes
        except OSError as exc:
            raise PublishError(f"cannot read: {exc.strerror}", path=self._path) from exc


def _read_xattrs(path: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    with contextlib.suppress(OSError):
        for text in os.listxattr(path, follow_symlinks=False):
            name = os.fsencode(text)
            wanted = name.startswith(PUBLISHED_XATTRS) and len(name) <= MAX_BYTES
            if wanted and len(found) < MAX_ENTRIES:
                value = os.getxattr(path, name, follow_symlinks=False)
                if len(value) <= MAX_BYTES:
                    found[name] = value
    return found
