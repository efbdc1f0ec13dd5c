from __future__ import annotations

import stat
from dataclasses import replace

import pytest
from support.catalogs import FOLDER, CatalogBuilder, Row
from support.memory_store import MemoryStore

from lazyfs.cas.digest import Algorithm, ObjectKind
from lazyfs.errors import ObjectMissing, PathNotFound
from lazyfs.repository.diff import Change, ChangeKind, diff_revisions
from lazyfs.repository.likeness import Aspect
from lazyfs.repository.revision import Revision
from lazyfs.repository.xattr_blob import dump_xattrs

ONE, TWO = (Algorithm.SHA1.digest(text) for text in (b"1", b"2"))


def shown(changes: list[Change]) -> list[tuple[str, str]]:
    return [
        (c.path.decode(), "+".join(sorted(a.value for a in c.what)) or c.kind.value)
        for c in changes
    ]


def diff(old: CatalogBuilder, new: CatalogBuilder, path: str = "") -> list[tuple[str, str]]:
    store = MemoryStore()
    return shown(list(diff_revisions(old.revision(store), new.revision(store), path)))


def test_equal_trees_do_not_differ() -> None:
    def tree() -> CatalogBuilder:
        return CatalogBuilder().folder(b"/d").file(b"/d/a", ONE, 1).link(b"/l", b"a")

    new = tree()
    new.properties["revision"] = "2"  # another catalog with the same entries
    assert diff(tree(), new) == []


def test_changes_come_in_the_order_of_a_walk() -> None:
    old = CatalogBuilder().folder(b"/a").file(b"/a/x", ONE, 1).file(b"/a.b", ONE, 1)
    old.folder(b"/gone").folder(b"/gone/d").file(b"/gone/d/x", ONE, 1)
    new = CatalogBuilder().folder(b"/a").file(b"/a/x", TWO, 1).file(b"/a.b", TWO, 1)
    new.folder(b"/new").file(b"/new/x", ONE, 1)
    assert diff(old, new) == [
        ("/a/x", "content"),
        ("/a.b", "content"),
        ("/gone", "removed"),
        ("/gone/d", "removed"),
        ("/gone/d/x", "removed"),
        ("/new", "added"),
        ("/new/x", "added"),
    ]
    assert diff(old, new, "/gone/d") == [("/gone/d", "removed"), ("/gone/d/x", "removed")]
    assert diff(old, new, "/a.b") == [("/a.b", "content")]
    with pytest.raises(PathNotFound):
        diff(old, new, "/nowhere")


def test_a_file_in_the_place_of_a_directory() -> None:
    old = CatalogBuilder().folder(b"/x").file(b"/x/in", ONE, 1)
    new = CatalogBuilder().file(b"/x", ONE, 1)
    assert diff(old, new) == [("/x", "type"), ("/x/in", "removed")]
    assert diff(new, old) == [("/x", "type"), ("/x/in", "added")]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (Row(digest=TWO.raw, size=1), "content"),
        (Row(digest=ONE.raw, size=1, mode=stat.S_IFREG | 0o600), "mode"),
        (Row(digest=ONE.raw, size=1, mtime=5, uid=7), "mtime+owner"),
        (Row(digest=ONE.raw, size=1, mtimens=5), "mtime"),
        (Row(digest=ONE.raw, size=1, links=2 | 1 << 32), "links"),
        (Row(digest=ONE.raw, size=1, xattr=dump_xattrs({b"user.a": b"1"})), "xattrs"),
    ],
)
def test_what_differs_is_named(row: Row, expected: str) -> None:
    old = CatalogBuilder().add(b"/x", Row(digest=ONE.raw, size=1))
    assert diff(old, CatalogBuilder().add(b"/x", row)) == [("/x", expected)]


