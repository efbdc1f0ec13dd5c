from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
import trio
import trio.testing
from support.fuse_fakes import FakeRevision, directory, file, hard_link
from support.waiting import until

from lazyfs.config.settings import MountSettings
from lazyfs.fuse.blocking import Workers
from lazyfs.fuse.filesystem import Filesystem
from lazyfs.fuse.nodes import Known
from lazyfs.fuse.tree import LiveTree
from lazyfs.fuse.trim import Trimmer

LIMIT = 40


class Bench:
    """A trimmer on fakes, and a kernel that forgets what it is told to, unless that is in use."""

    def __init__(self) -> None:
        nodes = [directory("/d"), *(file(f"/d/{number:03}") for number in range(200))]
        self.revision = FakeRevision([*nodes, hard_link("/d/x", 1), hard_link("/d/y", 1)])
        self.tree = LiveTree(
            self.revision, self.revision.nodes[b""], Workers(), 60.0, lambda _: None
        )
        self.dropped: list[tuple[int, bytes]] = []
        self.in_use: set[bytes] = set()
        self.open: set[int] = set()
        self.filesystem = SimpleNamespace(
            tree=self.tree,
            workers=Workers(),
            settings=MountSettings(known_nodes=LIMIT),
            kernel=self,
            device="",
            operations=SimpleNamespace(is_open=lambda nodeid: nodeid in self.open),
        )
        self.trimmer = Trimmer(cast("Filesystem", self.filesystem))

    def drop_entry(self, parent: int, name: bytes) -> None:
        self.dropped.append((parent, name))
        trio.from_thread.run_sync(self._forget, name)

    def drop_attributes(self, nodeid: int) -> None:
        raise AssertionError

    def _forget(self, name: bytes) -> None:
        known = self.tree.table.at(b"/d/" + name)
        if known is not None and name not in self.in_use:
            self.tree.table.forget(known.nodeid, 1)

    def know(self, *names: str) -> list[Known]:
        found = []
        for name in names:
            path = f"/d/{name}" if name else "/d"
            known = self.tree.table.remember(self.revision.nodes[path.encode()])
            self.tree.table.count(known)
            found.append(known)
        return found

    @property
    def names(self) -> list[bytes]:
        return [name for _, name in self.dropped]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def numbers(start: int, end: int) -> list[str]:
    return [f"{number:03}" for number in range(start, end)]


async def test_a_table_that_is_small_enough_is_left_alone(bench: Bench) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.trimmer.run)
        bench.know("", *numbers(0, LIMIT - 2))
        await trio.testing.wait_all_tasks_blocked()
        assert bench.dropped == []
        nursery.cancel_scope.cancel()


async def test_the_oldest_files_are_forgotten_when_there_are_too_many(bench: Bench) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.trimmer.run)
        (parent,) = bench.know("")
        for start in range(0, 200, 20):
            bench.know(*numbers(start, start + 20))
            await until(lambda: len(bench.tree.table) <= LIMIT)
        nursery.cancel_scope.cancel()
    assert {number for number, _ in bench.dropped} == {parent.nodeid}
    assert bench.tree.table.at(b"/d") is parent
    assert bench.tree.table.at(b"/d/199") is not None
    assert bench.tree.table.at(b"/d/000") is None


async def test_what_is_open_or_mounted_upon_is_spared(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, used, covered, *_ = bench.know("", *numbers(0, 2 * LIMIT))
    bench.open.add(used.nodeid)
    bench.filesystem.device = "0:99"
    monkeypatch.setattr("lazyfs.fuse.trim.find_mounted_upon", lambda device: {covered.node.path})
    await bench.trimmer.trim()
    assert b"002" in bench.names
    assert not {b"000", b"001"} & set(bench.names)


async def test_a_hard_link_is_forgotten_by_all_its_names(bench: Bench) -> None:
    bench.know("", "x", "y", *numbers(0, LIMIT))
    await bench.trimmer.trim()
    assert {b"x", b"y"} <= set(bench.names)


async def test_what_the_kernel_cannot_forget_is_not_asked_for_again_at_once(bench: Bench) -> None:
    bench.in_use = {name.encode() for name in numbers(0, 200)}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.trimmer.run)
        bench.know("", *numbers(0, LIMIT))
        await until(lambda: bench.dropped != [])
        await trio.testing.wait_all_tasks_blocked(0.05)
        asked = len(bench.dropped)
        bench.know(*numbers(LIMIT, LIMIT + 3))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(bench.dropped) == asked
        bench.know(*numbers(LIMIT + 3, LIMIT + 13))
        await until(lambda: len(bench.dropped) > asked)
        nursery.cancel_scope.cancel()
