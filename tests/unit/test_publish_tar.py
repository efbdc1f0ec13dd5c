from __future__ import annotations

import base64
import io
import os
import stat
from pathlib import Path

import pytest
from support.tars import (
    BLOCK,
    END,
    GNU,
    V7,
    binary,
    extended,
    file,
    header,
    long,
    padded,
    pax,
    records,
)
from support.trees import Entry, Tree, read_source

from lazyfs.errors import PublishError
from lazyfs.publish import tar_reader
from lazyfs.publish.source import SourceItem
from lazyfs.publish.tar_source import TarSource


def source(*parts: bytes, end: bytes = END, xattrs: bool = True) -> TarSource:
    return TarSource(io.BytesIO(b"".join(parts) + end), name="a.tar", xattrs=xattrs)


def read(*parts: bytes, end: bytes = END) -> Tree:
    return read_source(source(*parts, end=end))


def only(*parts: bytes) -> Entry:
    """The one entry of an archive."""
    (entry,) = read(*parts).values()
    return entry


def order(*parts: bytes) -> list[bytes]:
    return [item.path for item in source(*parts).items()]


# --- what entries say -------------------------------------------------------------------------


def test_a_file_and_all_that_is_said_of_it() -> None:
    data = file(b"./d/f", b"hello", mode=0o6755, uid=1000, gid=100, mtime=1234567890)
    (item,) = source(data).items()
    assert item.path == b"/d/f"
    assert item.entry.name == b"f"
    assert item.entry.mode == stat.S_IFREG | 0o6755
    assert (item.entry.uid, item.entry.gid, item.entry.size) == (1000, 100, 5)
    assert item.entry.mtime_ns == 1234567890 * 10**9
    assert item.streamed
    assert item.link is None


@pytest.mark.parametrize(
    ("kind", "fields", "mode", "content", "rdev"),
    [
        (b"0", {}, stat.S_IFREG, b"", 0),
        (b"\0", {}, stat.S_IFREG, b"", 0),
        (b"7", {}, stat.S_IFREG, b"", 0),
        (b"2", {"target": b"../t"}, stat.S_IFLNK, b"../t", 0),
        (b"3", {"device": (1, 3)}, stat.S_IFCHR, b"", os.makedev(1, 3)),
        (b"4", {"device": (0xFFF, 0xFFFFF)}, stat.S_IFBLK, b"", os.makedev(0xFFF, 0xFFFFF)),
        (b"5", {}, stat.S_IFDIR, b"", 0),
        (b"6", {}, stat.S_IFIFO, b"", 0),
    ],
    ids=["file", "old file", "contiguous", "symlink", "character", "block", "directory", "fifo"],
)
def test_types(
    kind: bytes, fields: dict[str, object], mode: int, content: bytes, rdev: int
) -> None:
    entry = only(header(b"x", kind=kind, mode=0o1751, **fields))  # type: ignore[arg-type]
    assert entry == Entry(mode | 0o1751, content, rdev)


@pytest.mark.parametrize("kind", [b"2", b"3", b"4", b"5", b"6"])
def test_a_size_without_content_means_nothing(kind: bytes) -> None:
    data = header(b"x", kind=kind, size=5000, target=b"t", device=(1, 1))
    assert order(data, file(b"y")) == [b"/x", b"/y"]


def test_what_stands_in_the_place_of_device_numbers_counts_for_devices_alone() -> None:
    assert order(header(b"a", tail={329: b"garbage is there"})) == [b"/a"]
    with pytest.raises(PublishError, match="number"):
        read(header(b"a", kind=b"3", tail={329: b"garbage is there"}))


def test_types_in_the_mode_are_not_believed() -> None:
    assert only(header(mode=0o120777)).mode == stat.S_IFREG | 0o777


def test_sizes_of_what_is_no_file() -> None:
    items = source(header(b"d", kind=b"5"), header(b"l", kind=b"2", target=b"abc")).items()
    assert [item.entry.size for item in items] == [4096, 3]


def test_old_archives_name_directories_by_a_slash() -> None:
    tree = read(
        header(b"d/", kind=b"\0", magic=V7, mode=0o755),
        file(b"d/f", b"x", kind=b"\0", magic=V7),
    )
    assert tree == {
        b"/d": Entry(stat.S_IFDIR | 0o755),
        b"/d/f": Entry(stat.S_IFREG | 0o644, b"x"),
    }


def test_the_prefix_of_a_name() -> None:
    assert order(header(b"f", prefix=b"a/b")) == [b"/a/b/f"]
    assert order(header(b"n" * 100, prefix=b"p" * 155)) == [b"/" + b"p" * 155 + b"/" + b"n" * 100]
    # GNU archives have times there, the oldest have anything.
    assert order(header(b"f", prefix=b"123", magic=GNU)) == [b"/f"]
    assert order(header(b"f", prefix=b"123", magic=V7)) == [b"/f"]


