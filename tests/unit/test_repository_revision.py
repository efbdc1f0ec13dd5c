from __future__ import annotations

import stat

import pytest
from support.catalogs import FOLDER, CatalogBuilder, Row
from support.memory_store import MemoryStore

from lazyfs.cas.digest import Algorithm
from lazyfs.errors import (
    FormatError,
    IsADirectory,
    NotADirectory,
    PathError,
    PathNotFound,
)
from lazyfs.repository import catalog
from lazyfs.repository.revision import DEFAULT_TTL, MAX_TTL, Revision

DIGEST = Algorithm.SHA1.digest(b"content")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def revision(store: MemoryStore) -> Revision:
    builder = CatalogBuilder()
    builder.properties |= {"last_modified": "1700000000", "TTL": "120", "revision": "12"}
    builder.folder(b"/b").folder(b"/a").file(b"/a/x", DIGEST, 3).file(b"/a.b", DIGEST, 3)
    builder.add(b"/.hidden", Row(FOLDER.mode, flags=1 | 0x8000, size=4096))
    builder.file(b"/.hidden/y", DIGEST, 3)
    builder.link(b"/var", b"$(WHERE:-none)/x")
    return builder.revision(store, {"WHERE": "/else"})


# --- facts ---------------------------------------------------------------------------------


def test_facts_come_from_the_root_catalog(revision: Revision) -> None:
    assert (revision.number, revision.timestamp, revision.ttl) == (12, 1700000000, 120)
    assert (revision.fqrn, revision.tag) == ("test.example.org", "")


@pytest.mark.parametrize(
    ("path", "mountpoint"),
    [(b"", b""), (b"/a", b""), (b"/n", b"/n"), (b"/n/x", b"/n"), (b"n/m/", b"/n/m")],
)
def test_the_catalog_of_a_mountpoint_is_the_nested_one(
    store: MemoryStore, path: bytes, mountpoint: bytes
) -> None:
    deepest = CatalogBuilder(b"/n/m", counters={"self_dir": 7}).put(store)
    nested = CatalogBuilder(b"/n", counters={"self_dir": 3, "subtree_dir": 7}).file(b"/n/x")
    middle = nested.mountpoint(b"/n/m", str(deepest)).put(store)
    root = CatalogBuilder(counters={"self_dir": 2, "subtree_dir": 10}).folder(b"/a")
    revision = root.mountpoint(b"/n", str(middle)).revision(store)
    info = revision.catalog_info(path)
    assert info.mountpoint == mountpoint
    expected = {b"": (revision.root_hash, 12), b"/n": (middle, 10), b"/n/m": (deepest, 7)}
    assert (info.digest, info.counters["dir"]) == expected[mountpoint]


@pytest.mark.parametrize(
    ("stated", "ttl"), [(None, DEFAULT_TTL), ("0", 1), ("-7", 1), ("1" + "0" * 30, MAX_TTL)]
)
def test_the_time_to_live_has_bounds(store: MemoryStore, stated: str | None, ttl: int) -> None:
    builder = CatalogBuilder()
    if stated is not None:
        builder.properties["TTL"] = stated
    assert builder.revision(store).ttl == ttl


# --- the tree ------------------------------------------------------------------------------


def test_listing_leaves_out_what_is_hidden_but_lookup_finds_it(revision: Revision) -> None:
    assert [n.name for n in revision.listdir(b"")] == [b"b", b"a", b"a.b", b"var"]
    assert b".hidden" in [n.name for n in revision.children(b"")]
    assert revision.lookup(b"/.hidden").hidden
    assert [n.path for n in revision.listdir(b"/.hidden")] == [b"/.hidden/y"]


def test_walking_goes_by_name_parents_first(revision: Revision) -> None:
    assert [n.path for n in revision.walk()] == [
        *(b"", b"/a", b"/a/x", b"/a.b", b"/b", b"/var"),
    ]
    assert [n.path for n in revision.walk(b"/a")] == [b"/a", b"/a/x"]
    assert [n.path for n in revision.walk(b"/a/x")] == [b"/a/x"]


@pytest.mark.parametrize("path", [b"/none", b"/a/x/y", b"/A"])
def test_what_does_not_exist_is_not_found(revision: Revision, path: bytes) -> None:
    with pytest.raises(PathNotFound) as caught:
        revision.lookup(path)
    assert caught.value.path == path.decode()
    with pytest.raises(PathNotFound):
        revision.listdir(path)


def test_listing_a_file_is_an_error(revision: Revision) -> None:
    with pytest.raises(NotADirectory):
        revision.listdir(b"/a/x")
    assert revision.listdir(b"/b") == []


@pytest.mark.parametrize("path", [b"", b"/", b"//", b".", b"/./"])
def test_many_ways_to_name_the_root(revision: Revision, path: bytes) -> None:
    assert revision.lookup(path).path == b""


@pytest.mark.parametrize("path", [b"a/x", b"/a/../a/x", b"/b/../a//x/.", b"a/./x/"])
def test_paths_are_normalized(revision: Revision, path: bytes) -> None:
    assert revision.lookup(path).path == b"/a/x"


@pytest.mark.parametrize("path", [b"..", b"/a/../..", b"/a\0b", b"/" + b"x/" * 3000])
def test_paths_that_cannot_be_are_refused(revision: Revision, path: bytes) -> None:
    with pytest.raises(PathError):
        revision.lookup(path)


def test_links_are_expanded_with_the_given_variables(revision: Revision) -> None:
    node = revision.lookup(b"/var")
    assert node.symlink == b"$(WHERE:-none)/x"
    assert revision.readlink(node) == b"/else/x"
    with pytest.raises(PathError):
        revision.readlink(revision.lookup(b"/a"))


