from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest
import trio
import trio.testing
from support.clock import FakeClock
from support.fuse_fakes import FakeRevision, changed, directory, file
from support.waiting import until

from lazyfs.config.settings import MountSettings, RevisionChoice
from lazyfs.errors import ObjectMissing, SignatureError
from lazyfs.fuse.blocking import Workers
from lazyfs.fuse.filesystem import Filesystem
from lazyfs.fuse.lease import LiveRevision
from lazyfs.fuse.nodes import Known
from lazyfs.fuse.refresh import RETRY_SECONDS, Follower, RemountOutcome
from lazyfs.fuse.statistics import Statistics
from lazyfs.fuse.tree import LiveTree


class FakeRepository:
    """Offers revisions one after the other."""

    def __init__(self, current: FakeRevision) -> None:
        self.fqrn = "test.example.org"
        self.current = current
        self.offers: list[FakeRevision | Exception | None] = []
        self.offline_reason = ""
        self.choice = RevisionChoice()
        self.asked = 0

    @property
    def settings(self) -> SimpleNamespace:
        return SimpleNamespace(revision=self.choice)

    def refresh(self) -> FakeRevision | None:
        self.asked += 1
        offer = self.offers.pop(0) if self.offers else None
        if isinstance(offer, Exception):
            raise offer
        return offer

    def adopt(self, revision: FakeRevision) -> None:
        self.current = revision


@dataclass
class FakeKernel:
    """Remembers what it is told to forget."""

    entries: list[tuple[int, bytes]] = field(default_factory=list)
    attributes: list[int] = field(default_factory=list)
    watch: Callable[[], None] = lambda: None

    def drop_entry(self, parent: int, name: bytes) -> None:
        self.watch()
        self.entries.append((parent, name))

    def drop_attributes(self, nodeid: int) -> None:
        self.attributes.append(nodeid)


class Bench:
    """A follower on fakes."""

    def __init__(self, **settings: object) -> None:
        self.revision = FakeRevision([directory("/d"), file("/d/a", b"1"), file("/d/b")])
        self.repository = FakeRepository(self.revision)
        self.clock = FakeClock(1000.0)
        self.kernel = FakeKernel()
        self.idle: list[LiveRevision] = []
        self.tree = LiveTree(
            self.revision, self.revision.nodes[b""], Workers(), 60.0, self.idle.append
        )
        self.mount = MountSettings(**settings)  # type: ignore[arg-type]
        self.statistics = Statistics()

    def follower(self) -> Follower:
        tree = self.tree
        filesystem = SimpleNamespace(
            repository=self.repository,
            tree=tree,
            workers=Workers(),
            settings=self.mount,
            statistics=self.statistics,
            kernel=self.kernel,
        )
        # As the real one: always the revision that the tree shows.
        filesystem.revision = self.revision
        return Follower(cast("Filesystem", filesystem), self.clock)

    def know(self, *paths: str) -> list[Known]:
        found = []
        for path in paths:
            known = self.tree.table.remember(self.revision.nodes[path.encode()])
            self.tree.table.count(known)
            found.append(known)
        return found


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_up_to_date(bench: Bench) -> None:
    result = await bench.follower().remount()
    assert result.outcome is RemountOutcome.UP_TO_DATE
    assert str(result) == "up to date"


async def test_a_new_revision_is_applied(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "lazyfs")
    folder, changing, staying = bench.know("/d", "/d/a", "/d/b")
    bench.tree.negatives.note(folder.nodeid, b"c", 60)
    new = changed(bench.revision, directory("/d", mtime_ns=9), file("/d/a", b"2"), file("/d/c"))
    bench.repository.offers = [new]
    result = await bench.follower().remount()
    assert str(result) == "new revision applied"
    assert bench.tree.lease.view is bench.repository.current is new
    assert set(bench.kernel.entries) == {(folder.nodeid, b"a"), (folder.nodeid, b"c")}
    assert bench.kernel.attributes == [folder.nodeid]
    assert changing.lease is not None
    assert staying.lease is None
    assert bench.statistics.remounts == 1
    assert "switched to revision 2" in caplog.text


async def test_the_kernel_forgets_before_the_revision_appears(bench: Bench) -> None:
    bench.know("/d", "/d/a")
    seen: list[tuple[bool, object]] = []
    bench.kernel.watch = lambda: seen.append((bench.tree.draining, bench.tree.lease.view))
    bench.repository.offers = [changed(bench.revision, file("/d/a", b"2"))]
    await bench.follower().remount()
    assert seen == [(True, bench.revision)]
    assert not bench.tree.draining


