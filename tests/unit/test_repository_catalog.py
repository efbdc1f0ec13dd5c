from __future__ import annotations

import os
import stat
from dataclasses import replace

import pytest
from support.catalogs import FOLDER, SHA1_OF_NOTHING, CatalogBuilder, Row

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Algorithm, Digest, ObjectKind
from lazyfs.cas.handle import FileHandle
from lazyfs.errors import FormatError
from lazyfs.repository import catalog as catalog_module
from lazyfs.repository.catalog import Catalog, sum_counters

DIGEST = Algorithm.SHA1.digest(b"content")


def found(row: Row, path: bytes = b"/x") -> object:
    return CatalogBuilder().add(path, row).catalog().find(path)


# --- entries -------------------------------------------------------------------------------


def test_a_regular_file_is_read_with_all_its_fields() -> None:
    row = Row(
        stat.S_IFREG | 0o4755,
        flags=4 | 1 << 8 | 1 << 11 | 0x10000,
        size=123,
        digest=DIGEST.raw,
        links=3 | 7 << 32,
        mtime=-5,
        mtimens=999_999_999,
        uid=1000,
        gid=2000,
        xattr=b"\1\0",
    )
    catalog = CatalogBuilder().add(b"/caf\xe9", row).catalog()
    node = catalog.find(b"/caf\xe9")
    assert node is not None
    assert node.is_file
    assert (node.path, node.name) == (b"/caf\xe9", b"caf\xe9")
    assert (node.mode, node.size, node.uid, node.gid) == (0o104755, 123, 1000, 2000)
    assert node.mtime_ns == -5 * 10**9 + 999_999_999
    assert (node.nlink, node.hardlink_group) == (3, 7)
    assert node.digest == Digest(Algorithm.RMD160, DIGEST.raw)
    assert node.codec is Codec.NONE
    assert node.direct_io
    assert node.has_xattrs
    assert not any((node.chunked, node.external, node.hidden, node.mountpoint))
    assert catalog.children(b"") == [node]


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (4 | 0x40, {"chunked"}),
        (4 | 0x80, {"external"}),
        (4 | 0x8000, {"hidden"}),
        (4 | 0x40 | 0x80, {"chunked", "external"}),
        (4 | 0x2 | 0x4000, set()),  # only directories are mountpoints
    ],
)
def test_flags_of_files(flags: int, names: set[str]) -> None:
    node = found(Row(flags=flags))
    bits = ("chunked", "external", "hidden", "mountpoint", "direct_io")
    assert {name for name in bits if getattr(node, name)} == names


@pytest.mark.parametrize("flags", [3, 1 | 0x4000])
def test_mountpoints_are_directories_with_a_flag(flags: int) -> None:
    node = found(replace(FOLDER, flags=flags))
    assert getattr(node, "mountpoint") is True  # noqa: B009 - the node may be None
    assert getattr(node, "is_dir") is True  # noqa: B009


def test_a_device_has_its_number_in_the_size_column() -> None:
    number = os.makedev(7, 200)
    node = CatalogBuilder().add(b"/d", Row(stat.S_IFBLK | 0o600, flags=20, size=number)).catalog()
    device = node.find(b"/d")
    assert device is not None
    assert (device.rdev, device.size) == (number, 0)


def test_the_type_comes_from_the_mode_not_from_the_flags() -> None:
    node = CatalogBuilder().add(b"/x", Row(stat.S_IFIFO | 0o600, flags=1)).catalog().find(b"/x")
    assert node is not None
    assert not node.is_dir
    assert not node.is_file


@pytest.mark.parametrize("mtimens", [None, -1, 10**9, b"5", "5"])
def test_nanoseconds_that_cannot_be_are_none(mtimens: object) -> None:
    node = CatalogBuilder().add(b"/x", Row(mtime=1, mtimens=mtimens)).catalog().find(b"/x")
    assert node is not None
    # A text of digits becomes a number in an INTEGER column.
    assert node.mtime_ns in (10**9, 10**9 + 5)
    assert (node.mtime_ns == 10**9 + 5) is (mtimens == "5")