def test_numbers_may_be_written_in_any_way() -> None:
    entry = only(
        header(uid=b" 1750 ", gid=b"\0" * 8, mode=b"   644 \0", mtime=binary(-5, 12), size=b"0 ")
    )
    assert (entry.uid, entry.gid, entry.mode) == (0o1750, 0, stat.S_IFREG | 0o644)
    assert entry.mtime_ns == -5 * 10**9
    entry = only(header(uid=binary(3_000_000, 8), gid=binary(2**32 - 2, 8)))
    assert (entry.uid, entry.gid) == (3_000_000, 2**32 - 2)
    assert only(header(b"f", size=binary(3, 12)), padded(b"abc")).content == b"abc"


def test_old_checksums_took_bytes_for_signed() -> None:
    assert order(header(b"\xff\xfe", signed=True)) == [b"/\xff\xfe"]


# --- extended headers -------------------------------------------------------------------------


def test_extended_headers_replace_what_the_header_says() -> None:
    (item,) = source(
        pax(
            (b"path", b"long/name"),
            (b"size", b"3"),
            (b"uid", b"70000"),
            (b"gid", b"4294967294"),
            (b"mtime", b"1.25"),
            (b"uname", b"root"),
            (b"comment", b"x=y\nz"),
        ),
        header(b"short", size=0, uid=1, gid=1, mtime=9),
        padded(b"abc"),
    ).items()
    entry = item.entry
    assert item.path == b"/long/name"
    assert (entry.uid, entry.gid, entry.mtime_ns, entry.size) == (
        70000,
        4294967294,
        1_250_000_000,
        3,
    )


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (b"0", 0),
        (b"12", 12_000_000_000),
        (b"12.", 12_000_000_000),
        (b"1.000000001", 1_000_000_001),
        (b"1.0000000019", 1_000_000_001),
        (b"1234567890.123456789", 1234567890_123456789),
        (b"-1.5", -1_500_000_000),
        (b"-0.0000000001", -1),
        (b"-2.0000000000", -2_000_000_000),
    ],
)
def test_times_are_exact_to_the_nanosecond(text: bytes, nanoseconds: int) -> None:
    assert only(pax((b"mtime", text)), header()).mtime_ns == nanoseconds


def test_targets_of_links_can_be_long() -> None:
    target = b"t" * 3000
    assert only(pax((b"linkpath", target)), header(kind=b"2", target=b"x")).content == target
    assert only(long(target, b"K"), header(kind=b"2", magic=GNU)).content == target


def test_names_can_be_long() -> None:
    path = b"/" + b"/".join([b"n" * 200] * 10)
    assert order(long(path), header(b"n", magic=GNU), file(b"next")) == [path, b"/next"]
    assert order(pax((b"path", path)), header(b"n"), file(b"next")) == [path, b"/next"]
    assert order(long(b"gnu"), pax((b"path", b"pax")), header(b"n")) == [b"/pax"]
    assert order(pax((b"path", b"pax")), long(b"gnu"), header(b"n")) == [b"/pax"]


def test_both_long_names_and_long_targets() -> None:
    data = long(b"t" * 150, b"K"), long(b"n" * 150), header(kind=b"2", magic=GNU)
    assert read(*data) == {b"/" + b"n" * 150: Entry(stat.S_IFLNK | 0o644, b"t" * 150)}


@pytest.mark.parametrize("charset", [b"BINARY", b"ISO-IR 10646 2000 UTF-8"])
def test_names_are_kept_byte_by_byte(charset: bytes) -> None:
    name = b"\xff\xfe\xc3\xbc\n=" + "ü".encode()
    assert order(pax((b"hdrcharset", charset), (b"path", name)), header()) == [b"/" + name]
    assert order(file(name)) == [b"/" + name]


def test_a_header_for_all_entries() -> None:
    tree = read(
        pax((b"comment", b"of git"), (b"uid", b"5"), (b"mtime", b"7.5"), kind=b"g"),
        file(b"a", uid=1),
        pax((b"uid", b"6")),
        file(b"b"),
        pax((b"uid", b"")),
        file(b"c", uid=2),
        pax((b"uid", b"8"), kind=b"g"),
        file(b"d"),
    )
    assert [entry.uid for entry in tree.values()] == [5, 6, 2, 8]
    assert {entry.mtime_ns for entry in tree.values()} == {7_500_000_000}


def test_attributes_do_not_hold_for_all_entries() -> None:
    attribute = (b"SCHILY.xattr.user.a", b"b")
    assert only(pax(attribute, kind=b"g"), header()).xattrs == {}


def test_extended_headers_hold_for_one_entry() -> None:
    tree = read(
        pax((b"mtime", b"5"), (b"SCHILY.xattr.user.a", b"b")), file(b"a"), file(b"b", mtime=1)
    )
    assert tree[b"/b"] == Entry(stat.S_IFREG | 0o644, mtime_ns=10**9)
    tree = read(long(b"a"), header(magic=GNU), file(b"b"))
    assert list(tree) == [b"/a", b"/b"]


