from __future__ import annotations

import stat

import pytest
from support.catalogs import CatalogBuilder, Row
from support.memory_store import MemoryStore

from lazyfs.cas.digest import Algorithm, ObjectKind
from lazyfs.errors import ObjectMissing, PathNotFound
from lazyfs.repository.revision import Revision
from lazyfs.repository.usage import catalog_usage, directory_usage

ONE = Algorithm.SHA1.digest(b"1")


def linked(size: int, group: int) -> Row:
    return Row(digest=ONE.raw, size=size, links=2 | group << 32)


def revision(store: MemoryStore) -> Revision:
    deep = CatalogBuilder(b"/n/deep", counters={"self_dir": 1, "self_regular": 1})
    deep.counters["self_file_size"] = 1000
    deep.file(b"/n/deep/x", ONE, 1000)
    deep_size = len(deep.build())
    nested = CatalogBuilder(b"/n")
    nested.counters = {
        "self_dir": 2,
        "self_regular": 1,
        "self_file_size": 100,
        "self_nested": 1,
        "subtree_dir": 1,
        "subtree_regular": 1,
        "subtree_file_size": 1000,
    }
    nested.file(b"/n/x", ONE, 100).mountpoint(b"/n/deep", str(deep.put(store)), deep_size)
    root = CatalogBuilder().mountpoint(b"/n", str(nested.put(store)))
    root.counters = {
        "self_dir": 4,
        "self_regular": 6,
        "self_symlink": 1,
        "self_special": 1,
        "self_file_size": 29,
        "self_nested": 1,
        "subtree_dir": 3,
        "subtree_regular": 2,
        "subtree_nested": 1,
        "subtree_file_size": 1100,
    }
    root.file(b"/a", ONE, 10).link(b"/l", b"target")
    root.add(b"/fifo", Row(stat.S_IFIFO | 0o644, flags=20))
    root.folder(b"/d").folder(b"/d/e").file(b"/d/e/x", ONE, 5)
    # Two names of one file, and two of another in the same directory.
    root.add(b"/d/h1", linked(3, 1)).add(b"/d/h2", linked(3, 1))
    root.add(b"/d/i1", linked(4, 2)).add(b"/d/i2", linked(4, 2))
    root.add(b"/hidden", Row(digest=ONE.raw, size=77, flags=4 | 0x8000))
    return root.revision(store)


def usage(path: str = "", depth: int | None = 1) -> list[tuple[str, int, int]]:
    found = directory_usage(revision(MemoryStore()), path, depth=depth)
    return [(u.path.decode(), u.entries, u.bytes) for u in found]


ALL = [
    ("/d/e", 2, 5),
    ("/d", 7, 12),
    ("/n/deep", 2, 1000),
    ("/n", 4, 1100),
    ("", 15, 1122),
]


def test_directories_are_told_after_those_within_them() -> None:
    assert usage(depth=None) == ALL
    assert usage(depth=2) == ALL


@pytest.mark.parametrize(("depth", "paths"), [(0, [""]), (1, ["/d", "/n", ""])])
def test_what_is_deeper_counts_untold(depth: int, paths: list[str]) -> None:
    assert usage(depth=depth) == [told for told in ALL if told[0] in paths]


def test_a_part_is_counted_alone() -> None:
    assert usage("/d") == ALL[:2]
    assert usage("/a") == [("/a", 1, 10)]
    assert usage("/l") == [("/l", 1, 0)]
    with pytest.raises(PathNotFound):
        usage("/none")


def test_counting_tells_how_far_it_is() -> None:
    seen: list[tuple[int, int]] = []
    list(directory_usage(revision(MemoryStore()), progress=lambda *at: seen.append(at)))
    assert seen[0][0] == 2
    # The counters know of the mountpoints twice.
    assert seen[-1] == (15, 17)


def test_a_missing_catalog_is_an_error_not_nothing() -> None:
    store = MemoryStore()
    found = revision(store)
    (nested,) = found.tree.root.nested()
    del store.objects[nested.digest, ObjectKind.CATALOG]
    for usage in (directory_usage(found), catalog_usage(found)):
        with pytest.raises(ObjectMissing):
            list(usage)


def test_catalogs_are_told_from_their_counters() -> None:
    store = MemoryStore()
    found = list(catalog_usage(revision(store)))
    assert [(u.mountpoint, u.depth, u.entries, u.bytes) for u in found] == [
        (b"", 0, 12, 29),
        (b"/n", 1, 3, 100),
        (b"/n/deep", 2, 2, 1000),
    ]
    assert [(u.catalogs, u.total_entries, u.total_bytes) for u in found] == [
        (3, 15, 1129),
        (2, 4, 1100),
        (1, 2, 1000),
    ]
    assert found[2].size > 0
    assert found[1].size == 0  # not recorded


def test_catalogs_below_the_depth_are_not_opened() -> None:
    store = MemoryStore()
    seen: list[tuple[int, int]] = []
    found = list(catalog_usage(revision(store), depth=1, progress=lambda *at: seen.append(at)))
    assert [u.mountpoint for u in found] == [b"", b"/n"]
    assert sum(store.opened.values()) == 2
    assert seen == [(1, 3), (2, 3)]