def test_a_path_that_is_not_there_gives_nothing() -> None:
    assert CatalogBuilder().catalog().find(b"/x") is None
    assert CatalogBuilder().catalog().children(b"/x") == []


@pytest.mark.parametrize(
    "row",
    [
        Row(mode=0),
        Row(mode=0o644),
        Row(mode=-1),
        Row(mode=stat.S_IFREG | stat.S_IFIFO),
        Row(mode="none"),
        Row(mode=None),
        Row(size=-1),
        Row(size=(1 << 63) - 1),
        Row(size=b"9"),
        Row(size=None),
        Row(size=1.5),
        Row(flags=4 | 3 << 8),
        Row(flags=4 | 7 << 8),
        Row(flags=4 | 2 << 11),
        Row(flags=None),
        Row(links="many"),
        Row(mtime="today"),
        Row(uid=None),
        Row(digest=b"short"),
        Row(digest=DIGEST.raw + b"x"),
        Row(digest="0123456789012345678901234567890123456789"),
        Row(digest=5),
        Row(stat.S_IFLNK | 0o777, flags=12, symlink=b"a\0b"),
        Row(stat.S_IFLNK | 0o777, flags=12, symlink=b"x" * 5000),
    ],
)
def test_a_row_that_cannot_be_is_refused_with_its_path(row: Row) -> None:
    catalog = CatalogBuilder().add(b"/x", row).catalog()
    with pytest.raises(FormatError) as caught:
        catalog.find(b"/x")
    assert caught.value.path == "/x"
    with pytest.raises(FormatError):
        catalog.children(b"")


@pytest.mark.parametrize(
    "name", [b"", b".", b"..", b"a/b", b"/", b"a\0b", b"x" * 256, b"../../etc"]
)
def test_an_impossible_name_spoils_the_listing(name: bytes) -> None:
    catalog = CatalogBuilder().add(b"/x", Row(name=name)).catalog()
    with pytest.raises(FormatError, match="impossible name"):
        catalog.children(b"")


def test_names_are_bytes_and_may_be_long() -> None:
    names = [b"x" * 255, b"\xff\xfe", b"a\nb", "é".encode(), b"..."]
    builder = CatalogBuilder()
    for name in names:
        builder.file(b"/" + name)
    assert [node.name for node in builder.catalog().children(b"")] == names


def test_a_directory_with_too_many_entries_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "MAX_ENTRIES", 3)
    builder = CatalogBuilder()
    for name in b"abc":
        builder.file(b"/" + bytes([name]))
    assert len(builder.catalog().children(b"")) == 3
    with pytest.raises(FormatError, match="too many entries"):
        builder.file(b"/d").catalog().children(b"")


# --- xattrs, chunks ------------------------------------------------------------------------


def test_xattrs_are_read_from_the_row() -> None:
    catalog = CatalogBuilder().xattrs(b"/x", {b"user.a": b"\0\xff"}).catalog()
    assert catalog.xattrs(b"/x") == {b"user.a": b"\0\xff"}
    assert catalog.xattrs(b"/none") == {}


@pytest.mark.parametrize("blob", [b"\1\5\3", "text", 5, b"\2\0"])
def test_a_bad_xattr_blob_is_no_xattrs(blob: object) -> None:
    catalog = CatalogBuilder().add(b"/x", Row(xattr=blob)).catalog()
    assert catalog.xattrs(b"/x") == {}


def test_chunks_come_by_offset() -> None:
    chunks: list[tuple[object, object, object]] = [(5, 5, DIGEST.raw), (0, 5, DIGEST.raw)]
    catalog = CatalogBuilder().chunked(b"/x", 10, chunks).catalog()
    assert [chunk.offset for chunk in catalog.chunks(b"/x", Algorithm.SHAKE128)] == [0, 5]
    assert catalog.chunks(b"/x", Algorithm.SHAKE128)[0].digest.algorithm is Algorithm.SHAKE128


