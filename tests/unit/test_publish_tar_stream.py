from __future__ import annotations

import io
import stat
from pathlib import Path

import pytest
from support.tars import (
    BLOCK,
    END,
    GNU,
    HOLES,
    SPARSE,
    binary,
    extended,
    file,
    header,
    long,
    padded,
    pax,
    read,
    records,
    source,
)
from support.trees import read_source

from lazyfs.errors import PublishError
from lazyfs.publish import tar_reader
from lazyfs.publish.source import SourceItem
from lazyfs.publish.tar_source import TarSource

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
