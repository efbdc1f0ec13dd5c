from __future__ import annotations

import pytest
from support.fuse_fakes import FakeRevision, directory, file, hard_link

from lazyfs.fuse.identity import ROOT_ID, node_id
from lazyfs.fuse.lease import Lease, LiveRevision
from lazyfs.fuse.nodes import Known, NodeTable
from lazyfs.repository.node import Node


@pytest.fixture
def table() -> NodeTable:
    return NodeTable(directory(""))


@pytest.fixture
def idle() -> list[LiveRevision]:
    return []


@pytest.fixture
def old(idle: list[LiveRevision]) -> Lease:
    return Lease(FakeRevision([]), idle.append)


def told(table: NodeTable, node: Node) -> Known:
    """The kernel is told of a node."""
    known = table.remember(node)
    table.count(known)
    return known


def test_the_root_is_always_known(table: NodeTable) -> None:
    table.forget(ROOT_ID, 5)
    assert table.get(ROOT_ID) is table.root
    assert table.at(b"") is table.root


def test_a_node_is_known_until_it_is_forgotten_as_often_as_told(table: NodeTable) -> None:
    node = file("/a")
    known = told(table, node)
    assert told(table, node) is known
    assert table.get(known.nodeid) is table.at(b"/a") is known
    table.forget(known.nodeid, 1)
    assert table.at(b"/a") is known
    table.forget(known.nodeid, 1)
    assert table.get(known.nodeid) is None
    assert table.at(b"/a") is None
    assert len(table) == 1


def test_a_node_that_was_not_told_is_discarded(table: NodeTable) -> None:
    known = table.remember(file("/a"))
    table.discard(known)
    assert len(table) == 1


def test_discarding_spares_what_the_kernel_knows(table: NodeTable) -> None:
    known = told(table, file("/a"))
    table.discard(known)
    assert table.at(b"/a") is known


def test_a_number_that_nobody_has_may_be_forgotten(table: NodeTable) -> None:
    table.forget(4711, 1)


