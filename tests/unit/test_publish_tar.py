from __future__ import annotations

import base64
import os
import stat

import pytest
from support.tars import (
    GNU,
    V7,
    binary,
    file,
    header,
    long,
    only,
    order,
    padded,
    pax,
    read,
    source,
)
from support.trees import Entry

from lazyfs.errors import PublishError

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