async def test_what_is_looked_up_meanwhile_is_set_aside(bench: Bench) -> None:
    bench.know("/d")
    new = changed(bench.revision, file("/d/a", b"2"))
    new.gate.clear()
    bench.repository.offers = [new]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.follower().remount)
        await trio.testing.wait_all_tasks_blocked(0.05)
        (late,) = bench.know("/d/b")
        assert bench.tree.timeout_of(late) == 0
        new.gate.set()
    assert late.lease is not None
    again = bench.tree.table.remember(new.nodes[b"/d/b"])
    assert again is late
    assert late.lease is None


async def test_the_old_revision_is_closed_when_it_is_not_needed(bench: Bench) -> None:
    bench.know("/d", "/d/b")
    bench.repository.offers = [changed(bench.revision)]
    await bench.follower().remount()
    assert bench.idle == [bench.revision]


@pytest.mark.parametrize("error", [SignatureError("bad"), ObjectMissing("no server has it")])
async def test_a_refused_revision_changes_nothing(
    bench: Bench, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    bench.repository.offers = [error]
    follower = bench.follower()
    result = await follower.remount()
    assert result.outcome is RemountOutcome.FAILED
    assert str(error) in str(result)
    assert bench.tree.lease.view is bench.revision
    assert follower.expires_in() == min(RETRY_SECONDS, 240)
    (record,) = caplog.records
    assert "stays at revision 1" in record.getMessage()
    assert str(error) in record.getMessage()


async def test_a_revision_whose_catalogs_do_not_come_is_not_shown(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.know("/d", "/d/a")
    new = changed(bench.revision, file("/d/a", b"2"))
    new.errors[b"/d/a"] = ObjectMissing("no server has the catalog")
    bench.repository.offers = [new]
    result = await bench.follower().remount()
    assert result.outcome is RemountOutcome.FAILED
    assert bench.tree.lease.view is bench.repository.current is bench.revision
    assert new.closed
    assert not bench.tree.draining
    assert not bench.kernel.entries
    assert caplog.records


async def test_looking_again_after_a_failure_works(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    new = changed(bench.revision)
    bench.repository.offers = [ObjectMissing("gone"), new]
    follower = bench.follower()
    assert (await follower.remount()).outcome is RemountOutcome.FAILED
    assert (await follower.remount()).outcome is RemountOutcome.APPLIED
    assert follower.expires_in() == 240
    assert len(caplog.records) == 1


async def test_one_look_at_a_time(bench: Bench) -> None:
    new = changed(bench.revision)
    bench.repository.offers = [new]
    follower = bench.follower()
    outcomes = []

    async def remount() -> None:
        outcomes.append((await follower.remount()).outcome)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(remount)
    assert outcomes.count(RemountOutcome.APPLIED) == 1
    assert outcomes.count(RemountOutcome.UP_TO_DATE) == 4


# --- when --------------------------------------------------------------------------------------


def test_the_next_look_is_a_ttl_away(bench: Bench) -> None:
    follower = bench.follower()
    assert follower.expires_in() == 240
    bench.clock.advance(100)
    assert follower.expires_in() == 140
    bench.clock.advance(1000)
    assert follower.expires_in() == 0


def test_the_ttl_can_be_capped_and_the_cap_changed(bench: Bench) -> None:
    bench = Bench(max_ttl=60)
    follower = bench.follower()
    assert follower.expires_in() == 60
    follower.set_max_ttl(0)
    assert follower.expires_in() == 240
    follower.set_max_ttl(30)
    assert (follower.expires_in(), follower.max_ttl) == (30, 30)


def test_a_ttl_of_nothing_does_not_ask_all_the_time(bench: Bench) -> None:
    bench.revision.ttl = 0
    assert bench.follower().expires_in() == 1


def test_a_mount_made_offline_looks_again_soon(bench: Bench) -> None:
    bench.revision.ttl = 3600
    bench.repository.offline_reason = "no server answers"
    assert bench.follower().expires_in() == RETRY_SECONDS


@pytest.mark.parametrize("what", ["fixed", "no updates"])
async def test_a_mount_that_does_not_follow_never_looks(what: str) -> None:
    bench = Bench(auto_update=what == "fixed")
    if what == "fixed":
        bench.repository.choice = RevisionChoice(tag="t")
    follower = bench.follower()
    assert follower.expires_in() is None
    await follower.run()
    assert bench.repository.asked == 0


async def test_the_follower_looks_when_the_time_is_over(bench: Bench) -> None:
    new = changed(bench.revision)
    bench.repository.offers = [new]
    follower = bench.follower()
    bench.clock.advance(240)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follower.run)
        await until(lambda: bench.tree.lease.view is new)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert bench.repository.asked == 1
        nursery.cancel_scope.cancel()


async def test_a_shorter_cap_wakes_the_follower(bench: Bench) -> None:
    follower = bench.follower()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follower.run)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.repository.asked == 0
        follower.set_max_ttl(1)
        bench.clock.advance(5)
        await trio.testing.wait_all_tasks_blocked(0.01)
        follower.set_max_ttl(1)
        nursery.cancel_scope.cancel()
    assert follower.expires_in() == 1
