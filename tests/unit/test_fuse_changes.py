from __future__ import annotations

from collections.abc import Iterable

import pytest
from support.fuse_fakes import (
    FakeRevision,
    changed,
    digest_of,
    directory,
    file,
    hard_link,
    symlink,
)

from lazyfs.cas.store import ObjectRef
from lazyfs.errors import ObjectMissing
from lazyfs.fuse.changes import LIST_FROM, Changes, KnownPaths, compare
from lazyfs.repository.node import Node
from lazyfs.repository.view import Extent


def known(*nodes: Node, start: int = 100) -> list[KnownPaths]:
    return [KnownPaths(start + i, node, (node.path,)) for i, node in enumerate(nodes)]


def outcome(
    old: FakeRevision, new: FakeRevision, paths: Iterable[str]
) -> tuple[set[str], set[str], set[str]]:
    """Paths that are kept, that mean something else, and whose attributes changed."""
    items = known(*(old.nodes[path.encode()] for path in paths))
    changes = compare(old, new, items)
    names = {item.nodeid: item.node.path.decode() for item in items}
    return (
        {names[nodeid] for nodeid in changes.kept},
        {path.decode() for path in changes.entries},
        {names[nodeid] for nodeid in changes.attributes},
    )


OLD = FakeRevision(
    [
        directory("/d"),
        file("/d/same"),
        file("/d/other", b"old"),
        file("/d/gone"),
        symlink("/d/link", b"to"),
        directory("/e"),
        file("/e/f"),
    ]
)


def test_what_is_unchanged_is_kept() -> None:
    new = changed(OLD)
    kept, entries, attributes = outcome(OLD, new, ["", "/d", "/d/same", "/d/link"])
    assert kept == {"", "/d", "/d/same", "/d/link"}
    assert not entries
    assert not attributes


def test_kept_nodes_are_the_new_revisions() -> None:
    new = changed(OLD, file("/d/same", catalog=b"/d"))
    changes = compare(OLD, new, known(OLD.nodes[b"/d/same"]))
    assert changes.kept == {100: new.nodes[b"/d/same"]}


def test_changed_and_vanished_files_are_not_kept() -> None:
    new = changed(OLD, file("/d/other", b"new"), symlink("/d/link", b"away"), removed=["/d/gone"])
    kept, entries, _ = outcome(OLD, new, ["/d/same", "/d/other", "/d/gone", "/d/link"])
    assert kept == {"/d/same"}
    assert entries == {"/d/other", "/d/gone", "/d/link"}


def test_a_directory_is_kept_with_other_attributes() -> None:
    new = changed(OLD, directory("/d", mtime_ns=99))
    assert outcome(OLD, new, ["", "/d"]) == ({"", "/d"}, set(), {"/d"})


def test_the_root_is_always_kept() -> None:
    new = changed(OLD, directory("", nlink=99))
    assert outcome(OLD, new, [""]) == ({""}, set(), {""})


@pytest.mark.parametrize("path", ["/e", "/d/same", "/d/link"])
@pytest.mark.parametrize("make", [directory, file, lambda path: symlink(path, b"other")])
def test_changed_types_are_never_kept(path: str, make: type) -> None:
    node = make(path)
    if node.mode == OLD.nodes[path.encode()].mode and node.is_dir:
        return
    new = changed(OLD, node, removed=["/e/f"] if path == "/e" else [])
    if not node.is_dir and node.mode == OLD.nodes[path.encode()].mode and node.is_file:
        new = changed(OLD, file(path, b"other"))
    kept, entries, _ = outcome(OLD, new, [path])
    assert not kept
    assert entries == {path}


def test_below_a_directory_that_became_a_file_nothing_is_kept() -> None:
    new = changed(OLD, file("/e"), removed=["/e/f"])
    assert outcome(OLD, new, ["/e", "/e/f"])[1] == {"/e", "/e/f"}


def test_chunks_are_compared() -> None:
    node = file("/big", digest=None, size=2, chunked=True)
    old, same, other = (FakeRevision([node], number) for number in (1, 2, 3))
    for revision, content in ((old, b"a"), (same, b"a"), (other, b"b")):
        ref = ObjectRef(digest_of(content), size=2)
        revision.chunks[b"/big"] = (Extent(0, 2, ref),)
    assert outcome(old, same, ["/big"])[0] == {"/big"}
    assert outcome(old, other, ["/big"])[1] == {"/big"}