@pytest.mark.parametrize(
    "chunk", [(0, 10, b"short"), (0, 10, None), ("a", 10, DIGEST.raw), (0, b"1", DIGEST.raw)]
)
def test_a_chunk_that_cannot_be_is_refused(chunk: tuple[object, object, object]) -> None:
    catalog = CatalogBuilder().chunked(b"/x", 10, [chunk]).catalog()
    with pytest.raises(FormatError):
        catalog.chunks(b"/x", Algorithm.SHA1)


def test_too_many_chunks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "MAX_CHUNKS", 2)
    chunks: list[tuple[object, object, object]] = [(i, 1, DIGEST.raw) for i in range(3)]
    catalog = CatalogBuilder().chunked(b"/x", 3, chunks).catalog()
    with pytest.raises(FormatError, match="too many"):
        catalog.chunks(b"/x", Algorithm.SHA1)


def test_all_objects_of_content_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    # Pages smaller than the catalog: none may be lost where one ends.
    monkeypatch.setattr(catalog_module, "_PAGE", 2)
    builder = CatalogBuilder().link(b"/l", b"x").folder(b"/d")
    expected: set[tuple[Digest, ObjectKind]] = set()
    for number, algorithm in enumerate(
        [Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128, Algorithm.SHA1, Algorithm.SHA1]
    ):
        whole, first, second = (algorithm.digest(b"%d %d" % (number, i)) for i in range(3))
        flags = algorithm.value - 1 << 8
        builder.file(b"/f%d" % number, whole, 3, 4 | flags)
        # A bulk object beside the chunks, as old servers wrote it, and a row that is not listed.
        builder.chunked(b"/c%d" % number, 2, [(0, 1, first.raw), (1, 1, second.raw)], 68 | flags)
        expected |= {
            (whole, ObjectKind.FILE),
            (first, ObjectKind.CHUNK),
            (second, ObjectKind.CHUNK),
        }
    builder.add(b"/bulk", Row(flags=68, digest=DIGEST.raw))
    builder.file(b"/nowhere/x", Algorithm.SHA1.digest(b"orphan"))
    builder.add(b"/none", Row(digest=b""))
    expected |= {
        (DIGEST, ObjectKind.FILE),
        (Algorithm.SHA1.digest(b"orphan"), ObjectKind.FILE),
    }
    found = list(builder.catalog().content_objects())
    assert set(found) == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize("row", [Row(digest=b"short"), Row(digest=DIGEST.raw, flags=4 | 7 << 8)])
def test_an_object_that_cannot_be_is_an_error_not_nothing(row: Row) -> None:
    with pytest.raises(FormatError):
        list(CatalogBuilder().add(b"/x", row).catalog().content_objects())


def test_bound_revisions_are_listed_apart() -> None:
    builder = CatalogBuilder().mountpoint(b"/n", str(DIGEST), 77)
    builder.binds.append((b"/b", str(DIGEST), 5))
    assert [(n.mountpoint, n.size) for n in builder.catalog().bound()] == [(b"/b", 5)]
    assert CatalogBuilder().catalog().bound() == []


# --- nested catalogs -----------------------------------------------------------------------


def test_nested_catalogs_and_bind_mountpoints_are_found() -> None:
    builder = CatalogBuilder().mountpoint(b"/n", f"{DIGEST}-rmd160", 77)
    builder.binds.append((b"/b", str(DIGEST), 5))
    catalog = builder.catalog()
    nested = catalog.nested_at(b"/n")
    assert nested is not None
    assert (nested.mountpoint, nested.size) == (b"/n", 77)
    assert nested.digest == Digest(Algorithm.RMD160, DIGEST.raw)
    assert catalog.nested_at(b"/b") is not None
    assert catalog.nested_at(b"/n/x") is None
    assert catalog.nested() == [nested]


@pytest.mark.parametrize(
    ("digest", "size"),
    [
        ("", 0),
        ("0" * 40, 0),
        ("d41d8cd98f00b204e9800998ecf8427e", 0),
        (str(DIGEST) + "C", 0),
        (str(DIGEST), -1),
        (str(DIGEST), (1 << 63) - 1),
        (str(DIGEST), "big"),
    ],
)
def test_a_nested_catalog_that_cannot_be_loaded_is_an_error_not_nothing(
    digest: str, size: object
) -> None:
    catalog = CatalogBuilder().mountpoint(b"/n", digest, size).catalog()
    with pytest.raises(FormatError):
        catalog.nested_at(b"/n")
    with pytest.raises(FormatError):
        catalog.nested()


