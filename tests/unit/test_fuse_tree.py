from __future__ import annotations

import threading

import pytest
import trio
import trio.testing
from support.clock import FakeClock
from support.fuse_fakes import FakeRevision, changed, directory, file
from support.waiting import until

from lazyfs.errors import FormatError, NotADirectory, PathNotFound, Timeout
from lazyfs.fuse import tree as live_tree
from lazyfs.fuse.blocking import Workers
from lazyfs.fuse.errnos import Answer, Refusal
from lazyfs.fuse.lease import LiveRevision
from lazyfs.fuse.tree import NEVER, SINGLE_LOOKUPS, LiveTree
from lazyfs.repository.node import Node

D = directory("/d")
NODES = (D, *(file(f"/d/f{number}") for number in range(20)), file("/d/.hidden", hidden=True))


class Tree(LiveTree):
    """A tree on fakes."""

    def __init__(self, revision: FakeRevision) -> None:
        self.idle: list[LiveRevision] = []
        super().__init__(
            revision, revision.nodes[b""], Workers(), 60.0, self.idle.append, FakeClock()
        )
        self.fake = revision


@pytest.fixture
def tree() -> Tree:
    return Tree(FakeRevision(NODES))


async def test_entries_are_found_and_missing_ones_are_not(tree: Tree) -> None:
    found = await tree.find(b"/d/f1")
    assert found is not None
    assert found.path == b"/d/f1"
    assert await tree.find(b"/d/nothing") is None
    assert await tree.find(b"/nothing/at/all") is None


async def test_a_swarm_of_lookups_becomes_one_listing(tree: Tree) -> None:
    for number in range(20):
        assert await tree.find(b"/d/f%d" % number) is not None
    assert tree.fake.calls.count(("children", b"/d")) == 1
    assert len(tree.fake.calls) == SINGLE_LOOKUPS + 1


async def test_a_prepared_directory_knows_what_is_missing_and_what_is_hidden(tree: Tree) -> None:
    await tree.listing(b"/d")
    tree.fake.calls.clear()
    assert await tree.find(b"/d/nothing") is None
    assert await tree.find(b"/d/.hidden") is not None
    assert tree.fake.calls == []


async def test_hidden_entries_are_not_listed(tree: Tree) -> None:
    listing = await tree.listing(b"/d")
    assert len(listing.nodes) == 20


async def test_a_directory_with_a_bad_entry_is_still_looked_up_singly(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    def children(path: bytes) -> None:
        raise FormatError("a bad name", path=path)

    monkeypatch.setattr(tree.fake, "children", children)
    for number in range(10):
        assert await tree.find(b"/d/f%d" % number) is not None


async def test_a_directory_that_is_too_large_to_keep_is_listed_once(tree: Tree) -> None:
    tree.listings._limit = 10
    for _ in range(3):
        for number in range(10):
            assert await tree.find(b"/d/f%d" % number) is not None
    assert tree.fake.calls.count(("children", b"/d")) == 1
    assert tree._singles[b"/d"] < NEVER // 2


async def test_what_is_cached_is_answered_while_the_network_hangs() -> None:
    tree = Tree(FakeRevision(NODES))
    uncached = FakeRevision(NODES, cached=False)
    uncached.gate.clear()
    other = Tree(uncached)
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(other.find, b"/d/f%d" % (number % 20))
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5):
            assert await tree.find(b"/d/f1") is not None
        uncached.gate.set()
    asked = {question for question, _ in uncached.calls}
    assert asked == {"offline lookup", "offline children", "lookup", "children"}


async def test_failures_are_passed_on(tree: Tree) -> None:
    tree.fake.errors[b"/d/f1"] = Timeout("slow")
    with pytest.raises(Timeout):
        await tree.find(b"/d/f1")


async def test_listing_what_is_no_directory(tree: Tree) -> None:
    with pytest.raises(NotADirectory):
        await tree.listing(b"/d/f1")
    with pytest.raises(PathNotFound):
        await tree.listing(b"/nothing")


