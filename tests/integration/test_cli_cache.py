from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.commands import invoke, invoke_ok, run_as_nobody
from support.publishing import PublishedRepository, make_repository

from lazyfs.cli.main import EXIT_USAGE
from lazyfs.errors import CacheError, ConfigError


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    tree = {"a": os.urandom(10_000), "b": os.urandom(20_000), "dir/c": os.urandom(2 << 20)}
    return make_repository(tmp_path_factory.mktemp("cache"), tree)


@pytest.fixture
def reading(repository: PublishedRepository, tmp_path: Path) -> list[str]:
    """Options that reading commands need."""
    return [
        *(str(repository.root), "/"),
        *("--pubkey", str(repository.pubkey), "--cache", str(tmp_path / "cache")),
    ]


def usage(cache: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads(
        invoke_ok("cache", "usage", "--json", "--cache", str(cache)).out
    )
    return found


def keys(cache: Path, *options: str) -> dict[str, int]:
    """Size by label of what is cached."""
    done = invoke_ok("cache", "list", "--json", "--cache", str(cache), *options)
    return {entry["key"]: entry["size"] for entry in json.loads(done.out)}


def test_pinning_fetches_and_keeps(reading: list[str], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert invoke_ok("cache", "pin", *reading).text == "3 objects\n"
    assert usage(cache)["pinned"] == 10_000 + 20_000 + (2 << 20)
    pinned = keys(cache, "--pinned")
    assert sorted(pinned.values()) == [10_000, 20_000, 2 << 20]
    invoke_ok("cache", "limit", "1", "--cache", str(cache))
    assert keys(cache, "--pinned") == pinned
    invoke_ok("cache", "unpin", *reading)
    assert keys(cache, "--pinned") == {}
    invoke_ok("cache", "limit", "1", "--cache", str(cache))
    assert usage(cache)["used"] <= 1 << 20


def test_listing_is_readable(reading: list[str], tmp_path: Path) -> None:
    invoke_ok("cache", "pin", *reading)
    lines = invoke_ok("cache", "list", "--cache", str(tmp_path / "cache")).text.splitlines()
    assert len([line for line in lines if " P " in line]) == 3
    assert "of 3.9 GiB" in invoke_ok("cache", "usage", "--cache", str(tmp_path / "cache")).text


def test_evicting_a_path(reading: list[str], tmp_path: Path) -> None:
    invoke_ok("cache", "pin", *reading)
    repo, _, *options = reading
    assert invoke_ok("cache", "evict", repo, "/dir", *options).text == "1 objects\n"
    assert 2 << 20 not in keys(tmp_path / "cache").values()


def test_the_limit_holds_for_later_processes(reading: list[str], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    invoke_ok("cache", "pin", *reading)
    invoke_ok("cache", "limit", "7", "--cache", str(cache))
    assert usage(cache)["limit"] == 7 << 20
    invoke_ok("cache", "limit", "-1", "--cache", str(cache))
    assert usage(cache)["limit"] is None
    assert invoke("cache", "limit", "0", "--cache", str(cache)).code == ConfigError.exit_code


def test_fsck_finds_damage_and_repairs_it(reading: list[str], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    invoke_ok("cache", "pin", *reading)
    key = max(keys(cache).items(), key=lambda item: item[1])[0]
    (path,) = (p for p in cache.rglob("*") if p.is_file() and p.stat().st_size == 2 << 20)
    with path.open("r+b") as file:
        file.write(b"damaged")
    found = invoke("cache", "fsck", "--cache", str(cache))
    assert found.code == CacheError.exit_code
    assert f"wrong: {key}: the checksum differs" in found.text
    repaired = invoke_ok("cache", "fsck", "--repair", "--json", "--cache", str(cache))
    assert [p["key"] for p in json.loads(repaired.out)["problems"]] == [key]
    assert invoke_ok("cache", "fsck", "--cache", str(cache)).code == 0
    repo, _, *options = reading
    assert len(invoke_ok("cat", repo, "/dir/c", *options).out) == 2 << 20


def test_wiping(reading: list[str], tmp_path: Path) -> None:
    invoke_ok("cache", "pin", *reading)
    done = invoke_ok("cache", "wipe", "--cache", str(tmp_path / "cache"))
    assert done.text.endswith(" objects dropped\n")
    assert usage(tmp_path / "cache")["objects"] == 0


@pytest.mark.parametrize("command", ["usage", "list", "fsck", "wipe"])
def test_without_a_cache(command: str, tmp_path: Path) -> None:
    done = invoke("cache", command, "--cache", str(tmp_path / "none"))
    assert done.code == CacheError.exit_code
    assert str(tmp_path / "none") in done.err
    assert not (tmp_path / "none").exists()


def test_a_folder_that_is_no_cache_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    assert invoke("cache", "wipe", "--cache", str(tmp_path)).code == CacheError.exit_code
    assert (tmp_path / "precious").read_text() == "mine"
    assert list(tmp_path.iterdir()) == [tmp_path / "precious"]


@pytest.mark.parametrize("megabytes", ["-2", "99999999999999999999", "many"])
def test_a_limit_that_is_none(megabytes: str, reading: list[str], tmp_path: Path) -> None:
    invoke_ok("cache", "pin", *reading)
    done = invoke("cache", "limit", megabytes, "--cache", str(tmp_path / "cache"))
    assert done.code == EXIT_USAGE
    assert usage(tmp_path / "cache")["limit"] == 4000 << 20


@pytest.mark.parametrize("command", ["ls", "usage"])
def test_the_cache_of_another_user(command: str, reading: list[str], tmp_path: Path) -> None:
    invoke_ok("cache", "pin", *reading)
    words = ["ls", *reading] if command == "ls" else ["cache", "usage", *reading[-2:]]
    Path(reading[0]).parent.chmod(0o755)
    Path(reading[0]).parents[1].chmod(0o755)
    done = run_as_nobody(*words, reach=tmp_path)
    assert done.returncode == CacheError.exit_code
    assert done.stderr == (
        f"lazyfs: cannot open or create the cache: Permission denied (path {tmp_path / 'cache'}):"
        " give a directory of your own with --cache\n"
    )