def test_the_later_of_equal_records_counts() -> None:
    assert only(pax((b"uid", b"1"), (b"uid", b"2")), header()).uid == 2


def test_extended_headers_of_solaris() -> None:
    assert only(pax((b"uid", b"5"), kind=b"X"), header()).uid == 5


# --- extended attributes ----------------------------------------------------------------------


def encoded(value: bytes) -> bytes:
    return base64.b64encode(value).rstrip(b"=")


def xattrs(*pairs: tuple[bytes, bytes]) -> dict[bytes, bytes]:
    return dict(only(pax(*pairs), header()).xattrs)


def test_extended_attributes() -> None:
    assert xattrs(
        (b"SCHILY.xattr.user.a", b"\0\n=\xff"),
        (b"SCHILY.xattr.user.empty", b""),
        (b"SCHILY.xattr.user.x%3Dy%25z%20", b"v"),
        (b"SCHILY.xattr.user.%253D", b"w"),
        (b"SCHILY.xattr.security.capability", b"\1\2"),
    ) == {
        b"user.a": b"\0\n=\xff",
        b"user.empty": b"",
        b"user.x=y%z%20": b"v",
        b"user.%3D": b"w",
        b"security.capability": b"\1\2",
    }


@pytest.mark.parametrize("value", [b"", b"v", b"vv", b"vvv", b"\xff\0\xfe"])
def test_extended_attributes_in_the_other_form(value: bytes) -> None:
    key = b"LIBARCHIVE.xattr.user.a%20%3D%FF"
    assert xattrs((key, encoded(value))) == {b"user.a =\xff": value}
    assert xattrs((key, base64.b64encode(value))) == {b"user.a =\xff": value}


def test_the_plain_form_wins_over_the_other() -> None:
    plain = (b"SCHILY.xattr.user.a", b"plain")
    other = (b"LIBARCHIVE.xattr.user.a", encoded(b"other"))
    assert xattrs(plain, other) == xattrs(other, plain) == {b"user.a": b"plain"}


def test_only_attributes_that_can_be_published_are_taken() -> None:
    assert xattrs(
        (b"SCHILY.xattr.trusted.overlay.opaque", b"y"),
        (b"SCHILY.xattr.security.selinux", b"label"),
        (b"SCHILY.xattr.system.posix_acl_access", b"acl"),
        (b"SCHILY.acl.access", b"user::rwx"),
        (b"SCHILY.xattr.user.long", b"v" * 256),
        (b"SCHILY.xattr.user." + b"n" * 251, b"v"),
        (b"SCHILY.xattr.user.nul\0", b"v"),
        (b"SCHILY.xattr.user.fits", b"v" * 255),
    ) == {b"user.fits": b"v" * 255}


def test_no_more_attributes_than_the_format_has_room_for() -> None:
    found = xattrs(*((b"SCHILY.xattr.user.%04d" % n, b"") for n in range(300)))
    assert len(found) == 255


def test_attributes_can_be_left_out() -> None:
    data = pax((b"SCHILY.xattr.user.a", b"b"), (b"LIBARCHIVE.xattr.user.b", b"!")) + header()
    (item,) = source(data, xattrs=False).items()
    assert item.entry.xattrs == {}


# --- sparse files -----------------------------------------------------------------------------

HOLES = b"\0" * 700 + b"abc" + b"\0" * 297 + b"defgh" + b"\0" * 95
EXTENTS = ((700, 3), (1000, 5))
STORED = b"abcdefgh"


def gnu_extents(*extents: tuple[int, int]) -> bytes:
    return b"".join(b"%011o\0%011o\0" % extent for extent in extents)


def gnu_sparse(
    extents: tuple[tuple[int, int], ...], size: int, stored: bytes, name: bytes = b"f"
) -> bytes:
    """A sparse file as GNU archives have it, with as many blocks for its map as it needs."""
    tail = {386: gnu_extents(*extents[:4]), 482: bytes([len(extents) > 4]), 483: b"%011o\0" % size}
    data = header(name, kind=b"S", size=len(stored), magic=GNU, tail=tail)
    rest = extents[4:]
    while rest:
        data += gnu_extents(*rest[:21]).ljust(504, b"\0") + bytes([len(rest) > 21]) + bytes(7)
        rest = rest[21:]
    return data + padded(stored)


def sparse_0_0(size: int, stored: bytes, *extents: tuple[int, int]) -> bytes:
    pairs = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.numblocks", b"%d" % len(extents))]
    for offset, length in extents:
        pairs.append((b"GNU.sparse.offset", b"%d" % offset))
        pairs.append((b"GNU.sparse.numbytes", b"%d" % length))
    return pax(*pairs) + file(b"f", stored)


