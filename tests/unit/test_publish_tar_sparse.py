from __future__ import annotations

import io
import stat

import pytest
from support.tars import (
    BLOCK,
    EXTENTS,
    HOLES,
    SPARSE,
    STORED,
    binary,
    file,
    gnu_extents,
    gnu_sparse,
    header,
    only,
    padded,
    pax,
    read,
    source,
    sparse_0_0,
    sparse_0_1,
    sparse_1_0,
)
from support.trees import Entry, read_source

from lazyfs.errors import PublishError
from lazyfs.publish.tar_source import TarSource


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
