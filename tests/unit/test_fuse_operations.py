from __future__ import annotations

import os

import pytest
import trio
import trio.testing
from support.fuse_fakes import (
    FakeRevision,
    FakeStore,
    changed,
    directory,
    file,
    hard_link,
    symlink,
)

from lazyfs.cas.store import ObjectRef
from lazyfs.errors import NotADirectory, ObjectMissing, Timeout
from lazyfs.fuse.blocking import Workers
from lazyfs.fuse.errnos import Answer, Refusal
from lazyfs.fuse.failures import FailureLog
from lazyfs.fuse.identity import ROOT_ID
from lazyfs.fuse.lease import LiveRevision
from lazyfs.fuse.operations import Operations
from lazyfs.fuse.statistics import Statistics
from lazyfs.fuse.tree import LiveTree
from lazyfs.repository.view import Extent

CONTENT = b"the content of a file"


class Bench:
    """Operations on fakes."""

    def __init__(self) -> None:
        self.store = FakeStore()
        digest = self.store.add(CONTENT)
        self.revision = FakeRevision(
            [
                directory("/d"),
                directory("/d/sub"),
                file("/d/f", CONTENT, digest=digest),
                file("/d/.hidden", CONTENT),
                symlink("/d/link", b"to/$(VAR)/x"),
                hard_link("/d/x", 1, CONTENT),
                hard_link("/d/y", 1, CONTENT),
                file("/empty", b""),
            ]
        )
        self.idle: list[LiveRevision] = []
        workers, self.statistics = Workers(), Statistics()
        self.tree = LiveTree(
            self.revision, self.revision.nodes[b""], workers, 60.0, self.idle.append
        )
        self.operations = Operations(
            self.tree,
            self.store,
            workers,
            FailureLog(self.statistics),
            self.statistics,
            ahead=4,
        )

    async def nodeid(self, path: str) -> int:
        """Walk to a path, as the kernel does."""
        at = ROOT_ID
        for name in path.encode().split(b"/")[1:]:
            known = await self.operations.lookup(at, name)
            assert known is not None, path
            at = known.nodeid
        return at

    def go_to(self, revision: FakeRevision) -> None:
        """Another revision comes, and nothing is known to be unchanged."""
        self.tree.apply(revision, {ROOT_ID: revision.nodes[b""]})

    async def names(self, handle: int, start: int = 0) -> list[bytes]:
        """What is left of a listing."""
        listed = self.operations.directory(handle)
        names = []
        for _, name, known in self.operations.entries(listed, start):
            self.tree.table.count(known)
            names.append(name)
        return names

    async def content(self, handle: int, offset: int = 0, size: int = 4096) -> bytes:
        return bytes(await self.operations.read(handle, offset, size))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def refusal(caught: pytest.ExceptionInfo[Refusal]) -> Answer:
    return caught.value.answer


# --- nodes -------------------------------------------------------------------------------------


async def test_lookup_counts_what_the_kernel_is_told(bench: Bench) -> None:
    known = await bench.operations.lookup(ROOT_ID, b"d")
    assert known is not None
    assert known.lookups == 1
    assert await bench.operations.lookup(ROOT_ID, b"d") is known
    assert known.lookups == 2
    bench.operations.forget([(known.nodeid, 2)])
    assert bench.tree.table.get(known.nodeid) is None


async def test_missing_names_are_remembered_if_the_kernel_does(bench: Bench) -> None:
    assert await bench.operations.lookup(ROOT_ID, b"nothing") is None
    assert bench.operations.may_cache_absence(ROOT_ID, b"nothing") == 60.0
    assert bench.tree.negatives.take() == [(ROOT_ID, b"nothing")]
    bench.tree.draining = True
    assert bench.operations.may_cache_absence(ROOT_ID, b"nothing") == 0.0
    assert bench.tree.negatives.take() == []


async def test_dot_and_dot_dot_are_looked_up(bench: Bench) -> None:
    sub = await bench.nodeid("/d/sub")
    here = await bench.operations.lookup(sub, b".")
    above = await bench.operations.lookup(sub, b"..")
    assert here is not None
    assert above is not None
    assert here.nodeid == sub
    assert above.node.path == b"/d"
    root = await bench.operations.lookup(ROOT_ID, b"..")
    assert root is bench.tree.table.root


