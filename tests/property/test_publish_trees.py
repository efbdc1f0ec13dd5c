from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.publishing import File, Folder, HardLink, Item, Symlink, make_repository, write_tree

from lazyfs.publish.cutter import ChunkSizes
from lazyfs.repository.repository import Repository

MARKER = ".cvmfscatalog"
SIZES = ChunkSizes(64, 128, 256)

names = st.sampled_from(["a", "b", "c d", "ü", "-", "~", "$(X)"])
times = st.integers(-(10**18), 4 * 10**18)
files = st.builds(File, st.binary(max_size=600), st.sampled_from([0o644, 0o400, 0o4755]), times)
links = st.builds(Symlink, st.sampled_from(["x", "../y", "/abs", "$(HOME)/z"]))
folders = st.builds(Folder, st.sampled_from([0o755, 0o700, 0o1777]))
booleans = st.booleans()
paths = st.lists(names, min_size=1, max_size=4).map(tuple)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, Item]:
    """Items that fit together: nothing stands below a file or a link."""
    chosen: dict[tuple[str, ...], Item] = {}
    inner: set[tuple[str, ...]] = set()
    drawn = draw(st.lists(st.tuples(paths, st.one_of(files, links, folders)), max_size=12))
    for path, item in drawn:
        above = {path[:n] for n in range(1, len(path))}
        blocked = any(a in chosen and not isinstance(chosen[a], Folder) for a in above)
        if path in chosen or blocked or (path in inner and not isinstance(item, Folder)):
            continue
        chosen[path] = item
        inner |= above
    tree = {"/".join(path): item for path, item in chosen.items()}
    regular: list[str] = [name for name, item in tree.items() if isinstance(item, File)]
    for folder in sorted({name.rpartition("/")[0] for name in tree} - {""}):
        if draw(booleans):
            tree[f"{folder}/{MARKER}"] = b""
    of = draw(st.sampled_from(["", *regular]))
    if of:
        tree[(of.rpartition("/")[0] + "/hard").lstrip("/")] = HardLink(of)
    return tree


def facts(source: Path) -> dict[bytes, tuple[object, ...]]:
    """What a reader must see, taken from the disk."""
    found: dict[bytes, tuple[object, ...]] = {}
    for path in [source, *source.rglob("*")]:
        status = path.lstat()
        relative = b"" if path == source else b"/" + bytes(path.relative_to(source))
        content: object = None
        if path.is_symlink():
            content = bytes(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        # Hard links stay links within one directory; the trees make no others.
        found[relative] = (
            status.st_mode,
            status.st_size,
            status.st_mtime_ns,
            status.st_uid,
            status.st_nlink,
            content,
        )
    return found


def published_facts(repository: Repository) -> dict[bytes, tuple[object, ...]]:
    revision = repository.current
    found: dict[bytes, tuple[object, ...]] = {}
    for node in revision.walk():
        content: object = node.symlink if node.is_symlink else None
        if node.is_file:
            with revision.open_file(node) as file:
                content = file.read()
        found[node.path] = (node.mode, node.size, node.mtime_ns, node.uid, node.nlink, content)
    return found


def with_subdirectory_counts(source: Path) -> dict[bytes, tuple[object, ...]]:
    """`facts`, with the link counts of directories as the format defines them."""
    result = facts(source)
    for path in [source, *(p for p in source.rglob("*") if p.is_dir() and not p.is_symlink())]:
        relative = b"" if path == source else b"/" + bytes(path.relative_to(source))
        below = sum(p.is_dir() and not p.is_symlink() for p in path.iterdir())
        mode, size, mtime, uid, _, content = result[relative]
        result[relative] = (mode, size, mtime, uid, 2 + below, content)
    return result


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(trees(), trees())
def test_published_trees_read_back_equal(first: dict[str, Item], second: dict[str, Item]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="lazyfs-tree-"))
    try:
        repository = make_repository(folder, first, sizes=SIZES)
        for tree in (first, second):
            if tree is second:
                repository.publish(second)
            with Repository.open(
                repository.root, pubkey=repository.pubkey, cache=folder / "cache"
            ) as opened:
                assert published_facts(opened) == with_subdirectory_counts(repository.source)
                counters = opened.current.counters()
                regular = [n for n in opened.current.walk() if n.is_file]
                assert counters["regular"] == len(regular)
                assert counters["file_size"] == sum(n.size for n in regular)
    finally:
        shutil.rmtree(folder)


def test_write_tree_lays_out_what_it_is_given(tmp_path: Path) -> None:
    write_tree(tmp_path / "t", {"a": b"1", "d": Folder(0o700), "l": Symlink("a")})
    assert {p.name for p in (tmp_path / "t").iterdir()} == {"a", "d", "l"}
