"""`TarSource`: an archive, read as it streams by; nothing is unpacked to disk."""

from __future__ import annotations

import base64
import binascii
import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

from lazyfs.errors import PublishError
from lazyfs.publish.decompression import decompressed
from lazyfs.publish.source import PUBLISHED_XATTRS, SourceEntry, SourceItem
from lazyfs.publish.tar_entry import TarEntry
from lazyfs.publish.tar_reader import TarMember, TarReader, naming
from lazyfs.repository.pathhash import MAX_NAME_BYTES, MAX_PATH_BYTES
from lazyfs.repository.xattr_blob import MAX_BYTES, MAX_ENTRIES

_DIRECTORY_SIZE = 4096
_PLAIN_XATTR = b"SCHILY.xattr."
_ENCODED_XATTR = b"LIBARCHIVE.xattr."


class TarSource:
    """A tar archive: v7, ustar, pax or GNU; plain, or with gzip, zstd, xz or bzip2.

    Its items are those of the archive, in its order: a path that comes twice is given twice, and
    the later is meant. Content is streamed: each file's must be read before the next item is
    asked for.

    Args:
        archive: A file, opened for each walk; or a stream, which can be walked once, is read to
            its end, and stays open.
        name: For messages.
        xattrs: Take extended attributes: of users, and file capabilities.
    """

    def __init__(
        self, archive: Path | BinaryIO, *, name: str | None = None, xattrs: bool = True
    ) -> None:
        self._archive: Path | BinaryIO | None = archive
        self._name = name or (str(archive) if isinstance(archive, Path) else "archive")
        self._xattrs = xattrs

    @property
    def name(self) -> str:
        """The archive."""
        return self._name

    def items(self) -> Iterator[SourceItem]:
        """All entries.

        Raises:
            PublishError: the archive cannot be read, is damaged or cut, or has an entry that
                cannot be published.
        """
        archive = self._archive
        if archive is None:
            raise PublishError("the archive was read already", object=self._name)
        with contextlib.ExitStack() as stack:
            with naming(self._name):
                if isinstance(archive, Path):
                    archive = stack.enter_context(archive.open("rb", buffering=0))
                else:
                    self._archive = None
                stream = decompressed(archive)
            # By hash, as there may be very many; a wrong one is still refused by the repository.
            files: set[int] = set()
            for member in TarReader(stream, self._name).members():
                item = self._item(member, files)
                if item is not None:
                    yield item

    def _item(self, member: TarMember, files: set[int]) -> SourceItem | None:
        """What to publish for a member; None for one that is a further name of itself."""
        entry = member.entry
        path = self._path(entry.name, entry.name)
        is_dir = stat.S_ISDIR(entry.mode)
        if not path and not is_dir:
            raise self._refused("the top of an archive must be a directory", entry.name)
        if entry.is_hard_link:
            target = self._path(entry.target, entry.name)
            if hash(target) not in files:
                shown = target.decode(errors="backslashreplace")
                raise self._refused(
                    f"a hard link to {shown}, which is no earlier file of the archive", entry.name
                )
            if target == path:
                return None  # GNU tar writes so what it was told to archive twice.
            files.add(hash(path))
            return SourceItem(path, self._entry(path, member), link=target)
        (files.discard if is_dir else files.add)(hash(path))
        opens = None if member.content is None else _Opening(member.content, self._name, path)
        return SourceItem(path, self._entry(path, member), opens, streamed=opens is not None)

    def _entry(self, path: bytes, member: TarMember) -> SourceEntry:
        entry, size, target = member.entry, member.size, b""
        if stat.S_ISDIR(entry.mode):
            size = _DIRECTORY_SIZE
        elif stat.S_ISLNK(entry.mode):
            target, size = entry.target, len(entry.target)
            if not 0 < size <= MAX_PATH_BYTES or b"\0" in target:
                raise self._refused("a symbolic link without a usable target", entry.name)
        return SourceEntry(
            path.rpartition(b"/")[2],
            entry.mode,
            size,
            entry.mtime_ns,
            entry.uid,
            entry.gid,
            entry.rdev,
            target,
            self._published_xattrs(entry) if self._xattrs else {},
        )

    def _path(self, name: bytes, entry: bytes) -> bytes:
        """Where a name of the archive belongs.

        Args:
            name: Of an entry, or of what a hard link points to.
            entry: For messages.
        """
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        path = b"".join(b"/" + part for part in parts)
        if not name:
            raise self._refused("an entry without a name", entry)
        if b".." in parts:
            raise self._refused("the path climbs out of the archive", entry)
        if b"\0" in path:
            raise self._refused("the path has a NUL", entry)
        if len(path) > MAX_PATH_BYTES or any(len(part) > MAX_NAME_BYTES for part in parts):
            raise self._refused("the path is too long", entry)
        return path

    def _published_xattrs(self, entry: TarEntry) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        records = [key for key in entry.values if key.startswith((_PLAIN_XATTR, _ENCODED_XATTR))]
        # Writers that know both forms write both; in byte order the plain one comes last.
        for key in sorted(records):
            value = entry.values[key]
            try:
                name, content = _decode_xattr(key, value)
            except binascii.Error:
                raise self._refused("a damaged extended attribute", entry.name) from None
            wanted = name.startswith(PUBLISHED_XATTRS) and len(name) <= MAX_BYTES
            if wanted and len(content) <= MAX_BYTES and b"\0" not in name:
                found[name] = content
        return dict(list(found.items())[:MAX_ENTRIES])

    def _refused(self, message: str, path: bytes) -> PublishError:
        return PublishError(message, object=self._name, path=path[: 2 * MAX_PATH_BYTES] or b"/")


def _decode_xattr(key: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Name and value of an extended attribute, from a record of an extended header."""
    if key.startswith(_ENCODED_XATTR):
        padded = value + b"=" * (-len(value) % 4)
        name = unquote_to_bytes(key.removeprefix(_ENCODED_XATTR))
        return name, base64.b64decode(padded, validate=True)
    # A key cannot have an equals sign; GNU tar escapes it and what it escapes with.
    name = key.removeprefix(_PLAIN_XATTR).replace(b"%3D", b"=").replace(b"%25", b"%")
    return name, value


class _Opening:
    """Gives the content of one file, once."""

    __slots__ = ("_archive", "_content", "_path")

    def __init__(self, content: BinaryIO, archive: str, path: bytes) -> None:
        self._content: BinaryIO | None = content
        self._archive = archive
        self._path = path

    def __call__(self) -> BinaryIO:
        content, self._content = self._content, None
        if content is None:
            raise PublishError(
                "the content of a stream can be read once", object=self._archive, path=self._path
            )
        return content
