"""What the real server cut and stored, our cutter and writer give again, digest by digest."""

from __future__ import annotations

import functools
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.reference import ReferenceRepositories

from lazyfs.publish import cutter_py
from lazyfs.publish.content import ContentStore
from lazyfs.publish.cutter import ChunkSizes, CutMarks, Cutter, native_cut_marks
from lazyfs.publish.directory_target import DirectoryTarget
from lazyfs.publish.pipeline import ContentPipeline
from lazyfs.publish.source import SourceEntry, SourceItem
from lazyfs.repository.repository import Repository

SIZES = ChunkSizes(64 << 10, 128 << 10, 256 << 10)


def twin(name: str) -> CutMarks:
    native = native_cut_marks()
    if name == "native" and native is None:
        pytest.skip("the C extension is not built")
    return native if name == "native" and native is not None else cutter_py.cut_marks


@pytest.mark.parametrize(
    ("name", "by"),
    [("chunked", "python"), *((n, "native") for n in ("chunked", "chunknone", "shake", "rmd"))],
)
def test_cuts_are_the_real_servers(
    name: str, by: str, references: ReferenceRepositories, tmp_path: Path
) -> None:
    reference = references.get(name)
    seen = 0
    with Repository.open(reference.folder, pubkey=reference.key, cache=tmp_path) as repository:
        revision = repository.current
        for node in revision.walk():
            if not node.is_file or not node.chunked:
                continue
            with revision.open_file(node) as file:
                content = file.read()
            cuts = Cutter(SIZES, twin(by)).feed(content)
            assert [0, *cuts] == [extent.offset for extent in revision.extents(node)], node.path
            seen += len(cuts)
    assert seen > 20


@pytest.mark.parametrize("name", ["basic", "chunked", "chunknone", "shake", "rmd"])
def test_stored_content_has_the_real_servers_digests(
    name: str, references: ReferenceRepositories, tmp_path: Path
) -> None:
    reference = references.get(name)
    sizes = ChunkSizes() if name == "basic" else SIZES  # basic was made with the defaults
    target = DirectoryTarget(tmp_path / "target")
    target.prepare()
    with (
        Repository.open(reference.folder, pubkey=reference.key, cache=tmp_path / "c") as opened,
        ThreadPoolExecutor(2) as pool,
    ):
        revision = opened.current
        # The directory with 1,500 files of a few bytes adds nothing but time.
        files = [n for n in revision.walk() if n.is_file and not n.path.startswith(b"/big/dir/")]
        for node in files:
            pipeline = ContentPipeline(ContentStore(target, node.algorithm, sizes), pool, 2)
            entry = SourceEntry(node.name, node.mode, node.size, node.mtime_ns, 0, 0)
            opener = functools.partial(io.BytesIO, revision.open_file(node).read())
            item = SourceItem(node.path, entry, opener)
            stored = pipeline.put(item, node.codec)()
            if node.chunked:
                expected = [extent.ref.digest for extent in revision.extents(node)]
                assert [chunk.digest for chunk in stored.chunks] == expected, node.path
            else:
                assert stored.digest == node.digest, node.path
    assert len(files) > 5
