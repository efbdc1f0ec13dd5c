from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.fuse_fakes import directory, file, symlink

from lazyfs.config.id_map import parse_id_map
from lazyfs.config.settings import MountSettings
from lazyfs.errors import ConfigError
from lazyfs.fuse.ownership import Ownership


def test_published_owners_are_shown_as_they_are() -> None:
    ownership = Ownership.from_settings(MountSettings())
    node = file("/a", uid=1234, gid=5678, mode=0o104755)
    assert ownership.owner(node) == (1234, 5678)
    assert ownership.mode(node) == 0o104755


def test_claiming_shows_the_mounting_user() -> None:
    ownership = Ownership.from_settings(MountSettings(claim_ownership=True))
    assert ownership.owner(file("/a", uid=1234)) == (os.getuid(), os.getgid())


def test_named_owners_win() -> None:
    ownership = Ownership.from_settings(MountSettings(claim_ownership=True, uid=7, gid=8))
    assert ownership.owner(file("/a", uid=1234)) == (7, 8)
    only_uid = Ownership.from_settings(MountSettings(uid=7))
    assert only_uid.owner(file("/a", uid=1, gid=2)) == (7, 2)


def test_ids_are_mapped(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("# who is who\n100 200\n* 65534 # all others\n\n")
    groups = tmp_path / "groups"
    groups.write_text("5 6\n")
    ownership = Ownership.from_settings(MountSettings(uid_map=users, gid_map=groups))
    assert ownership.owner(file("/a", uid=100, gid=5)) == (200, 6)
    assert ownership.owner(file("/a", uid=101, gid=7)) == (65534, 7)


@pytest.mark.parametrize("line", ["1", "1 2 3", "a b", "* x", "-1 2", "1 4294967295", "1_0 2"])
def test_a_line_that_is_no_mapping_is_refused_with_its_number(line: str) -> None:
    with pytest.raises(ConfigError, match="users:2"):
        parse_id_map(f"1 2\n{line}\n", "users")


def test_a_map_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        Ownership.from_settings(MountSettings(uid_map=tmp_path / "missing"))


def test_permission_bits_are_taken_away_but_not_from_links() -> None:
    ownership = Ownership.from_settings(MountSettings(umask=0o077))
    assert ownership.mode(file("/a", mode=0o100755)) == 0o100700
    assert ownership.mode(directory("/d")) == 0o040700
    assert ownership.mode(symlink("/l", b"x")) == 0o120777


def test_everything_can_be_made_readable() -> None:
    ownership = Ownership.from_settings(MountSettings(world_readable=True))
    assert ownership.mode(file("/a", mode=0o100600)) == 0o100644
    assert ownership.mode(directory("/d", mode=0o040700)) == 0o040755
