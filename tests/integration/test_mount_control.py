"""Every control command, through the command line, on a real mount."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import Done, invoke, invoke_ok
from support.faulty_server import FaultyServer
from support.mounts import RunningMount, mounted
from support.publishing import PublishedRepository, make_repository

import lazyfs
from lazyfs.errors import ControlError, NotMounted

BIG = os.urandom(3 << 20)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    tree = {"file": b"content", "big": BIG, "sub/.cvmfscatalog": b"", "sub/file": b"below"}
    return make_repository(tmp_path_factory.mktemp("control"), tree)


@pytest.fixture(scope="module")
def server(repository: PublishedRepository) -> Iterator[FaultyServer]:
    with FaultyServer(repository.served) as server:
        yield server


@pytest.fixture(scope="module")
def mount(repository: PublishedRepository, server: FaultyServer) -> Iterator[RunningMount]:
    url = f"{server.url}/{repository.fqrn}"
    other = url.replace("127.0.0.1", "localhost")
    arguments = ("--server", f"{url};{other}", "--set", f"CVMFS_EXTERNAL_URL={url}")
    with mounted(url, *arguments, pubkey=repository.pubkey, expect=["switch"]) as mount:
        yield mount


def ctl(mount: RunningMount, *words: str) -> Any:
    return json.loads(invoke_ok("ctl", "--json", str(mount.path), *words).out)


def text(mount: RunningMount, *words: str) -> str:
    return invoke_ok("ctl", str(mount.path), *words).text


def refused(mount: RunningMount, *words: str) -> Done:
    done = invoke("ctl", str(mount.path), *words)
    assert done.code != 0
    assert done.err.count("\n") == 1
    return done


def test_status(mount: RunningMount, repository: PublishedRepository) -> None:
    assert (mount.path / "file").read_bytes() == b"content"
    status = ctl(mount, "status")
    assert status["fqrn"] == repository.fqrn
    assert status["mountpoint"] == str(mount.path)
    assert status["pid"] == mount.pid
    assert status["revision"] == 1
    assert status["root_hash"] == str(repository.result.root_hash)
    assert status["cache_directory"] == str(mount.cache)
    assert 0 < status["cache_used"] < status["cache_limit"]
    assert status["bytes_received"] > 0
    assert status["io_errors"] == 0
    assert 0 < status["expires_in"] <= 240
    assert f"mountpoint: {mount.path}\n" in text(mount, "status")


def test_single_facts(mount: RunningMount) -> None:
    assert text(mount, "pid") == f"{mount.pid}\n"
    assert text(mount, "version") == f"{lazyfs.__version__}\n"
    assert text(mount, "mountpoint") == f"{mount.path}\n"
    assert text(mount, "revision") == "1\n"


def test_a_mount_is_found_by_name_too(mount: RunningMount, repository: PublishedRepository) -> None:
    assert invoke_ok("ctl", repository.fqrn, "pid").text == f"{mount.pid}\n"


def test_what_is_not_mounted(tmp_path: Path) -> None:
    assert invoke("ctl", str(tmp_path), "status").code == NotMounted.exit_code
    assert invoke("ctl", "other.example.org", "status").code == NotMounted.exit_code


def test_remounting_without_a_new_revision(mount: RunningMount) -> None:
    assert text(mount, "remount") == "up to date\n"


def test_pinning_one_file(mount: RunningMount) -> None:
    assert text(mount, "cache", "pin", "/big") == "OK, 1 objects\n"
    assert ctl(mount, "cache", "size")["pinned"] == len(BIG)
    assert len(ctl(mount, "cache", "list", "pinned")) == 1
    assert ctl(mount, "cache", "unpin", "/big") == 1
    assert ctl(mount, "cache", "list", "pinned") == []
    assert "no such file" in refused(mount, "cache", "pin", "/nothing").err
    assert "not a regular file" in refused(mount, "cache", "pin", "/sub").err


def test_evicting_one_file(mount: RunningMount) -> None:
    ctl(mount, "cache", "pin", "/sub/file")
    ctl(mount, "cache", "unpin", "/sub/file")
    before = ctl(mount, "cache", "size")["objects"]
    assert ctl(mount, "cache", "evict", "/sub/file") == 1
    assert ctl(mount, "cache", "size")["objects"] == before - 1


def test_catalogs(mount: RunningMount) -> None:
    assert (mount.path / "sub" / "file").read_bytes() == b"below"
    assert ctl(mount, "open-catalogs") == ["/", "/sub"]
    assert text(mount, "open-catalogs") == "-> /\n    -> /sub\n"
    assert len(ctl(mount, "cache", "list", "catalogs")) == 2
    assert text(mount, "detach-catalogs") == "OK\n"
    assert ctl(mount, "open-catalogs") == ["/"]
    assert (mount.path / "sub" / "file").read_bytes() == b"below"


def test_quota(mount: RunningMount) -> None:
    assert text(mount, "cache", "limit") == "4000\n"
    assert text(mount, "cache", "limit", "set", "500") == "500\n"
    assert ctl(mount, "cache", "size")["limit"] == 500 << 20
    assert text(mount, "cache", "limit", "set", "-1") == "unlimited\n"
    assert text(mount, "cache", "limit", "set", "4000") == "4000\n"
    assert "Limit: 3.9 GiB" in text(mount, "cache", "size")


def test_cleaning_up(mount: RunningMount) -> None:
    assert (mount.path / "big").read_bytes() == BIG
    ctl(mount, "cache", "pin", "/big")
    ctl(mount, "cache", "unpin", "/big")
    assert text(mount, "cache", "cleanup", "0").startswith("freed ")
    assert (mount.path / "big").read_bytes() == BIG
    assert ctl(mount, "status")["io_errors"] == 0


def test_hosts(mount: RunningMount, server: FaultyServer) -> None:
    first, second = ctl(mount, "hosts")
    assert first["active"]
    assert not second["active"]
    assert f"Active host 0: {first['url']}" in text(mount, "hosts", "info")
    switched = ctl(mount, "hosts", "switch")
    assert [host["active"] for host in switched] == [False, True]
    probed = ctl(mount, "hosts", "probe")
    assert all(host["rtt_ms"] >= 0 for host in probed)
    assert "no server gave" in refused(mount, "hosts", "geo").err
    url = first["url"]
    assert [host["url"] for host in ctl(mount, "hosts", "set", url)] == [url]
    assert ctl(mount, "remount") == "up to date"
    assert len(ctl(mount, "external-hosts")) == 1


def test_proxies(mount: RunningMount) -> None:
    assert "Active proxy: [0] DIRECT" in text(mount, "proxies")
    changed = ctl(mount, "proxies", "set", "http://127.0.0.1:9;DIRECT", "http://127.0.0.1:10")
    # With a fallback DIRECT no longer stands for one, as upstream.
    assert changed["groups"] == [["http://127.0.0.1:9"], ["http://127.0.0.1:10"]]
    assert changed["first_fallback_group"] == 1
    assert ctl(mount, "proxies", "switch")["current_group"] == 1
    assert ctl(mount, "proxies", "rebalance")["current_group"] in (0, 1)
    assert ctl(mount, "proxies", "set", "DIRECT")["groups"] == [["DIRECT"]]
    assert ctl(mount, "external-proxies")["current"] == "DIRECT"


def test_timeouts(mount: RunningMount) -> None:
    assert "Timeout without proxy: 10s" in text(mount, "timeouts")
    assert ctl(mount, "timeouts", "set", "3", "4.5") == {"proxy": 3, "direct": 4.5}
    assert "seconds" in refused(mount, "timeouts", "set", "soon", "5").err


def test_the_longest_ttl(mount: RunningMount) -> None:
    assert text(mount, "max-ttl") == "unset\n"
    assert text(mount, "max-ttl", "set", "2") == "2 minutes\n"
    assert ctl(mount, "status")["expires_in"] <= 120
    assert text(mount, "max-ttl", "set", "0") == "unset\n"


def test_parameters_and_counters(mount: RunningMount, repository: PublishedRepository) -> None:
    parameters = ctl(mount, "parameters")
    assert parameters["CVMFS_PUBLIC_KEY"] == {
        "value": str(repository.pubkey),
        "from": "command line",
    }
    assert "CVMFS_KCACHE_TIMEOUT=60    # from default" in text(mount, "parameters")
    counters = ctl(mount, "counters")
    assert counters["store"]["misses"] > 0
    assert counters["network"]["requests"] > 0
    assert "store:\n" in text(mount, "counters")


def test_error_counters(mount: RunningMount) -> None:
    assert text(mount, "reset-error-counters") == "OK\n"
    assert ctl(mount, "counters")["mount"]["errors"] == 0


def test_log_and_stacks(mount: RunningMount) -> None:
    assert "mounted" in text(mount, "log")
    assert "lazyfs" in text(mount, "stacks")


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("cache", "nonsense"),
        ("cache", "limit", "set", "much"),
        ("cache", "cleanup", "-1"),
        ("hosts", "nonsense"),
        ("proxies", "nonsense"),
        ("timeouts", "nonsense"),
        ("max-ttl", "set", "x"),
        ("pid", "more"),
        ("status", "more"),
    ],
    ids=" ".join,
)
def test_what_is_no_command(mount: RunningMount, words: tuple[str, ...]) -> None:
    done = refused(mount, *words)
    assert done.code == ControlError.exit_code


def test_mounts_are_listed(mount: RunningMount, repository: PublishedRepository) -> None:
    reports = json.loads(invoke_ok("mounts", "--json").out)
    (own,) = (report for report in reports if report["pid"] == mount.pid)
    assert own["fqrn"] == repository.fqrn
    assert own["mountpoint"] == str(mount.path)
    assert own["revision"] == 1
    assert f"{repository.fqrn} on {mount.path}" in invoke_ok("mounts").text