@pytest.mark.parametrize("path", [b"/other/n", b"/inner", b"", b"/innermost/x"])
def test_a_nested_catalog_outside_its_parent_is_refused(path: bytes) -> None:
    builder = CatalogBuilder(b"/inner")
    builder.nested.append((path, str(DIGEST), 0))
    with pytest.raises(FormatError, match="outside"):
        builder.catalog().nested()


def test_paths_are_translated_where_a_catalog_is_attached_elsewhere() -> None:
    builder = CatalogBuilder(b"/here").file(b"/here/x").mountpoint(b"/here/n", str(DIGEST))
    content = builder.build()
    catalog = Catalog(FileHandle.from_bytes(content), DIGEST, b"/there/deep")
    assert {node.path for node in catalog.children(b"/there/deep")} == {
        b"/there/deep/x",
        b"/there/deep/n",
    }
    assert catalog.find(b"/there/deep/x") is not None
    nested = catalog.nested_at(b"/there/deep/n")
    assert nested is not None
    assert nested.mountpoint == b"/there/deep/n"


# --- schemas -------------------------------------------------------------------------------

_OLD_TABLES = """
CREATE TABLE properties (key TEXT, value TEXT);
CREATE TABLE catalog (md5path_1 INTEGER, md5path_2 INTEGER, parent_1 INTEGER, parent_2 INTEGER,
    inode INTEGER, hash BLOB, size INTEGER, mode INTEGER, mtime INTEGER, flags INTEGER, name TEXT,
    symlink TEXT);
CREATE TABLE nested_catalogs (path TEXT, sha1 TEXT);
"""


def legacy_catalog() -> bytes:
    """A catalog as servers wrote it before schema 2."""
    builder = CatalogBuilder()
    moved = f"""
    {_OLD_TABLES.replace("CREATE TABLE ", "CREATE TABLE old_")}
    INSERT INTO old_catalog SELECT md5path_1, md5path_2, parent_1, parent_2, 5, hash, size, mode,
        mtime, flags, name, symlink FROM catalog;
    INSERT INTO old_nested_catalogs SELECT path, sha1 FROM nested_catalogs;
    DROP TABLE catalog; DROP TABLE chunks; DROP TABLE nested_catalogs; DROP TABLE statistics;
    DROP TABLE bind_mountpoints; DROP TABLE old_properties; DELETE FROM properties;
    ALTER TABLE old_catalog RENAME TO catalog;
    ALTER TABLE old_nested_catalogs RENAME TO nested_catalogs;
    """
    builder.file(b"/x", DIGEST, 5).mountpoint(b"/n", str(DIGEST), 9)
    builder.script = moved
    return builder.build()


def test_a_catalog_of_schema_1_is_read() -> None:
    catalog = Catalog(FileHandle.from_bytes(legacy_catalog()), DIGEST, b"")
    assert catalog.schema == 1.0
    node = catalog.find(b"/x")
    assert node is not None
    assert (node.nlink, node.hardlink_group, node.has_xattrs) == (1, 0, False)
    assert (node.uid, node.gid) == (os.geteuid(), os.getegid())
    assert (node.size, node.digest) == (5, DIGEST)
    assert catalog.xattrs(b"/x") == {}
    assert catalog.chunks(b"/x", Algorithm.SHA1) == []
    nested = catalog.nested_at(b"/n")
    assert nested is not None
    assert nested.size == 0
    assert set(catalog.counters().values()) == {0}


@pytest.mark.parametrize("schema", ["2.5", "2.4", "2.4999", "2.5004", "1.2", ""])
def test_schemas_that_can_be_read(schema: str) -> None:
    builder = CatalogBuilder()
    builder.properties["schema"] = schema
    assert builder.catalog().find(b"") is not None