def sparse_0_1(size: int, stored: bytes, numbers: bytes) -> bytes:
    return pax(
        (b"GNU.sparse.size", b"%d" % size),
        (b"GNU.sparse.numblocks", b"9"),
        (b"GNU.sparse.map", numbers),
        (b"GNU.sparse.name", b"f"),
    ) + file(b"GNUSparseFile.1/f", stored)


def sparse_1_0(size: int, stored: bytes, numbers: bytes) -> bytes:
    return pax(
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", b"f"),
        (b"GNU.sparse.realsize", b"%d" % size),
    ) + file(b"GNUSparseFile.1/f", padded(numbers) + stored)


SPARSE = {
    "gnu": gnu_sparse(EXTENTS, 1100, STORED),
    "0.0": sparse_0_0(1100, STORED, *EXTENTS),
    "0.1": sparse_0_1(1100, STORED, b"700,3,1000,5"),
    "1.0": sparse_1_0(1100, STORED, b"2\n700\n3\n1000\n5\n"),
}


@pytest.mark.parametrize("data", SPARSE.values(), ids=SPARSE)
def test_sparse_files_have_their_holes_as_zeros(data: bytes) -> None:
    assert read(data, file(b"next", b"x")) == {
        b"/f": Entry(stat.S_IFREG | 0o644, HOLES),
        b"/next": Entry(stat.S_IFREG | 0o644, b"x"),
    }


def test_sparse_files_of_many_pieces() -> None:
    extents = tuple((n * 10, 1) for n in range(200))
    expected = (b"x" + bytes(9)) * 200
    numbers = [number for extent in extents for number in extent]
    text = b",".join(b"%d" % number for number in numbers)
    lines = b"200\n" + b"".join(b"%d\n" % number for number in numbers)
    for data in (
        gnu_sparse(extents, 2000, b"x" * 200),
        sparse_0_0(2000, b"x" * 200, *extents),
        sparse_0_1(2000, b"x" * 200, text),
        sparse_1_0(2000, b"x" * 200, lines),
    ):
        assert read(data, file(b"next"))[b"/f"].content == expected


@pytest.mark.parametrize(
    "data",
    [
        gnu_sparse((), 1100, b""),
        gnu_sparse(((1100, 0),), 1100, b""),
        sparse_0_0(1100, b"", (1100, 0)),
        sparse_0_1(1100, b"", b""),
        sparse_0_1(1100, b"", b"1100,0"),
        sparse_1_0(1100, b"", b"0\n"),
        sparse_1_0(1100, b"", b"1\n1100\n0\n"),
    ],
)
def test_a_file_that_is_one_hole(data: bytes) -> None:
    assert only(data).content == bytes(1100)


def test_holes_take_no_memory() -> None:
    items = source(gnu_sparse((), (1 << 33) - 1, b""), file(b"next")).items()
    item = next(items)
    assert item.entry.size == (1 << 33) - 1
    assert item.open is not None
    with item.open() as content:
        assert content.read(1 << 40) == bytes(1 << 20)
    assert next(items).path == b"/next"


# --- hard links -------------------------------------------------------------------------------


def link(name: bytes, target: bytes, **fields: object) -> bytes:
    return header(name, kind=b"1", target=target, **fields)  # type: ignore[arg-type]


def test_hard_links_name_an_earlier_entry() -> None:
    tree = read(
        file(b"./d/a", b"content"),
        header(b"l", kind=b"2", target=b"d"),
        header(b"p", kind=b"6"),
        link(b"b", b"./d/a"),
        link(b"m", b"/l"),
        link(b"q", b"p"),
        link(b"c", b"b"),
    )
    links = {path: entry.link for path, entry in tree.items() if entry.link is not None}
    assert links == {b"/b": b"/d/a", b"/m": b"/l", b"/q": b"/p", b"/c": b"/b"}


def test_hard_links_to_long_names() -> None:
    name = b"n" * 200
    assert read(pax((b"path", name)), file(), pax((b"linkpath", name)), link(b"l", b"x"))[
        b"/l"
    ] == Entry(link=b"/" + name)
    assert read(long(name), file(), long(name, b"K"), link(b"l", b"x"))[b"/l"].link == b"/" + name


@pytest.mark.parametrize(
    "before",
    [
        (),
        (file(b"other"),),
        (header(b"target", kind=b"5"),),
        (file(b"target"), header(b"target", kind=b"5")),
        (file(b"d/target"),),
    ],
    ids=["absent", "another", "a directory", "replaced by a directory", "elsewhere"],
)
def test_a_hard_link_to_what_is_no_earlier_file_is_refused(before: tuple[bytes, ...]) -> None:
    with pytest.raises(PublishError, match="a hard link to /target, which is no earlier") as error:
        read(*before, link(b"./name", b"target"), file(b"target"))
    assert error.value.path == "./name"
    assert error.value.object == "a.tar"


def test_a_hard_link_to_itself_says_nothing_new() -> None:
    assert order(file(b"a"), link(b"./a", b"a"), file(b"b")) == [b"/a", b"/b"]
    with pytest.raises(PublishError, match="no earlier file"):
        read(link(b"a", b"a"))


