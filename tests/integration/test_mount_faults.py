from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import faults
from support.commands import run
from support.faults import Fault
from support.faulty_server import FaultyServer
from support.mounts import RunningMount, mounted
from support.publishing import PublishedRepository, make_repository

from lazyfs.errors import AllMirrorsFailed
from lazyfs.publish.cutter import ChunkSizes

DEADLINE = 4.0
"""Of a fetch; the tests' own settings."""
MARGIN = 6.0
"""For a loaded machine."""

SETTINGS = (
    *("--set", f"LAZYFS_FETCH_DEADLINE={DEADLINE:g}"),
    *("--set", "CVMFS_TIMEOUT_DIRECT=1"),
    *("--set", "CVMFS_BACKOFF_INIT=0.1"),
    *("--set", "CVMFS_BACKOFF_MAX=0.2"),
    *("--set", "CVMFS_LOW_SPEED_LIMIT=1000"),
)

FILE = os.urandom(100_000)
BIG = os.urandom(400_000)
SIZES = ChunkSizes(minimum=32 << 10, average=64 << 10, maximum=128 << 10)


@pytest.fixture
def repository(tmp_path: Path) -> PublishedRepository:
    tree = {"file": FILE, "big": BIG, "read": b"before", "sub/.cvmfscatalog": b"", "sub/file": b"s"}
    return make_repository(tmp_path, tree, sizes=SIZES)


@pytest.fixture
def server(repository: PublishedRepository) -> Iterator[FaultyServer]:
    with FaultyServer(repository.served) as server:
        yield server


def errno_of(action: Callable[[], object]) -> tuple[int, float]:
    """The errno that it fails with, and the seconds that took; errno 0: it did not fail."""
    start = time.monotonic()
    try:
        action()
    except OSError as exc:
        return exc.errno or -1, time.monotonic() - start
    return 0, time.monotonic() - start