async def test_a_name_that_is_too_long(bench: Bench) -> None:
    with pytest.raises(Refusal) as caught:
        await bench.operations.lookup(ROOT_ID, b"n" * 256)
    assert refusal(caught) is Answer.NAME_TOO_LONG


async def test_a_number_that_was_never_told(bench: Bench) -> None:
    for ask in (
        bench.operations.getattr(4711),
        bench.operations.lookup(4711, b"x"),
        bench.operations.open(4711, os.O_RDONLY),
        bench.operations.opendir(4711),
    ):
        with pytest.raises(Refusal) as caught:
            await ask
        assert refusal(caught) is Answer.STALE


async def test_links_are_expanded_and_as_long_as_that(bench: Bench) -> None:
    nodeid = await bench.nodeid("/d/link")
    assert bench.operations.readlink(nodeid) == b"to/value/x"
    assert bench.operations.shown_size(bench.tree.known(nodeid)) == len(b"to/value/x")
    with pytest.raises(Refusal) as caught:
        bench.operations.readlink(ROOT_ID)
    assert refusal(caught) is Answer.INVALID


async def test_hard_links_have_one_number(bench: Bench) -> None:
    assert await bench.nodeid("/d/x") == await bench.nodeid("/d/y")


# --- files -------------------------------------------------------------------------------------


async def test_a_file_is_fetched_when_it_is_read(bench: Bench) -> None:
    opened = await bench.operations.open(await bench.nodeid("/d/f"), os.O_RDONLY)
    assert bench.store.fetched == []
    assert not opened.direct_io
    assert await bench.content(opened.handle) == CONTENT
    assert await bench.content(opened.handle, 4, 7) == b"content"
    assert await bench.content(opened.handle, 1000) == b""
    assert bench.statistics.reads == 3
    assert bench.statistics.bytes_read == len(CONTENT) + 7


async def test_an_empty_file_needs_no_object(bench: Bench) -> None:
    opened = await bench.operations.open(await bench.nodeid("/empty"), os.O_RDONLY)
    assert await bench.content(opened.handle) == b""
    assert bench.store.peeked == []


@pytest.mark.parametrize(
    "flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND]
)
async def test_nothing_is_opened_for_writing(bench: Bench, flags: int) -> None:
    nodeid = await bench.nodeid("/d/f")
    with pytest.raises(Refusal) as caught:
        await bench.operations.open(nodeid, flags)
    assert refusal(caught) is Answer.READ_ONLY
    assert bench.statistics.open_files == 0


async def test_flags_that_write_nothing_by_themselves_are_accepted(bench: Bench) -> None:
    flags = os.O_RDONLY | os.O_APPEND | os.O_NOATIME
    opened = await bench.operations.open(await bench.nodeid("/d/f"), flags)
    assert await bench.content(opened.handle)


async def test_a_directory_is_no_file_and_a_file_no_directory(bench: Bench) -> None:
    with pytest.raises(Refusal) as caught:
        await bench.operations.open(ROOT_ID, os.O_RDONLY)
    assert refusal(caught) is Answer.IS_A_DIRECTORY
    with pytest.raises(Refusal) as caught:
        await bench.operations.opendir(await bench.nodeid("/d/f"))
    assert refusal(caught) is Answer.NOT_A_DIRECTORY


async def test_direct_io_is_passed_on(bench: Bench) -> None:
    bench.revision.nodes[b"/direct"] = file("/direct", CONTENT, direct_io=True)
    opened = await bench.operations.open(await bench.nodeid("/direct"), os.O_RDONLY)
    assert opened.direct_io