def test_numbers_that_meet_are_told_apart(
    table: NodeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lazyfs.fuse.nodes.node_id", lambda node: 1000)
    first, second = told(table, file("/a")), told(table, file("/b"))
    assert (first.nodeid, second.nodeid) == (1000, 1001)
    assert table.highest == 1001
    assert told(table, file("/a")) is first


def test_hard_links_share_one_entry(table: NodeTable) -> None:
    first, second = told(table, hard_link("/x", 1)), told(table, hard_link("/y", 1))
    assert first is second
    assert first.lookups == 2
    assert set(first.paths) == {b"/x", b"/y"}
    table.forget(first.nodeid, 2)
    assert table.at(b"/x") is table.at(b"/y") is None
    again = told(table, hard_link("/y", 1))
    assert again is not first
    assert again.nodeid == first.nodeid


def test_groups_of_different_files_do_not_share(table: NodeTable) -> None:
    first = told(table, hard_link("/x", 1, b"one"))
    second = told(table, hard_link("/y", 1, b"another"))
    assert first is not second
    assert first.nodeid != second.nodeid
    assert table.at(b"/y") is second


def test_what_is_kept_shows_the_new_revision(table: NodeTable, old: Lease) -> None:
    known = told(table, file("/a"))
    moved = known.node._replace(catalog=b"/nested")
    table.apply({ROOT_ID: directory("", nlink=7), known.nodeid: moved}, old)
    assert known.node is moved
    assert known.lease is None
    assert table.at(b"/a") is known
    assert table.root.node.nlink == 7


def test_a_changed_file_gets_another_number_and_the_old_one_lives_on(
    table: NodeTable, old: Lease, idle: list[LiveRevision]
) -> None:
    before = told(table, file("/a", b"old"))
    table.apply({ROOT_ID: directory("")}, old)
    old.release()
    after = told(table, file("/a", b"new"))
    assert after.nodeid != before.nodeid
    assert table.get(before.nodeid) is before
    assert table.at(b"/a") is after
    assert not idle
    table.forget(before.nodeid, 1)
    assert idle == [old.view]
    assert table.at(b"/a") is after


def test_a_directory_that_is_not_kept_must_be_looked_up_again(table: NodeTable, old: Lease) -> None:
    known = told(table, directory("/d"))
    table.apply({ROOT_ID: directory("")}, old)
    assert known.stale
    assert known.lease is None
    assert table.at(b"/d") is None
    assert told(table, directory("/d", nlink=5)) is known
    assert not known.stale
    assert known.node.nlink == 5


def test_a_directory_can_be_renewed(table: NodeTable, old: Lease) -> None:
    known = told(table, directory("/d"))
    table.apply({ROOT_ID: directory("")}, old)
    table.renew(known, directory("/d", nlink=9))
    assert table.at(b"/d") is known
    assert known.node.nlink == 9


def test_a_file_that_turns_out_to_be_unchanged_is_taken_back(
    table: NodeTable, old: Lease, idle: list[LiveRevision]
) -> None:
    known = told(table, file("/a"))
    table.apply({ROOT_ID: directory("")}, old)
    old.release()
    assert told(table, file("/a")) is known
    assert known.lease is None
    assert idle == [old.view]


@pytest.mark.parametrize("what", [{"chunked": True}, {"has_xattrs": True}])
def test_what_a_node_does_not_tell_is_not_taken_for_unchanged(
    table: NodeTable, old: Lease, what: dict[str, bool]
) -> None:
    node = file("/a", b"content", **what)
    known = told(table, node)
    table.apply({ROOT_ID: directory("")}, old)
    assert told(table, node._replace()) is not known


def test_a_file_becomes_a_directory_and_back(table: NodeTable, old: Lease) -> None:
    was_file = told(table, file("/a"))
    table.apply({ROOT_ID: directory("")}, old)
    as_directory = told(table, directory("/a"))
    assert as_directory.nodeid != was_file.nodeid
    table.apply({ROOT_ID: directory("")}, old)
    again = told(table, file("/a"))
    assert again is was_file
    assert as_directory.stale


def test_hard_links_stay_one_entry_through_a_revision(table: NodeTable, old: Lease) -> None:
    known = told(table, hard_link("/x", 1))
    told(table, hard_link("/y", 1))
    table.apply({ROOT_ID: directory(""), known.nodeid: hard_link("/x", 8)}, old)
    assert told(table, hard_link("/y", 8)) is known
    assert told(table, hard_link("/z", 8)) is known


def test_groups_that_were_merged_are_not_both_kept(table: NodeTable, old: Lease) -> None:
    first, second = told(table, hard_link("/x", 1)), told(table, hard_link("/y", 2))
    kept = {first.nodeid: hard_link("/x", 5), second.nodeid: hard_link("/y", 5)}
    table.apply({ROOT_ID: directory(""), **kept}, old)
    assert first.lease is None
    assert second.lease is old
    assert told(table, hard_link("/y", 5)) is first


def test_entries_of_an_old_listing_do_not_become_current(table: NodeTable, old: Lease) -> None:
    listed = file("/a", b"old")
    known = table.remember_old(listed, old)
    table.count(known)
    assert known.lease is old
    assert table.at(b"/a") is None
    assert told(table, file("/a", b"new")) is not known


def test_entries_of_an_old_listing_that_did_not_change_are_the_current_ones(
    table: NodeTable, old: Lease
) -> None:
    current = told(table, file("/a"))
    subdirectory = told(table, directory("/d"))
    assert table.remember_old(file("/a"), old) is current
    assert table.remember_old(directory("/d"), old) is subdirectory


def test_a_directory_of_an_old_listing_is_looked_up_before_use(
    table: NodeTable, old: Lease
) -> None:
    known = table.remember_old(directory("/gone"), old)
    assert known.stale
    assert known.nodeid == node_id(directory("/gone"))
    assert table.remember_old(directory("/gone"), old) is known


def test_only_entries_of_the_current_revision_are_compared(table: NodeTable, old: Lease) -> None:
    told(table, file("/a", b"old"))
    told(table, directory("/d"))
    table.apply({ROOT_ID: directory("")}, old)
    fresh = told(table, file("/a", b"new"))
    assert table.current() == [table.root, fresh]


def test_a_closed_revision_cannot_be_leased_again(old: Lease) -> None:
    old.release()
    with pytest.raises(RuntimeError, match="closed"):
        old.acquire()