FAULTS: dict[str, Fault] = {
    "truncated": faults.truncate(1000),
    "empty": faults.truncate(0),
    "over-long": faults.replace(os.urandom(500_000)),
    "garbage": faults.garbage(),
    "flipped": faults.corrupt(),
    "bomb": faults.replace(b"\x78\x9c" + b"\0" * 1000),
    "missing": faults.status(404),
    "forbidden": faults.status(403),
    "broken": faults.status(500),
    "redirected": faults.redirect("http://127.0.0.1:9/elsewhere"),
    "redirected for ever": faults.redirect_flood("http://127.0.0.1:9/elsewhere"),
    "stalls": faults.stall(),
    "stalls in the body": faults.stall_body(1000),
    "drips": faults.drip(0.05),
    "drips headers": faults.drip_headers(0.05),
    "cut": faults.cut(1000),
    "reset": faults.reset(),
    "lies long": faults.wrong_length(10),
    "lies short": faults.wrong_length(-10),
    "endless": faults.endless(),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_bad_answer_is_an_error_with_one_line_and_no_harm(
    fault: Fault, repository: PublishedRepository, server: FaultyServer, tmp_path: Path
) -> None:
    url = f"{server.url}/{repository.fqrn}"
    with mounted(
        url, *SETTINGS, pubkey=repository.pubkey, cache=tmp_path / "cache", expect=[".*"]
    ) as mount:
        assert (mount.path / "read").read_bytes() == b"before"
        server.fault("*/data/*", fault)
        number, seconds = errno_of((mount.path / "file").read_bytes)
        assert number == errno.EIO
        assert seconds < DEADLINE + MARGIN
        assert (mount.path / "read").read_bytes() == b"before"
        lines = [line for line in mount.read_log().splitlines() if "EIO on /file" in line]
        assert len(lines) == 1
        assert "ERROR" in lines[0]
        assert peak_megabytes(mount) < 200
        server.clear()
        assert (mount.path / "file").read_bytes() == FILE
        assert "Traceback" not in mount.read_log()
    done = run("cache", "fsck", "--cache", str(tmp_path / "cache"))
    assert done.returncode == 0, done.stdout + done.stderr


def peak_megabytes(mount: RunningMount) -> float:
    status = Path(f"/proc/{mount.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


def test_a_passing_fault_is_not_noticed(
    repository: PublishedRepository, server: FaultyServer
) -> None:
    with mounted(
        f"{server.url}/{repository.fqrn}", *SETTINGS, pubkey=repository.pubkey, expect=[".*"]
    ) as mount:
        passing = {
            "file": faults.corrupt(cached=True),
            "big": faults.cut(10),
            "read": faults.reset(),
        }
        for name, fault in passing.items():
            rule = server.fault("*/data/*", fault, times=1)
            content = (mount.path / name).read_bytes()
            assert content == (repository.source / name).read_bytes()
            assert rule.struck == 1
        assert mount.ctl("status")["io_errors"] == 0


def quick(action: Callable[[], object]) -> None:
    """It must answer without asking the network."""
    start = time.monotonic()
    action()
    assert time.monotonic() - start < DEADLINE


@pytest.mark.parametrize("how", ["refused", "silent"])
def test_with_all_servers_gone_what_is_cached_works_and_the_rest_comes_back(
    how: str, repository: PublishedRepository, server: FaultyServer, tmp_path: Path
) -> None:
    with mounted(
        f"{server.url}/{repository.fqrn}", *SETTINGS, pubkey=repository.pubkey, expect=[".*"]
    ) as mount:
        assert (mount.path / "read").read_bytes() == b"before"
        with (mount.path / "big").open("rb") as file:
            assert file.read(10) == BIG[:10]
        if how == "refused":
            server.stop()
        else:
            server.pause()
        number, seconds = errno_of((mount.path / "file").read_bytes)
        assert number == errno.EIO
        assert seconds < DEADLINE + MARGIN
        number, seconds = errno_of((mount.path / "sub" / "file").read_bytes)
        assert number == errno.EIO
        assert seconds < DEADLINE + MARGIN
        for _ in range(2):
            quick(lambda: os.statvfs(mount.path))
            quick(lambda: list(mount.path.iterdir()))
            quick(lambda: mount.ctl("status"))
            quick((mount.path / "read").read_bytes)
            quick(lambda: run("mounts"))
            mount.ctl("remount")
        assert subprocess.run(["df", mount.path], capture_output=True, timeout=20).returncode == 0
        if how == "refused":
            server.restart()
        else:
            server.resume()
        assert (mount.path / "file").read_bytes() == FILE
        assert (mount.path / "sub" / "file").read_bytes() == b"s"


def test_a_waiting_reader_can_be_killed_and_the_mount_ends(
    repository: PublishedRepository, server: FaultyServer
) -> None:
    with mounted(
        f"{server.url}/{repository.fqrn}", *SETTINGS, pubkey=repository.pubkey, expect=[".*"]
    ) as mount:
        server.pause()
        reader = subprocess.Popen(["cat", mount.path / "file"], stdout=subprocess.DEVNULL)
        server_sees = server.accepted
        reader.kill()
        reader.wait(DEADLINE + MARGIN)
        assert server_sees >= 1
        assert mount.terminate() == 0
        server.resume()


def test_a_mount_starts_without_servers_from_what_is_cached(
    repository: PublishedRepository, server: FaultyServer, tmp_path: Path
) -> None:
    url, cache = f"{server.url}/{repository.fqrn}", tmp_path / "cache"
    with mounted(url, *SETTINGS, pubkey=repository.pubkey, cache=cache) as mount:
        assert (mount.path / "file").read_bytes() == FILE
    server.stop()
    with mounted(url, *SETTINGS, pubkey=repository.pubkey, cache=cache, expect=[".*"]) as mount:
        assert (mount.path / "file").read_bytes() == FILE
        assert errno_of((mount.path / "big").read_bytes)[0] == errno.EIO
        server.restart()
        assert (mount.path / "big").read_bytes() == BIG


def test_without_servers_and_cache_a_mount_is_refused_in_time(
    repository: PublishedRepository, server: FaultyServer, tmp_path: Path
) -> None:
    server.stop()
    (tmp_path / "mnt").mkdir()
    arguments = ("--pubkey", str(repository.pubkey), "--cache", str(tmp_path / "cache"))
    start = time.monotonic()
    done = run("mount", *SETTINGS, *arguments, f"{server.url}/{repository.fqrn}", f"{tmp_path}/mnt")
    assert time.monotonic() - start < DEADLINE + MARGIN
    assert done.returncode == AllMirrorsFailed.exit_code
    assert repository.fqrn in done.stderr
    assert "Traceback" not in done.stderr
