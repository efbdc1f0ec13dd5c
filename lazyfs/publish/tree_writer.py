"""`TreeWriter`: a directory becomes catalogs, nested ones before the catalogs that name them."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Algorithm, Digest, ObjectKind
from lazyfs.publish.catalog_writer import CatalogWriter
from lazyfs.publish.content import ContentStore, StoredFile
from lazyfs.publish.source import SourceEntry, check_root, has_marker, read_directory, read_entry

CodecChoice = Callable[[bytes], Codec]
"""Chooses the codec of a file by its path in the repository."""

Progress = Callable[[int, int], None]
"""Called with the files and bytes published so far."""

_PENDING = 256
"""Files on their way at most; bounds what waits in memory."""


@dataclass(frozen=True, slots=True)
class WrittenCatalog:
    """A catalog that is stored."""

    digest: Digest
    size: int
    """Bytes, uncompressed."""
    counters: Counter[str]
    """Its own entries and all below it."""


@dataclass(frozen=True, slots=True)
class TreeOptions:
    """How a tree is published."""

    codec: CodecChoice = lambda path: Codec.ZLIB
    xattrs: bool = True
    nanoseconds: bool = True
    """Keep the fraction of modification times; older clients show whole seconds anyway."""
    progress: Progress = lambda files, size: None


class TreeWriter:
    """Publishes one tree; single use.

    Args:
        store: Where content and catalogs go.
        workspace: A folder for catalogs that are being written.
        options: Codecs, xattrs, progress.
        pool: Reads, compresses and uploads files.
    """

    def __init__(
        self, store: ContentStore, workspace: Path, options: TreeOptions, pool: ThreadPoolExecutor
    ) -> None:
        self._store = store
        self._workspace = workspace
        self._options = options
        self._pool = pool
        self._pending: deque[tuple[Callable[[StoredFile], None], Future[StoredFile]]] = deque()
        self._catalogs = 0
        self._files = 0
        self._bytes = 0

    def write(self, source: bytes, properties: Mapping[str, str]) -> WrittenCatalog:
        """Publish the directory ``source`` as the root catalog.

        Args:
            source: A directory.
            properties: Of the root catalog.

        Raises:
            PublishError: something cannot be read or written.
        """
        root = read_entry(source, xattrs=self._options.xattrs)
        return self._catalog(source, b"", root, properties)

    def _catalog(
        self, source: bytes, path: bytes, entry: SourceEntry, properties: Mapping[str, str]
    ) -> WrittenCatalog:
        self._catalogs += 1
        file = self._workspace / f"{self._catalogs}.catalog"
        algorithm, nanoseconds = self._store.algorithm, self._options.nanoseconds
        with CatalogWriter(file, path, algorithm, nanoseconds=nanoseconds) as writer:
            entries = read_directory(source, xattrs=self._options.xattrs)
            if not path:
                check_root(entries)
            writer.add_directory(entry, path, _links(entries))
            self._directory(writer, source, path, entries, properties)
            self._drain(0)
            counters = writer.finish(properties)
            digest, size = self._store.put_path(file, ObjectKind.CATALOG)
        file.unlink()
        return WrittenCatalog(digest, size, counters)

    def _directory(
        self,
        writer: CatalogWriter,
        source: bytes,
        path: bytes,
        entries: list[SourceEntry],
        properties: Mapping[str, str],
    ) -> None:
        """Add all entries below ``path``; directories are walked without recursion."""
        stack = [(source, path, entries)]
        while stack:
            folder, where, children = stack.pop()
            groups = _hardlink_groups(children, writer)
            for child in children:
                below, at = folder + b"/" + child.name, where + b"/" + child.name
                if child.is_dir:
                    inner = read_directory(below, xattrs=self._options.xattrs)
                    nested = has_marker(inner, at)
                    writer.add_directory(child, at, _links(inner), mountpoint=nested)
                    if nested:
                        self._nested(writer, below, at, child, properties)
                    else:
                        stack.append((below, at, inner))
                elif child.is_file:
                    group, links = groups.get(child.identity, (0, 1))
                    self._file(writer, below, at, child, group, links)
                else:
                    writer.add_other(child, at)

    def _nested(
        self,
        writer: CatalogWriter,
        source: bytes,
        path: bytes,
        entry: SourceEntry,
        properties: Mapping[str, str],
    ) -> None:
        self._drain(0)
        null = Digest(Algorithm.SHA1, bytes(Algorithm.SHA1.size))
        own = {"revision": properties["revision"], "last_modified": properties["last_modified"]}
        written = self._catalog(source, path, entry, {**own, "previous_revision": str(null)})
        writer.add_nested(path, written.digest, written.size, written.counters)

    def _file(
        self,
        writer: CatalogWriter,
        source: bytes,
        path: bytes,
        entry: SourceEntry,
        group: int,
        links: int,
    ) -> None:
        codec = self._options.codec(path)

        def add(stored: StoredFile) -> None:
            writer.add_file(entry, path, stored, codec, group=group, links=links)
            self._files += 1
            self._bytes += stored.size
            self._options.progress(self._files, self._bytes)

        self._pending.append((add, self._pool.submit(self._store.put_file, source, codec)))
        self._drain(_PENDING)

    def _drain(self, limit: int) -> None:
        """Wait until at most ``limit`` files are on their way."""
        while len(self._pending) > limit:
            add, future = self._pending.popleft()
            add(future.result())


def _links(entries: list[SourceEntry]) -> int:
    return 2 + sum(entry.is_dir for entry in entries)


def _hardlink_groups(
    entries: list[SourceEntry], writer: CatalogWriter
) -> dict[tuple[int, int], tuple[int, int]]:
    """Group number and link count by identity, for files with several names in one directory."""
    names = Counter(entry.identity for entry in entries if entry.is_file)
    return {identity: (writer.new_group(), count) for identity, count in names.items() if count > 1}


def workers() -> int:
    """Threads for reading and compressing: zlib and hashlib release the interpreter lock."""
    return (os.cpu_count() or 1) + 1
