from __future__ import annotations

import io
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from lazyfs.errors import ConfigError
from lazyfs.publish.owner_map import MappedSource, OwnerMap
from lazyfs.publish.source import Source, SourceEntry, SourceItem


def entry(name: bytes, uid: int, gid: int) -> SourceEntry:
    return SourceEntry(name, stat.S_IFREG | 0o4755, 3, 5, uid, gid, xattrs={b"user.a": b"b"})


class Entries:
    """A source of given items, which tells how many were asked for."""

    name = "entries"

    def __init__(self, *items: SourceItem) -> None:
        self._items = items
        self.given = 0

    def items(self) -> Iterator[SourceItem]:
        for item in self._items:
            self.given += 1
            yield item


def owners(mapped: Source) -> list[tuple[int, int]]:
    return [(item.entry.uid, item.entry.gid) for item in mapped.items()]


SOURCE = Entries(
    SourceItem(b"/a", entry(b"a", 0, 0)),
    SourceItem(b"/b", entry(b"b", 100, 5)),
    SourceItem(b"/c", entry(b"c", 101, 7)),
)


def test_owners_stay_unless_they_are_mapped() -> None:
    items = list(SOURCE.items())
    mapped = list(MappedSource(SOURCE, OwnerMap()).items())
    assert mapped == items
    assert all(new is old for new, old in zip(mapped, items, strict=True))
    assert OwnerMap().is_identity


def test_one_owner_for_all() -> None:
    fixed = OwnerMap.parse("7:8")
    assert owners(MappedSource(SOURCE, fixed)) == [(7, 8)] * 3
    assert not fixed.is_identity


def test_maps_of_users_and_groups(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("# root is nobody\n0 65534\n100 200\n")
    groups = tmp_path / "groups"
    groups.write_text("5 6\n* 1000\n")
    mapped = MappedSource(SOURCE, OwnerMap.read(users, groups))
    assert owners(mapped) == [(65534, 1000), (200, 6), (101, 1000)]
    assert owners(MappedSource(SOURCE, OwnerMap.read(gid_map=groups))) == [
        (0, 1000),
        (100, 6),
        (101, 1000),
    ]


def test_nothing_but_the_owner_changes() -> None:
    item = SourceItem(
        b"/x", entry(b"x", 1, 2), lambda: io.BytesIO(b"abc"), streamed=True, link=b"/a"
    )
    mapped = OwnerMap.fixed(3, 4).map_item(item)
    assert (mapped.path, mapped.open, mapped.streamed, mapped.link) == (
        item.path,
        item.open,
        True,
        b"/a",
    )
    assert mapped.entry == SourceEntry(
        b"x", stat.S_IFREG | 0o4755, 3, 5, 3, 4, xattrs={b"user.a": b"b"}
    )


def test_a_map_that_maps_every_id_to_itself_is_none() -> None:
    assert OwnerMap.read().is_identity
    assert not OwnerMap.fixed(0, 0).is_identity


def test_items_are_mapped_one_by_one() -> None:
    # The content of a streamed item is gone once the next is asked for.
    source = Entries(*SOURCE.items())
    items = MappedSource(source, OwnerMap.fixed(1, 1)).items()
    next(items)
    assert source.given == 1


def test_the_name_is_the_sources() -> None:
    assert MappedSource(SOURCE, OwnerMap()).name == "entries"


@pytest.mark.parametrize(
    "text", ["", "1", "1:", ":1", "a:b", "1:2:3", "-1:0", "0:4294967295", "1.5:2", "root:root"]
)
def test_what_is_no_owner_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        OwnerMap.parse(text)


def test_a_map_with_a_bad_line_is_refused_with_its_place(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("1 2\n1 nobody\n")
    with pytest.raises(ConfigError, match=r"users:2"):
        OwnerMap.read(users)


def test_a_map_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing"):
        OwnerMap.read(gid_map=tmp_path / "missing")
