from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.catalogs import CatalogBuilder
from support.memory_store import MemoryStore

from lazyfs.cas.digest import Algorithm, Digest, ObjectKind
from lazyfs.cas.handle import FileHandle
from lazyfs.cas.store import ObjectRef
from lazyfs.errors import (
    CodecError,
    FormatError,
    HashMismatch,
    LazyfsError,
    NotCached,
    ObjectMissing,
    PathNotFound,
)
from lazyfs.repository import catalog_tree
from lazyfs.repository.sqlite_file import PAGE_CACHE_KIB

DIGEST = Algorithm.SHA1.digest(b"content")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def chain(store: MemoryStore, depth: int) -> CatalogBuilder:
    """The root of ``depth`` catalogs nested in each other: /n, /n/n and so on."""
    inner = CatalogBuilder(b"/n" * depth).file(b"/n" * depth + b"/f", DIGEST, 7)
    for level in range(depth - 1, -1, -1):
        size = len(inner.build())
        digest = inner.put(store)
        here = b"/n" * level
        inner = CatalogBuilder(here).file(here + b"/f", DIGEST, 7)
        inner.mountpoint(here + b"/n", str(digest), size)
    return inner


def siblings(store: MemoryStore, count: int) -> CatalogBuilder:
    """A root with ``count`` nested catalogs side by side: /0, /1 and so on."""
    root = CatalogBuilder()
    for number in range(count):
        path = b"/%d" % number
        root.mountpoint(path, str(CatalogBuilder(path).file(path + b"/f", DIGEST, 7).put(store)))
    return root


# --- finding the right catalog -------------------------------------------------------------


def test_a_mountpoint_is_looked_up_in_the_parent_and_listed_from_the_child(
    store: MemoryStore,
) -> None:
    tree = chain(store, 2).tree(store)
    assert tree.holder(b"/n").mountpoint == b""
    assert tree.open_catalogs() == [b""]
    assert tree.lister(b"/n").mountpoint == b"/n"
    assert tree.holder(b"/n/n").mountpoint == b"/n"
    assert tree.holder(b"/n/n/f").mountpoint == b"/n/n"
    assert tree.lister(b"").mountpoint == b""
    assert tree.open_catalogs() == [b"", b"/n", b"/n/n"]


def test_catalogs_are_loaded_when_needed_and_only_once(store: MemoryStore) -> None:
    tree = siblings(store, 3).tree(store)
    before = store.opened.total()
    tree.holder(b"/1/f")
    tree.holder(b"/1/none/at/all")
    tree.lister(b"/1")
    tree.holder(b"/nowhere/f")
    assert store.opened.total() == before + 1


def test_a_mountpoint_is_a_whole_component(store: MemoryStore) -> None:
    tree = siblings(store, 1).tree(store)
    tree.lister(b"/0")
    assert tree.holder(b"/01").mountpoint == b""
    assert tree.holder(b"/0/x").mountpoint == b"/0"


def test_nested_catalogs_appear_in_the_tree(store: MemoryStore) -> None:
    revision = chain(store, 3).revision(store)
    paths = [node.path for node in revision.walk()]
    assert paths == [
        *(b"", b"/f", b"/n", b"/n/f", b"/n/n", b"/n/n/f", b"/n/n/n", b"/n/n/n/f"),
    ]


def test_a_revision_bound_below_another_is_read_by_its_own_paths(store: MemoryStore) -> None:
    inner = CatalogBuilder(b"/sub").file(b"/sub/x", DIGEST, 1).put(store)
    snapshot = CatalogBuilder().file(b"/old", DIGEST, 1).mountpoint(b"/sub", str(inner)).put(store)
    root = CatalogBuilder().folder(b"/snap")
    root.binds.append((b"/snap", str(snapshot), 0))
    tree = root.tree(store)
    assert {n.path for n in tree.lister(b"/snap").children(b"/snap")} == {
        b"/snap/old",
        b"/snap/sub",
    }
    found = tree.holder(b"/snap/sub/x").find(b"/snap/sub/x")
    assert found is not None
    assert found.catalog == b"/snap/sub"


# --- releasing -----------------------------------------------------------------------------


def test_the_least_recently_used_catalogs_are_released(store: MemoryStore) -> None:
    tree = siblings(store, 4).tree(store, limit=2)
    for path in (b"/0", b"/1", b"/0", b"/2"):
        tree.lister(path)
    assert tree.open_catalogs() == [b"", b"/0", b"/2"]
    tree.lister(b"/3")
    assert tree.open_catalogs() == [b"", b"/2", b"/3"]