def test_a_size_of_a_hard_link_counts_only_where_content_follows() -> None:
    # Archives before pax give the size of the file, and no content.
    assert order(file(b"a", b"x" * 600), link(b"b", b"a", size=600), file(b"c")) == [
        b"/a",
        b"/b",
        b"/c",
    ]
    followed = pax((b"size", b"600")) + link(b"b", b"a") + padded(b"x" * 600)
    assert order(file(b"a", b"x" * 600), followed, file(b"c")) == [b"/a", b"/b", b"/c"]


# --- paths ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"a", b"/a"),
        (b"./a", b"/a"),
        (b"/a", b"/a"),
        (b"//a/./b//c/.", b"/a/b/c"),
        (b"...", b"/..."),
        (b"..a/b..", b"/..a/b.."),
    ],
)
def test_paths_are_put_below_the_top(name: bytes, path: bytes) -> None:
    assert order(file(name)) == [path]


@pytest.mark.parametrize("name", [b".", b"./", b"/", b"//./", b"./."])
def test_the_top_may_be_named(name: bytes) -> None:
    assert read(header(name, kind=b"5", mode=0o1777)) == {b"": Entry(stat.S_IFDIR | 0o1777)}


REFUSED = {
    "climbs": (file(b"../x"), "climbs"),
    "climbs inside": (file(b"a/../x"), "climbs"),
    "climbs at the end": (header(b"a/..", kind=b"5"), "climbs"),
    "is only up": (header(b"..", kind=b"5"), "climbs"),
    "climbs in a long name": (long(b"a/" * 60 + b"../x") + header(magic=GNU), "climbs"),
    "link climbs": (file(b"a") + link(b"b", b"../a"), "climbs"),
    "NUL": (pax((b"path", b"a\0b")) + header(), "NUL"),
    "name too long": (pax((b"path", b"a/" + b"n" * 256)) + header(), "too long"),
    "path too long": (pax((b"path", b"n/" * 2049)) + header(kind=b"5"), "too long"),
    "no name": (header(b""), "without a name"),
    "link to no name": (file(b"a") + link(b"b", b""), "without a name"),
    "top is a file": (pax((b"path", b".")) + header(), "top"),
    "top is a link": (header(b"./", kind=b"2", target=b"x"), "top"),
    "symlink to nothing": (header(kind=b"2"), "usable target"),
    "symlink with NUL": (pax((b"linkpath", b"a\0b")) + header(kind=b"2"), "usable target"),
    "symlink too long": (pax((b"linkpath", b"t" * 4097)) + header(kind=b"2"), "usable target"),
    "damaged attribute": (pax((b"LIBARCHIVE.xattr.user.a", b"=!")) + header(), "attribute"),
    "multi-volume": (header(kind=b"M"), "the type 'M'"),
    "old long name": (header(kind=b"N"), "the type 'N'"),
    "access control list": (header(kind=b"A"), "the type 'A'"),
    "unknown type": (header(kind=b"\xf7"), "the type '÷'"),
    "uid beyond 32 bits": (header(uid=binary(2**32 - 1, 8)), "the uid 4294967295"),
    "negative uid": (header(uid=binary(-1, 8)), "the uid -1"),
    "gid beyond 32 bits": (pax((b"gid", b"4294967295")) + header(), "the gid 4294967295"),
    "negative size": (header(size=binary(-512, 12)), "the size -512"),
    "size beyond 64 bits": (header(size=binary(1 << 63, 12)), "the size 9223372036854775808"),
    "size beyond 64 bits, extended": (pax((b"size", b"9" * 19)) + header(), "the size 9999"),
    "time beyond 64 bits": (header(mtime=binary(1 << 63, 12)), "time of modification"),
    "time beyond 64 bits, extended": (pax((b"mtime", b"9" * 19)) + header(), "time of modif"),
    "negative device": (header(kind=b"3", tail={329: binary(-1, 8)}), "device -1,0"),
    "major number": (header(kind=b"3", device=(0x1000, 0)), "device 4096,0"),
    "minor number": (header(kind=b"4", device=(0, 0x100000)), "device 0,1048576"),
    "uid is no number": (pax((b"uid", b"0x1")) + header(), "number that is none"),
    "uid is negative": (pax((b"uid", b"-1")) + header(), "number that is none"),
    "size is endless": (pax((b"size", b"1" * 4000)) + header(), "number that is none"),
    "time is no number": (pax((b"mtime", b"1e3")) + header(), "time that is none"),
    "time is empty": (pax((b"mtime", b"-")) + header(), "time that is none"),
    "time with sign": (pax((b"mtime", b"+1")) + header(), "time that is none"),
    "character set": (pax((b"hdrcharset", b"EBCDIC")) + header(), "character set"),
    "path for all": (pax((b"path", b"a"), kind=b"g") + header(), "path cannot be the same"),
    "map for all": (pax((b"GNU.sparse.size", b"1"), kind=b"g") + header(), "cannot be the same"),
    "two extended headers": (pax((b"uid", b"1")) * 2 + header(), "two extended headers"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_an_entry_that_cannot_be_published_is_refused_by_its_name(
    data: bytes, message: str
) -> None:
    with pytest.raises(PublishError, match=message) as error:
        read(file(b"fine", b"x"), data, file(b"after"))
    assert error.value.path
    assert error.value.object == "a.tar"


def test_the_message_names_archive_and_entry() -> None:
    with pytest.raises(PublishError) as error:
        read(file(b"a/../b\xff"))
    assert str(error.value) == (
        r"the path climbs out of the archive (object a.tar, path a/../b\xff)"
    )


# --- damage -----------------------------------------------------------------------------------


def flipped(block: bytes, at: int) -> bytes:
    return block[:at] + bytes([block[at] ^ 1]) + block[at + 1 :]


def number(at: int, text: bytes) -> bytes:
    return header(tail={at: text})


DAMAGED = {
    "empty": b"",
    "one byte": b"x",
    "text": b"This is no archive.\n" * 100,
    "no end": file(b"a", b"x"),
    "cut in the header": file(b"a", b"x") + header(b"b")[:300],
    "cut after a header": header(b"a", size=5),
    "cut in the content": header(b"a", size=1000) + bytes(BLOCK),
    "cut in the padding": header(b"a", size=5) + b"hello",
    "cut in an extended header": header(kind=b"x", size=100) + b"30 path=",
    "cut in the end": file(b"a") + bytes(100),
    "cut in the map of a sparse file": header(kind=b"S", tail={482: b"\1"}),
    "flipped name": flipped(header(), 1) + END,
    "flipped size": flipped(header(), 130) + END,
    "flipped type": flipped(header(), 156) + END,
    "flipped checksum": flipped(header(), 150) + END,
    "checksum is no number": header()[:148] + b"x" * 8 + header()[156:] + END,
    "size is no number": number(124, b"12x45678901\0") + END,
    "size in decimal": number(124, b"00000000009\0") + END,
    "mode is no number": number(100, b"-644\0\0\0\0") + END,
    "size too small": header(size=3) + padded(b"x" * 600) + END,
    "extended header alone": pax((b"path", b"a")) + END,
    "long name alone": long(b"a") + END,
    "empty extended header alone": extended(b"") + END,
    "extended header too long": header(kind=b"x", size=(1 << 20) + 1) + END,
    "extended header endless": header(kind=b"x", size=binary(1 << 62, 12)) + END,
    "extended header negative": header(kind=b"x", size=binary(-5, 12)) + header() + END,
    "long name endless": header(kind=b"L", size=binary(1 << 62, 12)) + END,
    "label endless": header(kind=b"V", size=binary(1 << 62, 12)) + END,
    "record without length": extended(b"path=a\n") + header() + END,
    "record without key": extended(b"5 =a\n") + header() + END,
    "record without equals": extended(b"7 path\n") + header() + END,
    "record without newline": extended(b"9 path=ab") + header() + END,
    "record too short": extended(b"4 path=a\n") + header() + END,
    "record of length zero": extended(b"0 path=a\n") + header() + END,
    "record too long": extended(b"99 path=a\n") + header() + END,
    "record of negative length": extended(b"-9 path=a\n") + header() + END,
    "record of endless length": extended(b"9" * 30 + b" path=a\n") + header() + END,
    "record of nothing": extended(b" path=a\n") + header() + END,
    "record of its length alone": extended(b"2 ") + header() + END,
    "record without space": extended(b"9\tpath=a\n") + header() + END,
    "record with NULs after it": extended(records((b"uid", b"1")) + bytes(9)) + header() + END,
    "bytes after the end": file(b"a") + END + b"x",
    "an archive after the end": file(b"a") + END + file(b"b") + END,
    "an entry after one empty block": file(b"a") + bytes(BLOCK) + file(b"b") + END,
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_archive_is_refused(data: bytes) -> None:
    with pytest.raises(PublishError) as error:
        read(data, end=b"")
    assert error.value.object == "a.tar"


BAD_MAPS = {
    "gnu: overlap": gnu_sparse(((700, 3), (702, 5)), 1100, STORED),
    "gnu: goes back": gnu_sparse(((1000, 3), (700, 5)), 1100, STORED),
    "gnu: leaves the file": gnu_sparse(((700, 3), (1000, 5)), 1004, STORED),
    "gnu: less stored": gnu_sparse(EXTENTS, 1100, STORED[:7]),
    "gnu: more stored": gnu_sparse(EXTENTS, 1100, STORED + b"x"),
    "gnu: negative size": header(kind=b"S", tail={483: binary(-5, 12)}),
    "gnu: negative offset": header(
        kind=b"S", tail={386: binary(-5, 12) + b"%011o\0" % 5, 483: b"%011o\0" % 10}
    ),
    "gnu: negative length": header(
        kind=b"S", tail={386: gnu_extents((10, 5)) + b"%011o\0" % 15 + binary(-5, 12), 483: b"17\0"}
    ),
    "gnu: no number": header(kind=b"S", tail={386: b"x" * 24}),
    "0.0: odd": pax((b"GNU.sparse.size", b"9"), (b"GNU.sparse.offset", b"9")) + file(b"f"),
    "0.0: lengths first": pax(
        (b"GNU.sparse.size", b"9"), (b"GNU.sparse.numbytes", b"1"), (b"GNU.sparse.offset", b"9")
    )
    + file(b"f", b"x"),
    "0.0: two offsets": pax(
        (b"GNU.sparse.size", b"9"), (b"GNU.sparse.offset", b"1"), (b"GNU.sparse.offset", b"2")
    )
    + file(b"f", b"xx"),
    "0.1: odd": sparse_0_1(1100, STORED, b"700,3,1000"),
    "0.1: no number": sparse_0_1(1100, STORED, b"700,3,1000,x"),
    "0.1: less stored": sparse_0_1(1100, STORED[:7], b"700,3,1000,5"),
    "0.1: no size": pax((b"GNU.sparse.map", b"1,1")) + file(b"f", b"x"),
    "0.1: size is no number": pax((b"GNU.sparse.size", b"x")) + file(b"f"),
    "0.1: too many": sparse_0_1(1100, b"", b",".join([b"0"] * ((1 << 19) + 2))),
    "1.0: fewer lines": sparse_1_0(1100, STORED, b"3\n700\n3\n1000\n5\n"),
    "1.0: no number": sparse_1_0(1100, STORED, b"2\n700\n3\n1000\nx\n"),
    "1.0: endless number": sparse_1_0(1100, STORED, b"1" * 600),
    "1.0: endless count": sparse_1_0(1100, b"1\n" * 5000, b"99999999999\n"),
    "1.0: no content": sparse_1_0(1100, b"", b""),
    "1.0: more lines": sparse_1_0(1100, STORED, b"1\n700\n8\n1000\n5\n"),
    "1.0: beyond the largest file": sparse_1_0(1 << 63, b"", b"0\n"),
    "1.0: less stored": sparse_1_0(1100, STORED[:7], b"2\n700\n3\n1000\n5\n"),
    "1.0: no size": pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"))
    + file(b"f", padded(b"0\n")),
    "2.0": pax((b"GNU.sparse.major", b"2"), (b"GNU.sparse.minor", b"0")) + file(b"f"),
}


@pytest.mark.parametrize("data", BAD_MAPS.values(), ids=BAD_MAPS)
def test_a_damaged_map_of_a_sparse_file_is_refused(data: bytes) -> None:
    with pytest.raises(PublishError) as error:
        read(data)
    assert error.value.object == "a.tar"


def test_a_map_can_not_grow_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lazyfs.publish.tar_sparse.MAX_EXTENTS", 30)
    extents = tuple((n, 0) for n in range(30))
    assert only(gnu_sparse(extents, 40, b"")).content == bytes(40)
    more = tuple((n, 0) for n in range(31))
    lines = b"".join(b"%d\n0\n" % n for n in range(31))
    for data in (
        gnu_sparse(more, 40, b""),
        gnu_sparse(tuple((n, 0) for n in range(500)), 600, b""),
        sparse_0_0(40, b"", *more),
        sparse_1_0(40, b"", b"31\n" + lines),
    ):
        with pytest.raises(PublishError, match="too long"):
            read(data)


class Endless(io.RawIOBase):
    """An archive that goes on and on."""

    def __init__(self, begin: bytes, rest: bytes) -> None:
        self._begin = io.BytesIO(begin)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        return self._begin.read(size) or self._rest * (size // len(self._rest)) or self._rest[:size]


MAP_BEGIN = sparse_1_0(9, b"", b"")[: 2 * BLOCK] + header(size=1 << 32)
ENDLESS = {
    "gnu": (
        header(kind=b"S", tail={482: b"\1"}),
        gnu_extents((1, 0)).ljust(504, b"\0") + b"\1" * 8,
    ),
    "1.0: numbers": (MAP_BEGIN + b"9" * 15 + b"\n", b"1\n"),
    "1.0: digits": (MAP_BEGIN, b"1"),
}


@pytest.mark.parametrize(("begin", "rest"), ENDLESS.values(), ids=ENDLESS)
def test_an_endless_map_is_not_read_for_ever(begin: bytes, rest: bytes) -> None:
    with pytest.raises(PublishError, match="too long"):
        read_source(TarSource(Endless(begin, rest)))  # type: ignore[arg-type]


def test_an_archive_of_nothing_has_an_end() -> None:
    assert read() == {}
    assert read(end=bytes(10240)) == {}


def test_one_block_is_end_enough() -> None:
    assert list(read(file(b"a"), end=bytes(BLOCK))) == [b"/a"]


def test_padding_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_reader, "MAX_PADDING_BYTES", 5000)
    assert list(read(file(b"a"), end=bytes(BLOCK + 5000))) == [b"/a"]
    with pytest.raises(PublishError, match="follow the end"):
        read(file(b"a"), end=bytes(BLOCK + 5001))


def test_labels_and_directories_of_incremental_archives() -> None:
    names = b"Yfile\0Nother\0\0"
    dumped = header(b"d/", kind=b"D", size=len(names), magic=GNU) + padded(names)
    tree = read(header(b"label", kind=b"V", magic=GNU), dumped, file(b"d/file"))
    assert {path: stat.S_IFMT(entry.mode) for path, entry in tree.items()} == {
        b"/d": stat.S_IFDIR,
        b"/d/file": stat.S_IFREG,
    }


# --- streaming --------------------------------------------------------------------------------


def test_the_same_path_is_given_twice_in_order() -> None:
    items = source(file(b"a", b"1"), header(b"a", kind=b"5"), file(b"./a", b"2")).items()
    assert [(item.path, item.entry.mode) for item in items] == [
        (b"/a", stat.S_IFREG | 0o644),
        (b"/a", stat.S_IFDIR | 0o644),
        (b"/a", stat.S_IFREG | 0o644),
    ]


def opened(item: SourceItem) -> io.RawIOBase:
    assert item.open is not None
    content = item.open()
    assert isinstance(content, io.RawIOBase)
    return content


def test_content_is_there_until_the_next_item() -> None:
    items = source(file(b"a", b"x" * 5000), file(b"b", b"y")).items()
    content = opened(next(items))
    assert content.read(10) == b"x" * 10
    assert opened(next(items)).read() == b"y"
    with pytest.raises(PublishError, match="until the next entry") as error:
        content.read(10)
    assert error.value.path == "a"


def test_content_can_be_opened_once() -> None:
    (item,) = source(file(b"a", b"x")).items()
    with pytest.raises(PublishError, match="until the next entry"):
        opened(item).read()
    first = next(source(file(b"a", b"x")).items())
    opened(first).close()
    with pytest.raises(PublishError, match="read once") as error:
        opened(first)
    assert error.value.path == "/a"


@pytest.mark.parametrize("piece", [1, 7, 100, 10_000])
def test_content_can_be_read_in_pieces(piece: int) -> None:
    content = opened(next(source(SPARSE["1.0"]).items()))
    found = b""
    while data := content.read(piece):
        assert len(data) <= piece
        found += data
    assert found == HOLES
    assert content.read(piece) == b""


def test_content_can_be_read_into_a_buffer() -> None:
    content = opened(next(source(SPARSE["gnu"]).items()))
    assert io.BufferedReader(content).read() == HOLES


def test_content_that_is_cut_is_never_short() -> None:
    items = source(header(b"a", size=2000), b"x" * 600, end=b"").items()
    content = opened(next(items))
    with pytest.raises(PublishError, match="incomplete") as error:
        content.read()
    assert error.value.path == "a"


def test_a_file_can_be_walked_again_but_a_stream_cannot(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(file(b"a", b"x") + END)
    of_path = TarSource(path)
    assert of_path.name == str(path)
    assert read_source(of_path) == read_source(of_path) != {}
    with path.open("rb") as stream:
        of_stream = TarSource(stream)
        assert of_stream.name == "archive"
        assert read_source(of_stream) != {}
        assert not stream.closed
        with pytest.raises(PublishError, match="read already"):
            read_source(of_stream)


@pytest.mark.parametrize("name", ["missing.tar", "."])
def test_what_cannot_be_opened_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(PublishError, match="cannot read") as error:
        read_source(TarSource(path))
    assert error.value.object == str(path)


class Pipe(io.RawIOBase):
    """Gives a few bytes at a time, and fails at the end if it is told to."""

    def __init__(self, data: bytes, error: OSError | None = None) -> None:
        self._data = io.BytesIO(data)
        self._error = error

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self._data.read(min(len(view), 13))
        if not data and self._error is not None:
            raise self._error
        view[: len(data)] = data
        return len(data)


def test_a_pipe_gives_what_it_has() -> None:
    data = file(b"a", b"x" * 1000) + SPARSE["1.0"] + END
    pipe = Pipe(data)
    assert read_source(TarSource(pipe)) == read(data, end=b"")  # type: ignore[arg-type]


def test_a_stream_that_fails_is_named() -> None:
    for data in (b"", file(b"a", b"x"), header(b"a", size=5000)):
        pipe = Pipe(data, OSError(5, "Input/output error"))
        with pytest.raises(PublishError, match="cannot read: Input/output error") as error:
            read_source(TarSource(pipe, name="standard input"))  # type: ignore[arg-type]
        assert error.value.object == "standard input"
