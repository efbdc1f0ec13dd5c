from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from support import tars
from support.trees import (
    Entry,
    Tree,
    link_groups,
    read_source,
    resolved,
    trees,
    write_folder,
    write_tar,
)

from lazyfs.errors import PublishError
from lazyfs.publish.directory_source import DirectorySource
from lazyfs.publish.tar_source import TarSource

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
}
compressors = st.sampled_from(sorted(COMPRESSORS))


def archive(tree: Tree, format: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    write_tar(tree, file, format=format)
    return file.getvalue()


def read(data: bytes) -> Tree:
    return read_source(TarSource(io.BytesIO(data)))


@given(trees(), compressors)
def test_an_archive_reads_back_equal(tree: Tree, compressor: str) -> None:
    assert read(COMPRESSORS[compressor](archive(tree))) == tree


@given(trees(xattrs=False))
def test_a_gnu_archive_reads_back_equal_but_for_fractions(tree: Tree) -> None:
    whole = {path: replace(e, mtime_ns=e.mtime_ns // 10**9 * 10**9) for path, e in tree.items()}
    assert read(archive(tree, tarfile.GNU_FORMAT)) == whole


@given(trees())
def test_names_may_be_written_in_any_way(tree: Tree) -> None:
    file = io.BytesIO()
    write_tar(tree, file, name=lambda path: b"//." + path.replace(b"/", b"/.//") + b"/." * 2)
    assert read(file.getvalue()) == tree


@given(trees())
def test_a_folder_and_an_archive_give_the_same(tree: Tree) -> None:
    with tempfile.TemporaryDirectory(prefix="lazyfs-") as name:
        folder = Path(name) / "tree"
        write_folder(tree, folder)
        found = read_source(DirectorySource(folder))
    assert resolved(found) == resolved(tree)
    assert link_groups(found) == link_groups(tree, across=False)
    assert resolved(read(archive(tree))) == resolved(found)


@given(trees(most=5), compressors, st.data())
def test_an_archive_that_was_cut_is_refused(
    tree: Tree, compressor: str, data: st.DataObject
) -> None:
    file = io.BytesIO()
    end = write_tar(tree, file)
    # Of the blocks that end an archive one is enough, and padding is not needed.
    whole = COMPRESSORS[compressor](file.getvalue()[: end + 512])
    assert read(whole) == tree
    length = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(PublishError):
        read(whole[:length])


@given(trees(most=5), compressors, st.data())
def test_damage_is_noticed_or_does_no_harm(
    tree: Tree, compressor: str, data: st.DataObject
) -> None:
    whole = bytearray(COMPRESSORS[compressor](archive(tree)))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(PublishError):
        found = read(bytes(whole))
        # Nothing but the compressed forms has checksums of content and of extended headers.
        assert compressor == "plain" or found == tree


@given(st.binary(max_size=2000), compressors)
def test_any_bytes_are_refused(data: bytes, compressor: str) -> None:
    with pytest.raises(PublishError):
        read(COMPRESSORS[compressor](data))


@given(trees(most=6), st.lists(st.integers(0, 100)), st.integers(1, 700))
def test_content_need_not_be_read(tree: Tree, read_of: list[int], piece: int) -> None:
    source = TarSource(io.BytesIO(archive(tree)))
    for number, item in enumerate(source.items()):
        if item.open is not None and number in read_of:
            with item.open() as file:
                assert file.read(piece) == tree[item.path].content[:piece]


@given(trees(most=6))
def test_of_a_path_that_comes_twice_the_later_counts(tree: Tree) -> None:
    again = {p: Entry(e.mode, b"new", mtime_ns=5) if e.is_file else e for p, e in tree.items()}
    file = io.BytesIO()
    write_tar(tree, file, again)
    assert read(file.getvalue()) == again


fields = st.one_of(
    st.binary(max_size=12),
    st.integers(-(1 << 62), 1 << 62).map(lambda number: tars.binary(number, 12)),
    st.integers(0, 10**9).map(lambda number: b"%o\0" % number),
)
numbers = st.one_of(
    st.integers(0, 3000).map(lambda n: b"%d" % n), st.sampled_from((b"", b"-1", b"x"))
)
plain_keys = (b"path", b"linkpath", b"size", b"uid", b"mtime", b"hdrcharset")
attribute_keys = (b"SCHILY.xattr.user.a", b"LIBARCHIVE.xattr.user.%3D")
sparse_keys = (b"map", b"offset", b"numbytes", b"size", b"realsize", b"name", b"major", b"minor")
keys = st.sampled_from(
    (*plain_keys, *attribute_keys, *(b"GNU.sparse." + key for key in sparse_keys))
)
bodies = st.one_of(
    st.binary(max_size=100),
    st.lists(st.tuples(keys, st.one_of(numbers, st.binary(max_size=8)))).map(
        lambda pairs: tars.records(*pairs)
    ),
)


@given(st.binary(min_size=1, max_size=1), st.dictionaries(st.integers(100, 500), fields), bodies)
def test_whatever_headers_say_is_taken_or_refused(
    kind: bytes, tail: dict[int, bytes], body: bytes
) -> None:
    data = tars.extended(body) + tars.header(kind=kind, size=700, tail=tail) + bytes(700)
    with contextlib.suppress(PublishError):
        for item in TarSource(io.BytesIO(data + tars.END)).items():
            # A map may well describe a file that is larger than any disk.
            if item.open is not None and item.entry.size < 1 << 20:
                with item.open() as file:
                    assert len(file.read()) == item.entry.size


@given(bodies, st.sampled_from((b"x", b"g", b"X", b"L", b"K")))
def test_extended_headers_are_taken_or_refused(body: bytes, kind: bytes) -> None:
    with contextlib.suppress(PublishError):
        read(tars.extended(body, kind) + tars.file(b"f", b"x") + tars.END)
