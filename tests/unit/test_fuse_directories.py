from __future__ import annotations

from support.fuse_fakes import FakeRevision, directory, file

from lazyfs.fuse.directories import Listing, Listings, OpenDirectory
from lazyfs.fuse.identity import ROOT_ID, directory_id
from lazyfs.fuse.lease import Lease, LiveRevision


def listing(path: str, count: int) -> Listing:
    return Listing(path.encode(), [file(f"{path}/f{i}") for i in range(count)])


def test_hidden_entries_are_found_but_not_listed() -> None:
    shown, hidden = file("/d/a"), file("/d/.h", hidden=True)
    found = Listing(b"/d", [shown, hidden])
    assert list(found.nodes) == [shown]
    assert found.find(b"/d/.h") is hidden
    assert found.find(b"/d/a") is shown
    assert found.find(b"/d/b") is None
    assert len(found) == 2


def test_the_listings_used_longest_ago_go_first() -> None:
    listings = Listings(limit=10)
    first, second, third = listing("/a", 4), listing("/b", 4), listing("/c", 4)
    assert listings.put(first)
    assert listings.put(second)
    assert listings.get(b"/a") is first
    assert listings.put(third)
    assert listings.get(b"/b") is None
    assert listings.get(b"/a") is first
    assert listings.get(b"/c") is third


def test_a_listing_that_is_too_large_is_not_kept_and_displaces_nothing() -> None:
    listings = Listings(limit=10)
    small = listing("/a", 4)
    listings.put(small)
    assert not listings.put(listing("/b", 11))
    assert listings.get(b"/b") is None
    assert listings.get(b"/a") is small


def test_replacing_a_listing_counts_it_once() -> None:
    listings = Listings(limit=10)
    for _ in range(5):
        assert listings.put(listing("/a", 6))
    assert listings.put(listing("/b", 4))
    assert listings.get(b"/a") is not None


def test_clearing_forgets_all() -> None:
    listings = Listings(limit=10)
    listings.put(listing("/a", 10))
    listings.clear()
    assert listings.get(b"/a") is None
    assert listings.put(listing("/b", 10))


def positions(handle: OpenDirectory, start: int) -> list[tuple[int, bytes]]:
    dots = [(position, name) for position, name, _ in handle.dots(start)]
    return dots + [(position, node.name) for position, node in handle.nodes(start)]


def test_positions_count_the_dots_first() -> None:
    lease = Lease(FakeRevision([directory("/d")]), lambda view: None)
    handle = OpenDirectory(7, listing("/d", 2), lease)
    everything = [(1, b"."), (2, b".."), (3, b"f0"), (4, b"f1")]
    for start in range(5):
        assert positions(handle, start) == everything[start:]
    assert [nodeid for _, _, nodeid in handle.dots(0)] == [7, ROOT_ID]


def test_the_root_has_no_parent_entry() -> None:
    lease = Lease(FakeRevision([]), lambda view: None)
    handle = OpenDirectory(ROOT_ID, listing("", 1), lease)
    assert positions(handle, 0) == [(1, b"."), (2, b"f0")]
    assert positions(handle, 1) == [(2, b"f0")]


def test_the_parent_entry_has_the_parents_number() -> None:
    lease = Lease(FakeRevision([]), lambda view: None)
    handle = OpenDirectory(7, listing("/a/b", 0), lease)
    assert [nodeid for _, _, nodeid in handle.dots(1)] == [directory_id(b"/a")]


def test_an_open_directory_keeps_its_revision() -> None:
    idle: list[LiveRevision] = []
    lease = Lease(FakeRevision([]), idle.append)
    handle = OpenDirectory(7, listing("/a", 1), lease)
    lease.release()
    assert not idle
    handle.close()
    assert idle == [lease.view]


def test_a_walk_goes_on_the_way_it_goes() -> None:
    names = [directory("/d/a"), file("/d/b"), directory("/d/c"), directory("/d/.h", hidden=True)]
    found = Listing(b"/d", [*names, directory("/d/e")])
    assert found.next_directories(b"/d/c", b"/d/a", 2) == [b"/d/e"]
    assert found.next_directories(b"/d/c", b"/d/e", 2) == [b"/d/a"]
    assert found.next_directories(b"/d/e", b"/d/c", 2) == []
    assert found.next_directories(b"/d/e", b"/d/a", 2) == []
    assert found.next_directories(b"/d/a", b"/d/a", 2) == []
    assert found.next_directories(b"/d/a", None, 2) == [b"/d/c", b"/d/e"]
    assert found.next_directories(b"/d/e", None, 1) == [b"/d/c"]
    assert found.next_directories(b"/d/c", None, 2) == []
    assert found.next_directories(b"/d/.h", b"/d/c", 2) == []