async def test_an_answer_of_the_old_revision_is_asked_again(tree: Tree) -> None:
    tree.fake.gate.clear()
    found: list[object] = []

    async def find() -> None:
        found.append(await tree.find(b"/d/f1"))

    new = changed(tree.fake, file("/d/f1", b"new"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(find)
        await trio.testing.wait_all_tasks_blocked()
        tree.apply(new, {1: new.nodes[b""]})
        assert not tree.idle, "the old revision is being asked"
        tree.fake.gate.set()
    assert found == [new.nodes[b"/d/f1"]]
    assert tree.idle == [tree.fake]


async def test_a_listing_of_the_old_revision_is_not_kept(tree: Tree) -> None:
    new = changed(tree.fake, removed=["/d/f1"])
    tree.fake.gate.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.listing, b"/d")
        await trio.testing.wait_all_tasks_blocked()
        tree.apply(new, {1: new.nodes[b""]})
        tree.fake.gate.set()
    listing = tree.listings.get(b"/d")
    assert listing is not None
    assert listing.find(b"/d/f1") is None


async def test_applying_forgets_what_was_prepared(tree: Tree) -> None:
    await tree.listing(b"/d")
    new = changed(tree.fake, removed=["/d/f1"])
    tree.draining = True
    tree.apply(new, {1: new.nodes[b""]})
    assert not tree.draining
    assert await tree.find(b"/d/f1") is None


async def test_a_stale_directory_is_looked_up_when_it_is_used(tree: Tree) -> None:
    known = tree.table.remember(D)
    tree.table.count(known)
    new = changed(tree.fake, directory("/d", nlink=9))
    tree.apply(new, {1: new.nodes[b""]})
    assert known.stale
    assert (await tree.settled(known.nodeid)).node.nlink == 9
    assert not known.stale


@pytest.mark.parametrize("replacement", [(), (file("/d"),)])
async def test_a_directory_that_is_no_more_is_stale(
    tree: Tree, replacement: tuple[Node, ...]
) -> None:
    known = tree.table.remember(D)
    tree.table.count(known)
    new = FakeRevision(replacement, 2)
    tree.apply(new, {1: new.nodes[b""]})
    with pytest.raises(Refusal) as caught:
        await tree.settled(known.nodeid)
    assert caught.value.answer is Answer.STALE


async def test_a_directory_that_comes_back_is_the_same_again(tree: Tree) -> None:
    known = tree.table.remember(D)
    tree.table.count(known)
    empty = FakeRevision([], 2)
    tree.apply(empty, {1: empty.nodes[b""]})
    back = FakeRevision(NODES, 3)
    tree.apply(back, {1: back.nodes[b""]})
    assert await tree.settled(known.nodeid) is known
    assert tree.table.at(b"/d") is known


def test_a_number_that_the_kernel_should_not_know(tree: Tree) -> None:
    with pytest.raises(Refusal) as caught:
        tree.known(4711)
    assert caught.value.answer is Answer.STALE


def test_nothing_may_be_remembered_while_a_revision_comes(tree: Tree) -> None:
    known = tree.table.remember(D)
    assert tree.timeout == tree.timeout_of(known) == 60.0
    tree.draining = True
    assert tree.timeout == tree.timeout_of(known) == 0.0


def test_what_is_superseded_may_not_be_remembered(tree: Tree) -> None:
    known = tree.table.remember(file("/d/f1"))
    tree.table.count(known)
    new = changed(tree.fake, file("/d/f1", b"new"))
    tree.apply(new, {1: new.nodes[b""]})
    assert tree.timeout == 60.0
    assert tree.timeout_of(known) == 0.0


async def test_cancelling_gives_the_revision_back(tree: Tree) -> None:
    tree.fake.gate = threading.Event()
    with trio.move_on_after(0.01):
        await tree.find(b"/d/f1")
    assert tree.lease.users == 1
    tree.fake.gate.set()


def folders(count: int) -> list[Node]:
    return [directory(f"/w{number}") for number in range(count)]


async def walk(tree: LiveTree, *numbers: int) -> None:
    """Open folders one after the other, as `Operations` does."""
    for number in numbers:
        await tree.listing(b"/w%d" % number)
        tree.look_ahead(b"/w%d" % number)
        await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_walk_finds_the_next_directory_read() -> None:
    tree = Tree(FakeRevision(folders(6)))
    await tree.listing(b"")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.run)
        await walk(tree, 0, 1)
        await until(lambda: tree.listings.get(b"/w2") is not None)
        assert tree.listings.get(b"/w3") is None
        await walk(tree, 2, 3, 4, 5)
        nursery.cancel_scope.cancel()
    asked = [path for question, path in tree.fake.calls if question == "children"]
    assert sorted(asked) == [b"", *(b"/w%d" % number for number in range(6))]


async def test_who_opens_here_and_there_causes_nothing() -> None:
    tree = Tree(FakeRevision(folders(9)))
    await tree.listing(b"")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.run)
        await walk(tree, 3, 5, 1, 7)
        nursery.cancel_scope.cancel()
    assert len([1 for question, _ in tree.fake.calls if question == "children"]) == 5


async def test_what_is_in_memory_is_read_in_passing(monkeypatch: pytest.MonkeyPatch) -> None:
    revision = FakeRevision(folders(3))
    tree = Tree(revision)
    await tree.listing(b"")
    revision.at_hand = True
    monkeypatch.setattr(live_tree, "run_blocking", None)  # no thread is asked
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.run)
        tree.look_ahead(b"/w0")
        await trio.testing.wait_all_tasks_blocked()
        assert tree.listings.get(b"/w1") is not None
        nursery.cancel_scope.cancel()


async def test_a_directory_that_is_being_read_ahead_is_waited_for() -> None:
    tree = Tree(FakeRevision(folders(3)))
    await tree.listing(b"")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.run)
        await walk(tree, 0)
        await tree.listing(b"/w1")
        tree.fake.gate.clear()
        tree.look_ahead(b"/w1")
        await until(lambda: tree.fake.calls[-1] == ("children", b"/w2"))
        async with trio.open_nursery() as readers:
            for _ in range(3):
                readers.start_soon(tree.listing, b"/w2")
            await trio.testing.wait_all_tasks_blocked()
            tree.fake.gate.set()
        nursery.cancel_scope.cancel()
    assert tree.fake.calls.count(("children", b"/w2")) == 1


async def test_no_server_is_asked_for_what_comes_next() -> None:
    revision = FakeRevision(folders(3), cached=False)
    tree = Tree(revision)
    await tree.listing(b"")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.run)
        await walk(tree, 0, 1)
        await until(lambda: ("offline children", b"/w2") in revision.calls)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert ("children", b"/w2") not in revision.calls
        assert (await tree.listing(b"/w2")).path == b"/w2"
        nursery.cancel_scope.cancel()