def test_xattrs_are_asked_for_only_where_there_are_some(store: MemoryStore) -> None:
    revision = CatalogBuilder().xattrs(b"/x", {b"user.k": b"v"}).file(b"/y").revision(store)
    assert revision.xattrs(revision.lookup(b"/x")) == {b"user.k": b"v"}
    assert revision.xattrs(revision.lookup(b"/y")) == {}


# --- following links -----------------------------------------------------------------------


@pytest.fixture
def linked(store: MemoryStore) -> Revision:
    builder = CatalogBuilder().folder(b"/d").folder(b"/d/e").file(b"/d/e/f", DIGEST, 3)
    for path, target in (
        (b"/to_dir", b"d"),
        (b"/to_file", b"to_dir/e/f"),
        (b"/d/up", b"../d/e"),
        (b"/deep", b"d/e"),
        (b"/loop", b"loop2"),
        (b"/loop2", b"loop"),
        (b"/out", b"/etc/passwd"),
        (b"/above", b"../../etc"),
        (b"/own", b"/cvmfs/test.example.org/d/e/f"),
        (b"/ownroot", b"/cvmfs/test.example.org"),
        (b"/alien", b"/cvmfs/test.example.organic/d"),
        (b"/dangling", b"nowhere"),
        (b"/dots", b"deep/.."),
    ):
        builder.link(path, target)
    return builder.revision(store)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"/to_file", b"/d/e/f"),
        (b"/to_dir/e/f", b"/d/e/f"),
        (b"/to_dir/up/f", b"/d/e/f"),
        (b"/own", b"/d/e/f"),
        (b"/ownroot", b""),
        (b"/ownroot/d", b"/d"),
        # As a kernel goes: up from where the link leads, not from where it lies.
        (b"/dots", b"/d"),
        (b"/deep/../e", b"/d/e"),
        (b"to_dir", b"/d"),
        (b"", b""),
    ],
)
def test_links_are_followed(linked: Revision, path: bytes, found: bytes) -> None:
    assert linked.resolve(path).path == found


def test_the_last_link_may_be_left_alone(linked: Revision) -> None:
    assert linked.resolve(b"/to_dir/up", follow=False).path == b"/d/up"
    assert linked.resolve("/dangling", follow=False).is_symlink


@pytest.mark.parametrize("path", [b"/out", b"/alien", b"/dangling", b"/d/e/none", b"/out/x"])
def test_links_that_lead_nowhere(linked: Revision, path: bytes) -> None:
    with pytest.raises(PathNotFound):
        linked.resolve(path)


@pytest.mark.parametrize("path", [b"/loop", b"/loop/x", b"/above", b".."])
def test_links_that_never_end_or_climb_out(linked: Revision, path: bytes) -> None:
    with pytest.raises(PathError):
        linked.resolve(path)


# --- content -------------------------------------------------------------------------------


def test_a_file_is_opened_by_path_or_node(store: MemoryStore) -> None:
    digest = store.put(b"hello")
    revision = CatalogBuilder().file(b"/f", digest, 5).link(b"/l", b"f").revision(store)
    for what in (b"/f", "/l", revision.lookup(b"/f")):
        with revision.open_file(what) as file:
            assert file.read() == b"hello"


def test_only_regular_files_have_content(store: MemoryStore) -> None:
    builder = CatalogBuilder().folder(b"/d").link(b"/l", b"x")
    revision = builder.add(b"/p", Row(stat.S_IFIFO | 0o600, flags=20)).revision(store)
    with pytest.raises(IsADirectory):
        revision.open_file(b"/d")
    for path in (b"/l", b"/p"):
        with pytest.raises(PathError):
            revision.extents(revision.lookup(path))


def test_a_chunked_file_without_chunks_is_an_error(store: MemoryStore) -> None:
    revision = CatalogBuilder().chunked(b"/f", 10, []).revision(store)
    with pytest.raises(FormatError, match="no chunks"):
        revision.open_file(b"/f")


def test_closing_leaves_open_files_readable(store: MemoryStore) -> None:
    digest = store.put(b"hello")
    with CatalogBuilder().file(b"/f", digest, 5).revision(store) as revision:
        file = revision.open_file(b"/f")
    with file:
        assert file.read() == b"hello"


def test_a_counted_repository(store: MemoryStore) -> None:
    builder = CatalogBuilder(counters={"self_regular": 1, "subtree_regular": 2})
    assert builder.revision(store).counters()["regular"] == 3


def test_what_is_in_memory_is_listed_without_waiting(
    revision: Revision, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (b"", b"/a", b"/b", b"/.hidden"):
        node = revision.lookup(path)
        assert revision.children_now(node) == revision.children(path)
    root = revision.lookup(b"")
    with revision.tree.root._file._lock:  # another thread is asking
        assert revision.children_now(root) is None
    monkeypatch.setattr(catalog, "FEW_ENTRIES", 2)
    assert revision.children_now(root) is None
    assert revision.children_now(revision.lookup(b"/a")) is not None


def test_what_is_not_open_yet_is_not_listed_in_passing(store: MemoryStore) -> None:
    inner = CatalogBuilder(b"/n").file(b"/n/x", DIGEST, 3).put(store)
    revision = CatalogBuilder().mountpoint(b"/n", str(inner)).revision(store)
    node = revision.lookup(b"/n")
    assert revision.children_now(node) is None
    assert [child.path for child in revision.children(b"/n")] == [b"/n/x"]
    assert revision.children_now(node) == revision.children(b"/n")