def test_catalogs_are_released_before_they_fill_the_memory(store: MemoryStore) -> None:
    each = siblings(store, 1).tree(store).lister(b"/0").memory
    assert each > PAGE_CACHE_KIB << 10  # what the store gives is in memory, as a whole
    tree = siblings(store, 4).tree(store, memory=3 * each - 1)
    for path in (b"/0", b"/1", b"/2"):
        tree.lister(path)
    assert tree.open_catalogs() == [b"", b"/1", b"/2"]
    tree = siblings(store, 2).tree(store, memory=1)
    for path in (b"/0", b"/1"):
        assert tree.lister(path).mountpoint == path
    assert tree.open_catalogs() == [b"", b"/1"]


def test_a_catalog_in_memory_is_there_once(store: MemoryStore) -> None:
    handles = []
    honest = store.open

    def noted(ref: ObjectRef) -> FileHandle:
        handles.append(honest(ref))
        return handles[-1]

    store.open = noted  # type: ignore[method-assign]
    tree = siblings(store, 1).tree(store)
    assert [node.path for node in tree.root.children(b"")] == [b"/0"]
    assert [handle.fileno() for handle in handles] == [-1]


def test_a_catalog_in_use_outlives_its_release(store: MemoryStore) -> None:
    tree = siblings(store, 2).tree(store, limit=1)
    held = tree.lister(b"/0")
    tree.lister(b"/1")
    gc.collect()
    assert tree.open_catalogs() == [b"", b"/1"]
    assert [node.path for node in held.children(b"/0")] == [b"/0/f"]


def test_a_child_stays_reachable_when_its_parent_was_released(store: MemoryStore) -> None:
    tree = chain(store, 3).tree(store, limit=1)
    assert tree.holder(b"/n/n/n/f").find(b"/n/n/n/f") is not None
    assert tree.open_catalogs() == [b"", b"/n/n/n"]
    assert tree.holder(b"/n/n/f").find(b"/n/n/f") is not None


def test_all_nested_catalogs_can_be_detached(store: MemoryStore) -> None:
    tree = chain(store, 2).tree(store)
    tree.lister(b"/n/n")
    tree.detach_nested()
    assert tree.open_catalogs() == [b""]
    assert tree.lister(b"/n/n").mountpoint == b"/n/n"


# --- threads -------------------------------------------------------------------------------


def test_threads_load_a_catalog_once(store: MemoryStore) -> None:
    tree = siblings(store, 1).tree(store)
    entered, release = threading.Event(), threading.Event()
    before = store.opened.total()

    def wait(ref: ObjectRef) -> None:
        entered.set()
        assert release.wait(10)

    store.on_open = wait
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(tree.lister, b"/0") for _ in range(8)]
        assert entered.wait(10)
        release.set()
        catalogs = {id(future.result()) for future in futures}
    assert store.opened.total() == before + 1
    assert len(catalogs) == 1


def test_many_threads_read_while_catalogs_come_and_go(store: MemoryStore) -> None:
    revision = siblings(store, 6).revision(store)
    revision.tree._limit = 2

    def read(number: int) -> set[bytes]:
        found: set[bytes] = set()
        for step in range(30):
            path = b"/%d" % ((number + step) % 6)
            found.update(node.path for node in revision.listdir(path))
        return found

    with ThreadPoolExecutor(6) as pool:
        for found in pool.map(read, range(6)):
            assert found == {b"/%d/f" % number for number in range(6)}


# --- what goes wrong -----------------------------------------------------------------------


def test_a_missing_nested_catalog_is_an_error_not_an_empty_directory(store: MemoryStore) -> None:
    missing = Digest.parse("1" * 40)
    revision = CatalogBuilder().mountpoint(b"/n", str(missing)).file(b"/f").revision(store)
    assert [node.path for node in revision.listdir(b"")] == [b"/n", b"/f"]
    for call in (revision.listdir, revision.lookup):
        with pytest.raises(ObjectMissing) as caught:
            call(b"/n" if call == revision.listdir else b"/n/x")
        assert str(missing) in (caught.value.object or "")
        assert caught.value.path == "/n"
        assert caught.value.errno == 5  # EIO, never ENOENT


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"garbage", FormatError), (CatalogBuilder(b"/n").build()[:5000], FormatError)],
)
def test_a_nested_catalog_that_is_none_names_itself(
    store: MemoryStore, content: bytes, error: type[LazyfsError]
) -> None:
    digest = store.put(content, ObjectKind.CATALOG)
    revision = CatalogBuilder().mountpoint(b"/n", str(digest)).revision(store)
    with pytest.raises(error) as caught:
        revision.listdir(b"/n")
    assert str(digest) in (caught.value.object or "")