def test_attributes_are_compared() -> None:
    node = file("/a", has_xattrs=True)
    old, same, other = (FakeRevision([node], number) for number in (1, 2, 3))
    for revision, value in ((old, b"1"), (same, b"1"), (other, b"2")):
        revision.attributes[b"/a"] = {b"user.x": value}
    assert outcome(old, same, ["/a"])[0] == {"/a"}
    assert outcome(old, other, ["/a"])[1] == {"/a"}


def links(revision: FakeRevision, *paths: str) -> list[KnownPaths]:
    names = tuple(path.encode() for path in paths)
    return [KnownPaths(100, revision.nodes[names[0]], names)]


def test_hard_links_that_stay_together_are_kept() -> None:
    old = FakeRevision([hard_link("/x", 1), hard_link("/y", 1)])
    new = FakeRevision([hard_link("/x", 7), hard_link("/y", 7)], 2)
    assert set(compare(old, new, links(old, "/x", "/y")).kept) == {100}


@pytest.mark.parametrize(
    "nodes",
    [
        [hard_link("/x", 1), hard_link("/y", 2)],
        [hard_link("/x", 1)],
        [hard_link("/x", 1, nlink=3), hard_link("/y", 1, nlink=3)],
        [file("/x"), file("/y")],
        [hard_link("/x", 1), directory("/y")],
    ],
)
def test_hard_links_that_part_are_not_kept(nodes: list[Node]) -> None:
    old = FakeRevision([hard_link("/x", 1), hard_link("/y", 1)])
    changes = compare(old, FakeRevision(nodes, 2), links(old, "/x", "/y"))
    assert not changes.kept
    assert changes.entries == [b"/x", b"/y"]


def test_hidden_entries_are_found() -> None:
    nodes = [directory("/d"), *(file(f"/d/.h{i}", hidden=True) for i in range(LIST_FROM))]
    old = FakeRevision(nodes)
    kept, _, _ = outcome(old, changed(old), [node.path.decode() for node in nodes[1:]])
    assert len(kept) == LIST_FROM


def test_many_entries_of_a_directory_cost_one_question() -> None:
    nodes = [directory("/d"), *(file(f"/d/{i}") for i in range(100))]
    old = FakeRevision(nodes)
    new = changed(old)
    compare(old, new, known(*nodes[1:]))
    assert new.calls == [("children", b"/d")]


def test_a_few_entries_are_looked_up_singly() -> None:
    nodes = [directory("/d"), *(file(f"/d/{i}") for i in range(100))]
    old = FakeRevision(nodes)
    new = changed(old)
    compare(old, new, known(*nodes[1:4]))
    assert new.calls == [("lookup", node.path) for node in nodes[1:4]]


def test_a_catalog_that_both_revisions_share_is_not_looked_into() -> None:
    old = FakeRevision([directory("/n"), file("/n/a"), file("/b")])
    new = changed(old)
    old.catalogs[b"/n"] = new.catalogs[b"/n"] = digest_of(b"nested")
    changes = compare(old, new, known(*old.nodes.values()))
    assert ("lookup", b"/n/a") not in new.calls
    assert ("lookup", b"/n") in new.calls
    assert set(changes.kept) == {100, 101, 102, 103}


def test_a_catalog_that_moved_is_looked_into() -> None:
    old = FakeRevision([directory("/n"), file("/n/a")])
    new = changed(old)
    old.catalogs[b"/n"] = digest_of(b"nested")
    compare(old, new, known(old.nodes[b"/n/a"]))
    assert new.calls == [("lookup", b"/n/a")]


def test_a_revision_that_cannot_be_read_is_not_taken_over() -> None:
    new = changed(OLD)
    new.errors[b"/d/same"] = ObjectMissing("no server has the catalog")
    with pytest.raises(ObjectMissing):
        compare(OLD, new, known(OLD.nodes[b"/d/same"]))


def test_nothing_known_means_nothing_to_do() -> None:
    assert compare(OLD, changed(OLD), []) == Changes()


def test_the_same_node_elsewhere_in_the_catalogs_is_the_same() -> None:
    node = OLD.nodes[b"/d/same"]
    new = changed(OLD, node._replace(catalog=b"/d", hidden=True))
    assert outcome(OLD, new, ["/d/same"])[0] == {"/d/same"}