async def test_handles_are_counted_and_closed(bench: Bench) -> None:
    nodeid = await bench.nodeid("/d/f")
    first = await bench.operations.open(nodeid, os.O_RDONLY)
    second = await bench.operations.open(nodeid, os.O_RDONLY)
    assert bench.statistics.open_files == 2
    await bench.content(first.handle)
    bench.operations.release(first.handle)
    assert bench.statistics.open_files == 1
    with pytest.raises(Refusal) as caught:
        await bench.content(first.handle)
    assert refusal(caught) is Answer.BAD_HANDLE
    bench.operations.release(first.handle)
    bench.operations.close()
    assert bench.statistics.open_files == 0
    assert bench.store.open_handles == 0
    assert second.handle != first.handle


async def test_chunks_are_asked_for_once_while_a_file_is_open(bench: Bench) -> None:
    node = file("/big", digest=None, size=4, chunked=True)
    bench.revision.nodes[b"/big"] = node
    refs = [ObjectRef(bench.store.add(piece), size=2) for piece in (b"ab", b"cd")]
    bench.revision.chunks[b"/big"] = tuple(Extent(i * 2, 2, ref) for i, ref in enumerate(refs))
    nodeid = await bench.nodeid("/big")
    handles = [(await bench.operations.open(nodeid, os.O_RDONLY)).handle for _ in range(3)]
    assert [await bench.content(handle) for handle in handles] == [b"abcd"] * 3
    assert bench.revision.calls.count(("extents", b"/big")) == 1


# --- directories -------------------------------------------------------------------------------


async def test_a_listing_can_be_continued_anywhere(bench: Bench) -> None:
    handle = await bench.operations.opendir(await bench.nodeid("/d"))
    everything = [b"sub", b"f", b".hidden", b"link", b"x", b"y"]
    assert await bench.names(handle) == everything
    for start in range(2, 9):
        assert await bench.names(handle, start) == everything[start - 2 :]


async def test_entries_that_the_kernel_did_not_take_are_not_remembered(bench: Bench) -> None:
    handle = await bench.operations.opendir(await bench.nodeid("/d"))
    before = len(bench.tree.table)
    for _, _, known in bench.operations.entries(bench.operations.directory(handle), 0):
        bench.tree.table.discard(known)
    assert len(bench.tree.table) == before


async def test_names_of_hard_links_are_their_own(bench: Bench) -> None:
    handle = await bench.operations.opendir(await bench.nodeid("/d"))
    entries = {
        name: known
        for _, name, known in bench.operations.entries(bench.operations.directory(handle), 0)
    }
    assert entries[b"x"] is entries[b"y"]


async def test_directory_handles_are_counted_and_closed(bench: Bench) -> None:
    handle = await bench.operations.opendir(ROOT_ID)
    assert bench.statistics.open_directories == 1
    bench.operations.releasedir(handle)
    bench.operations.releasedir(handle)
    assert bench.statistics.open_directories == 0
    with pytest.raises(Refusal) as caught:
        bench.operations.directory(handle)
    assert refusal(caught) is Answer.BAD_HANDLE


# --- another revision --------------------------------------------------------------------------


async def test_an_open_file_keeps_its_bytes_and_a_new_one_has_the_new(bench: Bench) -> None:
    old_id = await bench.nodeid("/d/f")
    opened = await bench.operations.open(old_id, os.O_RDONLY)
    new_digest = bench.store.add(b"new")
    bench.go_to(changed(bench.revision, file("/d/f", b"new", digest=new_digest)))
    assert await bench.content(opened.handle) == CONTENT
    new_id = await bench.nodeid("/d/f")
    assert new_id != old_id
    new = await bench.operations.open(new_id, os.O_RDONLY)
    assert await bench.content(new.handle) == b"new"


async def test_an_old_number_goes_on_showing_the_old_file(bench: Bench) -> None:
    nodeid = await bench.nodeid("/d/f")
    bench.go_to(changed(bench.revision, removed=["/d/f"]))
    assert (await bench.operations.getattr(nodeid)).node.size == len(CONTENT)
    again = await bench.operations.open(nodeid, os.O_RDONLY)
    assert await bench.content(again.handle) == CONTENT
    assert not bench.idle
    bench.operations.forget([(nodeid, 1)])
    assert bench.idle == [bench.revision]