def test_a_nested_catalog_under_a_wrong_name_is_refused(store: MemoryStore) -> None:
    digest = CatalogBuilder(b"/n").put(store)
    other = Algorithm.SHA1.digest(b"other")
    store.objects[other, ObjectKind.CATALOG] = store.objects[digest, ObjectKind.CATALOG]
    revision = CatalogBuilder().mountpoint(b"/n", str(other)).revision(store)
    with pytest.raises(HashMismatch):
        revision.listdir(b"/n")


@pytest.mark.parametrize("difference", [-1, 1, 1 << 40])
def test_a_declared_size_that_lies_is_refused(store: MemoryStore, difference: int) -> None:
    nested = CatalogBuilder(b"/n")
    size = len(nested.build()) + difference
    revision = CatalogBuilder().mountpoint(b"/n", str(nested.put(store)), size).revision(store)
    with pytest.raises(CodecError):
        revision.listdir(b"/n")


def forge(store: MemoryStore, digest: Digest, builder: CatalogBuilder) -> None:
    """Let ``digest`` name the builder's catalog: no cycle of hashes can be made honestly."""
    content = builder.build()
    honest = store.open

    def open_forged(ref: ObjectRef) -> FileHandle:
        return FileHandle.from_bytes(content) if ref.digest == digest else honest(ref)

    store.open = open_forged  # type: ignore[method-assign]


def test_a_catalog_that_is_its_own_ancestor_is_refused(store: MemoryStore) -> None:
    root = CatalogBuilder()
    loop = Digest.parse("2" * 40)
    root.mountpoint(b"/n", str(loop))
    tree = root.tree(store)
    forge(store, loop, CatalogBuilder(b"/n").mountpoint(b"/n/n", str(loop)))
    assert tree.lister(b"/n").mountpoint == b"/n"
    with pytest.raises(FormatError, match="its own ancestor") as caught:
        tree.lister(b"/n/n")
    assert caught.value.path == "/n/n"


def test_the_root_catalog_below_itself_is_refused(store: MemoryStore) -> None:
    tree = CatalogBuilder().mountpoint(b"/n", "3" * 40).tree(store)
    below = CatalogBuilder(b"/n").mountpoint(b"/n/x", str(tree.root.digest))
    forge(store, Digest.parse("3" * 40), below)
    with pytest.raises(FormatError, match="its own ancestor"):
        tree.lister(b"/n/x")


def test_nesting_has_a_bound(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_tree, "MAX_NESTING", 4)
    tree = chain(store, 5).tree(store)
    assert tree.lister(b"/n/n/n").mountpoint == b"/n/n/n"
    with pytest.raises(FormatError, match="too deeply"):
        tree.lister(b"/n/n/n/n")


def test_without_the_network_only_cached_catalogs_answer(store: MemoryStore) -> None:
    revision = siblings(store, 2).revision(store)
    store.cached = {revision.root_hash}
    with pytest.raises(NotCached):
        revision.offline.listdir(b"/0")
    assert len(revision.offline.listdir(b"")) == 2
    revision.listdir(b"/0")
    assert [node.path for node in revision.offline.listdir(b"/0")] == [b"/0/f"]
    with pytest.raises(PathNotFound):
        revision.offline.lookup(b"/0/none")


def test_a_catalog_that_failed_is_tried_again(store: MemoryStore) -> None:
    nested = CatalogBuilder(b"/n").file(b"/n/f")
    digest = nested.put(store)
    stored = store.objects.pop((digest, ObjectKind.CATALOG))
    revision = CatalogBuilder().mountpoint(b"/n", str(digest)).revision(store)
    with pytest.raises(ObjectMissing):
        revision.listdir(b"/n")
    store.objects[digest, ObjectKind.CATALOG] = stored
    assert len(revision.listdir(b"/n")) == 1


def test_labels_of_odd_mountpoints_are_one_line_of_text(store: MemoryStore) -> None:
    labels: list[str] = []
    path = b"/a\n\xff"
    nested = CatalogBuilder()
    nested.properties["root_prefix"] = path.decode(errors="surrogateescape")
    store.on_open = lambda ref: labels.append(ref.label)
    missing = "4" * 40
    revision = CatalogBuilder().mountpoint(path, missing).revision(store)
    with pytest.raises(ObjectMissing):
        revision.listdir(path)
    assert labels[-1] == f"file catalog at test.example.org:/a\\n\\xff ({missing})"
