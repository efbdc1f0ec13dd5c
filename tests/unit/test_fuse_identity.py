from __future__ import annotations

import pytest
from support.fuse_fakes import digest_of, directory, file, hard_link, symlink

from lazyfs.fuse.identity import FIRST_ID, ID_MASK, ROOT_ID, directory_id, node_id
from lazyfs.repository.node import Node

BASE = file("/a/b", b"one")


def test_the_root_is_number_one() -> None:
    assert node_id(directory("")) == ROOT_ID
    assert directory_id(b"") == ROOT_ID


def test_numbers_are_in_range() -> None:
    numbers = {node_id(file(f"/f{i}", b"%d" % i)) for i in range(1000)}
    assert len(numbers) == 1000
    assert all(FIRST_ID <= number <= ID_MASK + FIRST_ID for number in numbers)


def test_a_number_is_the_same_in_every_process() -> None:
    assert node_id(directory("/usr")) == directory_id(b"/usr")
    assert node_id(file("/usr/x", b"")) == node_id(file("/usr/x", b""))
    # A change of this number changes every inode number of every mount: do it on purpose.
    assert directory_id(b"/usr") == 134113441973627


def test_a_directory_is_its_path() -> None:
    node = directory("/d")
    other = node._replace(mtime_ns=5, nlink=9, uid=7, mode=node.mode & ~0o77)
    assert node_id(other) == node_id(node)


@pytest.mark.parametrize(
    "changed",
    [
        BASE._replace(mode=0o100755),
        BASE._replace(size=4),
        BASE._replace(mtime_ns=2),
        BASE._replace(uid=1),
        BASE._replace(gid=1),
        BASE._replace(nlink=2),
        BASE._replace(digest=digest_of(b"two")),
        BASE._replace(path=b"/a/c"),
        BASE._replace(mode=0o040644, digest=None),
    ],
)
def test_anything_that_shows_makes_another_number(changed: Node) -> None:
    assert node_id(changed) != node_id(BASE)


def test_where_a_row_came_from_does_not_show() -> None:
    assert node_id(BASE._replace(catalog=b"/a")) == node_id(BASE)


def test_members_of_a_hard_link_group_have_one_number() -> None:
    assert node_id(hard_link("/x", 3)) == node_id(hard_link("/y", 3))
    assert node_id(hard_link("/x", 3)) != node_id(hard_link("/y", 4))
    assert node_id(hard_link("/x", 3)) != node_id(hard_link("/y", 3, catalog=b"/n"))


def test_links_differ_by_target() -> None:
    assert node_id(symlink("/l", b"a")) != node_id(symlink("/l", b"b"))