def test_what_nodes_do_not_tell_is_compared_too() -> None:
    old, new = CatalogBuilder(), CatalogBuilder()
    for builder, value, chunk in ((old, b"1", ONE), (new, b"2", TWO)):
        for path, attribute in ((b"/same", b"same"), (b"/other", value)):
            builder.add(
                path, Row(digest=ONE.raw, size=1, xattr=dump_xattrs({b"user.a": attribute}))
            )
        builder.chunked(b"/chunks", 2, [(0, 1, ONE.raw), (1, 1, chunk.raw)])
        builder.chunked(b"/alike", 2, [(0, 1, ONE.raw), (1, 1, ONE.raw)])
    assert diff(old, new) == [("/chunks", "content"), ("/other", "xattrs")]


def test_links_and_devices() -> None:
    device = Row(stat.S_IFCHR | 0o600, flags=20, size=0x103)
    old = CatalogBuilder().link(b"/l", b"a").add(b"/null", device)
    new = CatalogBuilder().link(b"/l", b"bc").add(b"/null", replace(device, size=0x105))
    assert diff(old, new) == [("/l", "target"), ("/null", "content")]


def test_hidden_entries_are_left_out() -> None:
    new = CatalogBuilder().add(b"/h", Row(digest=ONE.raw, size=1, flags=4 | 0x8000))
    assert diff(CatalogBuilder(), new) == []


# --- nested catalogs -----------------------------------------------------------------------


def nested(store: MemoryStore, mountpoint: bytes, *names: bytes) -> str:
    builder = CatalogBuilder(mountpoint)
    for name in names:
        builder.file(mountpoint + b"/" + name, ONE, 1)
    return str(builder.put(store))


def two_revisions(store: MemoryStore) -> tuple[Revision, Revision]:
    shared, small, large = (
        nested(store, b"/shared", b"x"),
        nested(store, b"/n", b"x"),
        nested(store, b"/n", b"x", b"y"),
    )
    old = CatalogBuilder().mountpoint(b"/shared", shared).mountpoint(b"/n", small)
    new = CatalogBuilder().mountpoint(b"/shared", shared).mountpoint(b"/n", large)
    return old.revision(store), new.revision(store)


def test_catalogs_in_common_are_not_opened() -> None:
    store = MemoryStore()
    old, new = two_revisions(store)
    assert shown(list(diff_revisions(old, new))) == [("/n/y", "added")]
    shared = old.tree.root.nested()[0]
    assert shared.mountpoint == b"/shared"
    assert store.opened[shared.digest] == 0
    assert shown(list(diff_revisions(old, new, "/shared"))) == []


def test_an_entry_at_a_common_catalog_is_compared_all_the_same() -> None:
    store = MemoryStore()
    digest = nested(store, b"/n", b"x")
    old = CatalogBuilder().mountpoint(b"/n", digest)
    new = CatalogBuilder().mountpoint(b"/n", digest)
    new.rows[-1] = (b"/n", Row(stat.S_IFDIR | 0o700, flags=3, size=4096, links=2))
    changes = list(diff_revisions(old.revision(store), new.revision(store)))
    assert shown(changes) == [("/n", "mode")]
    assert changes[0].what == {Aspect.MODE}
    assert changes[0].kind is ChangeKind.MODIFIED


def test_the_border_of_a_catalog_is_no_difference() -> None:
    store = MemoryStore()
    old = CatalogBuilder().mountpoint(b"/n", nested(store, b"/n", b"x"))
    new = CatalogBuilder().add(b"/n", FOLDER).file(b"/n/x", ONE, 1)
    assert list(diff_revisions(old.revision(store), new.revision(store))) == []


def test_a_catalog_that_cannot_be_had_is_an_error_not_nothing() -> None:
    store = MemoryStore()
    old, new = two_revisions(store)
    digest = next(n.digest for n in new.tree.root.nested() if n.mountpoint == b"/n")
    del store.objects[digest, ObjectKind.CATALOG]
    with pytest.raises(ObjectMissing):
        list(diff_revisions(old, new))


def test_changes_are_streamed() -> None:
    store = MemoryStore()
    old, new = two_revisions(store)
    changes = diff_revisions(new, old)
    assert next(changes).path == b"/n/y"
    with pytest.raises(StopIteration):
        next(changes)