async def test_a_listing_goes_on_in_its_own_revision(bench: Bench) -> None:
    handle = await bench.operations.opendir(await bench.nodeid("/d"))
    bench.go_to(changed(bench.revision, file("/d/f", b"new"), file("/d/a"), removed=["/d/x"]))
    names = await bench.names(handle)
    assert names == [b"sub", b"f", b".hidden", b"link", b"x", b"y"]
    found = await bench.operations.lookup(await bench.nodeid("/d"), b"f")
    assert found is not None
    assert found.node.size == 3
    assert await bench.operations.lookup(await bench.nodeid("/d"), b"x") is None


async def test_the_old_revision_is_closed_when_nobody_needs_it(bench: Bench) -> None:
    handle = await bench.operations.opendir(ROOT_ID)
    bench.go_to(changed(bench.revision))
    assert not bench.idle
    bench.operations.releasedir(handle)
    assert bench.idle == [bench.revision]


async def test_below_a_directory_that_became_a_file_there_is_nothing(bench: Bench) -> None:
    nodeid = await bench.nodeid("/d")
    bench.go_to(FakeRevision([file("/d")], 2))
    assert await bench.operations.lookup(nodeid, b"f") is None
    with pytest.raises(Refusal) as caught:
        await bench.operations.getattr(nodeid)
    assert refusal(caught) is Answer.STALE


async def test_lookups_of_a_swarm_below_what_became_a_file(bench: Bench) -> None:
    nodeid = await bench.nodeid("/d")
    bench.go_to(FakeRevision([file("/d")], 2))
    for number in range(3):
        assert await bench.operations.lookup(nodeid, b"%d" % number) is None
    with pytest.raises(NotADirectory):
        await bench.operations.lookup(nodeid, b"4")


# --- failures ----------------------------------------------------------------------------------


async def test_a_failed_read_is_logged_once_with_its_path(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    opened = await bench.operations.open(await bench.nodeid("/d/f"), os.O_RDONLY)
    bench.store.error = ObjectMissing("no server has it", object="abc", url="http://s/data/abc")
    for _ in range(3):
        with pytest.raises(ObjectMissing) as caught:
            await bench.content(opened.handle)
        assert bench.operations.refuse_read(opened.handle, caught.value) == 5
    (record,) = caplog.records
    for part in ("EIO on /d/f", "abc", "http://s/data/abc"):
        assert part in record.getMessage()
    bench.store.error = None
    assert await bench.content(opened.handle) == CONTENT


async def test_an_ordinary_answer_is_no_failure(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    assert bench.operations.refuse("lookup", ROOT_ID, Refusal(Answer.STALE)) == 116
    assert bench.operations.refuse_read(7, Refusal(Answer.BAD_HANDLE)) == 9
    assert not caplog.records
    assert bench.statistics.errors == 0


async def test_a_catalog_that_cannot_be_loaded_is_an_error_not_an_absence(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.revision.errors[b"/d/f"] = Timeout("the catalog does not come", object="catalog")
    with pytest.raises(Timeout) as caught:
        await bench.nodeid("/d/f")
    assert bench.operations.refuse("lookup", await bench.nodeid("/d"), caught.value) == 5
    assert "EIO on /d (lookup)" in caplog.records[0].getMessage()


async def test_readers_that_wait_for_the_network_do_not_stop_others(bench: Bench) -> None:
    cached = bench.store.add(b"cached", cached=True)
    bench.revision.nodes[b"/cached"] = file("/cached", b"cached", digest=cached)
    paths = [f"/slow{number}" for number in range(100)]
    for path in paths:
        content = path.encode()
        digest = bench.store.add(content)
        bench.revision.nodes[path.encode()] = file(path, content, digest=digest)
    slow = [await bench.operations.open(await bench.nodeid(p), os.O_RDONLY) for p in paths]
    bench.store.gate.clear()
    async with trio.open_nursery() as nursery:
        for opened in slow:
            nursery.start_soon(bench.content, opened.handle)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5):
            opened = await bench.operations.open(await bench.nodeid("/cached"), os.O_RDONLY)
            assert await bench.content(opened.handle) == b"cached"
            assert await bench.names(await bench.operations.opendir(ROOT_ID))
        bench.store.gate.set()
