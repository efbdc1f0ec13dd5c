"""Random histories of a repository: trees that follow from each other by a few edits."""

from __future__ import annotations

import hashlib
import os
import shutil
import zlib
from pathlib import Path

from hypothesis import strategies as st

from lazyfs.publish.cutter import ChunkSizes
from lazyfs.publish.transaction import PublishResult
from support.publishing import (
    File,
    Folder,
    Item,
    PublishedRepository,
    Symlink,
    make_repository,
    write_tree,
)

SIZES = ChunkSizes(64, 128, 256)
MARKER = ".cvmfscatalog"
Tree = dict[str, Item]

_EPOCH = 1_700_000_000

_contents = st.builds(
    lambda seed, size: hashlib.shake_128(b"%d" % seed).digest(size),
    st.integers(0, 5),
    st.sampled_from([0, 1, 20, 300, 700]),
)
_items = st.one_of(
    st.builds(File, _contents, st.sampled_from([0o644, 0o755])),
    st.builds(Folder, st.sampled_from([0o755, 0o700])),
    st.builds(Symlink, st.sampled_from(["x", "../y"])),
)
_paths = st.lists(st.sampled_from(["a", "a.b", "c", "d"]), min_size=1, max_size=3).map("/".join)
_edits = st.one_of(
    st.tuples(st.just("put"), _paths, _items),
    st.tuples(st.just("put"), _paths.map(lambda path: f"{path}/{MARKER}"), st.just(File())),
    st.tuples(st.just("delete"), _paths, st.none()),
)


@st.composite
def histories(draw: st.DrawFn, *, most: int = 4) -> list[Tree]:
    """Trees of successive revisions, at least two."""
    tree: Tree = {}
    trees = []
    for _ in range(draw(st.integers(2, most))):
        for _, path, item in draw(st.lists(_edits, min_size=1, max_size=6)):
            tree = edited(tree, path, item)
        trees.append(tree)
    return trees


def edited(tree: Tree, path: str, item: Item | None) -> Tree:
    """The tree with something else at ``path``; None: with nothing."""
    above = {path.rsplit("/", n)[0] for n in range(1, path.count("/") + 1)}
    new = {
        name: there
        for name, there in tree.items()
        if not (name == path or name.startswith(f"{path}/"))
        and not (name in above and not isinstance(there, Folder))
    }
    if isinstance(item, Folder):  # what is in it stays
        new |= {name: there for name, there in tree.items() if name.startswith(f"{path}/")}
    if item is not None:
        new[path] = item
    # Folders come first, so that what is in them finds them.
    return dict(sorted(new.items()))


def lay_out(folder: Path, tree: Tree) -> None:
    """Write a tree in which equal things have equal times, and other content another time."""
    shutil.rmtree(folder, ignore_errors=True)
    write_tree(folder, tree)
    for path in [folder, *folder.rglob("*")]:
        known = (
            b"" if path.is_dir() else os.fsencode(path.readlink()) if path.is_symlink() else None
        )
        content = path.read_bytes() if known is None else known
        seconds = _EPOCH + zlib.crc32(content) % 1_000_000
        os.utime(path, ns=(seconds * 10**9, seconds * 10**9), follow_symlinks=False)


def first_of(folder: Path, history: list[Tree], *, tag: str | None = None) -> PublishedRepository:
    """A repository with the first tree of a history as revision 1."""
    source = folder / "tree"
    lay_out(source, history[0])
    return make_repository(folder, source, sizes=SIZES, tag=tag)


def publish_next(made: PublishedRepository, tree: Tree, *, tag: str | None = None) -> PublishResult:
    """Publish the next tree of a history."""
    source = made.root.parent.parent / "tree"
    lay_out(source, tree)
    return made.publish(source, tag=tag)