@pytest.mark.parametrize("schema", ["2.6", "3", "nan", "inf", "-1", "0", "two"])
def test_schemas_that_cannot(schema: str) -> None:
    builder = CatalogBuilder()
    builder.properties["schema"] = schema
    with pytest.raises(FormatError, match="schema"):
        builder.catalog()


@pytest.mark.parametrize(
    "script",
    [
        "DROP TABLE catalog",
        "DROP TABLE nested_catalogs",
        "DROP TABLE properties",
        "ALTER TABLE catalog RENAME TO x; CREATE VIEW catalog AS SELECT * FROM x",
        "CREATE VIEW harmless AS SELECT 1",
        "CREATE TRIGGER t AFTER INSERT ON chunks BEGIN SELECT 1; END",
        "DROP TABLE chunks; CREATE VIRTUAL TABLE chunks USING fts4(a)",
        "ALTER TABLE catalog DROP COLUMN mtime; ALTER TABLE catalog ADD COLUMN"
        " mtime INTEGER AS (length(replace(hex(zeroblob(500000)), '0', '00')))",
        "CREATE TABLE 'odd '' name' (a, b AS (a + 1) VIRTUAL)",
    ],
)
def test_what_is_no_plain_table_is_refused(script: str) -> None:
    builder = CatalogBuilder()
    builder.script = script
    with pytest.raises(FormatError) as caught:
        builder.catalog()
    assert "catalog" in (caught.value.object or "")


def test_columns_that_are_missing_are_an_error() -> None:
    builder = CatalogBuilder()
    builder.script = "ALTER TABLE catalog DROP COLUMN flags"
    with pytest.raises(FormatError, match="no such column"):
        builder.catalog().find(b"")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"SQLite format 3\0" + b"\xff" * 4096,
        CatalogBuilder().build()[:4096],
        CatalogBuilder().build()[:9000],
    ],
    ids=["empty", "garbage", "header", "cut-early", "cut-late"],
)
def test_what_is_no_database_is_refused(content: bytes) -> None:
    def read_all() -> None:
        catalog = Catalog(FileHandle.from_bytes(content), DIGEST, b"/at")
        catalog.children(b"/at")
        catalog.nested()
        catalog.counters()

    with pytest.raises(FormatError) as caught:
        read_all()
    assert str(DIGEST) in (caught.value.object or "")


def test_a_query_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = CatalogBuilder()
    builder.script = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000)"
        " INSERT INTO nested_catalogs SELECT '/x' || i, '', i FROM n"
    )
    catalog = builder.catalog()
    monkeypatch.setattr("lazyfs.repository.sqlite_file._MAX_STEPS", 100_000)
    with pytest.raises(FormatError, match="interrupted"):
        catalog.nested()


# --- facts ---------------------------------------------------------------------------------


def test_counters_are_summed() -> None:
    builder = CatalogBuilder(counters={"self_regular": 3, "subtree_regular": 4, "self_dir": 1})
    totals = sum_counters(builder.catalog().counters())
    assert (totals["regular"], totals["dir"], totals["special"]) == (7, 1, 0)
    assert list(totals) == sorted(totals)


def test_numeric_properties() -> None:
    builder = CatalogBuilder()
    builder.properties |= {"TTL": "61", "bad": "many"}
    catalog = builder.catalog()
    assert catalog.number("TTL", 240) == 61
    assert catalog.number("none", 240) == 240
    with pytest.raises(FormatError, match="bad"):
        catalog.number("bad")


def test_endless_properties_are_not_taken_into_memory() -> None:
    builder = CatalogBuilder()
    builder.properties |= {"huge": "x" * 100_000}
    builder.properties |= {f"key{i}": "v" for i in range(2000)}
    properties = builder.catalog().properties
    assert "huge" not in properties
    assert len(properties) <= 1000
    assert properties["schema"] == "2.5"


def test_empty_content_digest_is_no_object() -> None:
    node = CatalogBuilder().file(b"/x", SHA1_OF_NOTHING).catalog().find(b"/x")
    assert node is not None
    assert node.digest == SHA1_OF_NOTHING
    node = CatalogBuilder().add(b"/x", Row(digest=b"")).catalog().find(b"/x")
    assert node is not None
    assert node.digest is None
