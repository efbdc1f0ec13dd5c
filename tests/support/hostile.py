"""A repository whose publisher means no good: all signatures and hashes fit, nothing else does."""

from __future__ import annotations

import datetime
import stat
from dataclasses import dataclass
from pathlib import Path

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Algorithm, Digest, ObjectKind
from lazyfs.errors import (
    CodecError,
    FormatError,
    HashMismatch,
    LazyfsError,
    ObjectMissing,
    QuotaExceeded,
)
from support.catalogs import CatalogBuilder, Row
from support.documents import FQRN, make_keys, manifest_for, signed_manifest, signed_whitelist
from support.memory_store import MemoryStore

GOOD = b"good content" * 1000
BOMB = bytes(100 << 20)
"""A thousandth of this is stored."""

BAD_FILES: dict[str, type[LazyfsError]] = {
    "gap": FormatError,
    "overlap": FormatError,
    "reversed": FormatError,
    "too-few-chunks": FormatError,
    "no-chunks": FormatError,
    "negative-chunk": FormatError,
    "no-object": FormatError,
    "says-more": CodecError,
    "says-less": CodecError,
    "says-terabytes": QuotaExceeded,
    "bomb": CodecError,
    "bomb-in-chunks": CodecError,
    "garbage": CodecError,
    "cut": CodecError,
    "over-long": CodecError,
    "wrong-hash": HashMismatch,
    "missing": ObjectMissing,
}
"""Files that cannot be read, and what the library says."""

BAD_FOLDERS: dict[str, type[LazyfsError]] = {
    "slash": FormatError,
    "nul": FormatError,
    "dots": FormatError,
    "unknown-codec": FormatError,
    "absurd-size": FormatError,
    "nested-missing": ObjectMissing,
    "nested-without-hash": FormatError,
    "nested-garbage": FormatError,
    "nested-cut": FormatError,
    "nested-bomb": CodecError,
    "nested-says-more": CodecError,
    "nested-computes": FormatError,
}
"""Folders that cannot be listed."""


@dataclass(frozen=True, slots=True)
class HostileRepository:
    """Where it lies."""

    root: Path
    pubkey: Path


def make_hostile_repository(
    tmp_path: Path, catalog: CatalogBuilder | None = None
) -> HostileRepository:
    """The repository in a folder; ``catalog`` takes the place of all that is bad here."""
    keys = make_keys()
    root, pubkey = tmp_path / FQRN, tmp_path / "master.pub"
    root.mkdir()
    pubkey.write_bytes(keys.public_pem)
    store = MemoryStore()
    builder = catalog or _bad_catalog(store)
    certificate = store.put(keys.certificate_pem, ObjectKind.CERTIFICATE)
    manifest = manifest_for(keys, root=builder.put(store), certificate=certificate)
    (root / ".cvmfspublished").write_bytes(signed_manifest(keys, manifest))
    now = datetime.datetime.now(datetime.UTC)
    (root / ".cvmfswhitelist").write_bytes(signed_whitelist(keys, now=now))
    for (digest, kind), stored in store.objects.items():
        path = root / digest.object_path(kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stored)
    return HostileRepository(root, pubkey)
    return HostileRepository(root, pubkey)


def _bad_catalog(store: MemoryStore) -> CatalogBuilder:
    builder = CatalogBuilder().file(b"/good", store.put(GOOD), len(GOOD))
    _add_chunked(builder, store)
    _add_whole(builder, store)
    _add_folders(builder)
    _add_nested(builder, store)
    return builder


def _add_chunked(builder: CatalogBuilder, store: MemoryStore) -> None:
    piece = store.put(b"x" * 100, ObjectKind.CHUNK).raw
    bomb = store.put(BOMB, ObjectKind.CHUNK).raw
    lists: dict[bytes, list[tuple[object, object, object]]] = {
        b"/gap": [(0, 100, piece), (101, 99, piece)],
        b"/overlap": [(0, 100, piece), (99, 101, piece)],
        b"/reversed": [(100, 100, piece), (1, 99, piece)],
        b"/too-few-chunks": [(0, 100, piece)],
        b"/no-chunks": [],
        b"/negative-chunk": [(0, 300, piece), (300, -100, piece)],
        b"/bomb-in-chunks": [(0, 100, bomb), (100, 100, bomb)],
    }
    for path, chunks in lists.items():
        builder.chunked(path, 200, chunks)


def _add_whole(builder: CatalogBuilder, store: MemoryStore) -> None:
    stored = Codec.ZLIB.compress(GOOD)
    builder.file(b"/no-object", None, 5)
    builder.file(b"/says-more", store.put(b"abcd"), 5)
    builder.file(b"/says-less", store.put(b"abcde"), 4)
    builder.file(b"/says-terabytes", store.put(b"little"), 1 << 50)
    builder.file(b"/bomb", store.put(BOMB), 1000)
    builder.file(b"/garbage", _put_stored(store, b"no zlib stream"), 5)
    builder.file(b"/cut", _put_stored(store, stored[:-3]), len(GOOD))
    builder.file(b"/over-long", _put_stored(store, stored + b"more"), len(GOOD))
    builder.file(b"/missing", Algorithm.SHA1.digest(b"never stored"), 5)
    wrong = Algorithm.SHA1.digest(b"another object")
    store.objects[wrong, ObjectKind.FILE] = stored
    builder.file(b"/wrong-hash", wrong, len(GOOD))


def _put_stored(store: MemoryStore, stored: bytes, kind: ObjectKind = ObjectKind.FILE) -> Digest:
    """Let the digest name just these bytes, whatever a codec makes of them."""
    digest = Algorithm.SHA1.digest(stored)
    store.objects[digest, kind] = stored
    return digest


def _add_folders(builder: CatalogBuilder) -> None:
    file = stat.S_IFREG | 0o644
    rows = {
        b"/slash": Row(name=b"../../etc/passwd"),
        b"/nul": Row(name=b"a\0b"),
        b"/dots": Row(name=b".."),
        b"/unknown-codec": Row(file, flags=4 | 5 << 11),
        b"/absurd-size": Row(file, size=-1),
    }
    for path, row in rows.items():
        builder.folder(path).add(path + b"/x", row)


def _add_nested(builder: CatalogBuilder, store: MemoryStore) -> None:
    def child(name: str) -> CatalogBuilder:
        return CatalogBuilder(f"/nested-{name}".encode())

    def add(name: str, digest: str, size: int = 0) -> None:
        builder.mountpoint(f"/nested-{name}".encode(), digest, size)

    computing = child("computes")
    computing.script = (
        "ALTER TABLE catalog DROP COLUMN uid;"
        " ALTER TABLE catalog ADD COLUMN uid INTEGER AS (length(hex(zeroblob(500000))))"
    )
    honest = child("says-more")
    add("missing", "1" * 40)
    add("without-hash", "")
    add("garbage", str(store.put(b"garbage" * 1000, ObjectKind.CATALOG)))
    add("cut", str(store.put(child("cut").build()[:5000], ObjectKind.CATALOG)))
    add("bomb", str(store.put(BOMB, ObjectKind.CATALOG)), 50_000)
    add("says-more", str(honest.put(store)), len(honest.build()) + 1)
    add("computes", str(computing.put(store)))
