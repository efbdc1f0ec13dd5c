from __future__ import annotations

import os
from pathlib import Path

import pytest

from lazyfs.errors import ConfigError
from lazyfs.fuse.options import parse_options


def test_options_become_parameters() -> None:
    found = parse_options("allow_other,tag=v1,uid=5,CVMFS_QUOTA_LIMIT=9,no_claim_ownership")
    assert found.overrides == {
        "LAZYFS_ALLOW_OTHER": "yes",
        "CVMFS_REPOSITORY_TAG": "v1",
        "LAZYFS_UID": "5",
        "CVMFS_QUOTA_LIMIT": "9",
        "CVMFS_CLAIM_OWNERSHIP": "no",
    }
    assert found.kernel == frozenset()


def test_the_last_of_a_kind_counts() -> None:
    assert parse_options("tag=a,tag=b").overrides == {"CVMFS_REPOSITORY_TAG": "b"}
    assert parse_options("suid,nosuid").overrides == {"CVMFS_SUID": "no"}


def test_names_of_users_and_groups_become_numbers() -> None:
    assert parse_options("uid=root,gid=root").overrides == {"LAZYFS_UID": "0", "LAZYFS_GID": "0"}
    with pytest.raises(ConfigError, match="uid=nobody-at-all"):
        parse_options("uid=nobody-at-all")


def test_commas_in_values() -> None:
    assert parse_options(r"proxy=a\,b,tag=x").overrides["CVMFS_HTTP_PROXY"] == "a,b"
    assert parse_options('proxy="a,b|c",tag=x').overrides["CVMFS_HTTP_PROXY"] == "a,b|c"


def test_what_the_kernel_and_fstab_want() -> None:
    text = "rw,ro,_netdev,noauto,x-systemd.automount,X-mine=1,noexec,fsname=data,nofail"
    found = parse_options(text)
    assert found.kernel == {"noexec", "fsname=data"}
    assert found.overrides == {}


def test_files() -> None:
    found = parse_options("config=/a:b,log=c")
    assert found.config == (Path("/a"), Path(os.getcwd()) / "b")  # noqa: PTH109
    assert found.log == Path.cwd() / "c"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "unknown mount option 'nonsense'"),
        ("nonsense=1", "unknown mount option 'nonsense=1'"),
        ("tag", "tag needs a value"),
        ("config=", "config needs a value"),
        ("remount", "cannot be changed"),
        ('tag="open', "cannot be read"),
        ("CVMFS_lower=1", "unknown"),
    ],
)
def test_what_cannot_be_used(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_options(text)


def test_sloppy_passes_over_what_is_unknown_alone() -> None:
    assert parse_options("nonsense,tag=a", sloppy=True).overrides == {"CVMFS_REPOSITORY_TAG": "a"}
    with pytest.raises(ConfigError):
        parse_options("remount", sloppy=True)
