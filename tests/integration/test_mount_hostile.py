from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from support.commands import run
from support.hostile import BAD_FILES, BAD_FOLDERS, GOOD, make_hostile_repository
from support.mounts import mounted

BOUND = ("--set", "CVMFS_BACKOFF_INIT=0.1", "--set", "CVMFS_BACKOFF_MAX=0.1")
EXPECT = [" ERROR ", "repeating past caches"]


def errno_of(action: Callable[[Path], object], path: Path) -> int:
    try:
        action(path)
    except OSError as exc:
        return exc.errno or -1
    return 0


def read_page(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        file.read(4096)


def list_folder(path: Path) -> None:
    list(path.iterdir())


def test_what_a_hostile_publisher_signs_is_an_error_with_one_line_and_no_harm(
    tmp_path: Path,
) -> None:
    hostile = make_hostile_repository(tmp_path)
    cache = tmp_path / "cache"
    with mounted(hostile.root, *BOUND, pubkey=hostile.pubkey, cache=cache, expect=EXPECT) as mount:
        assert set(BAD_FILES) | set(BAD_FOLDERS) | {"good"} == {
            path.name for path in mount.path.iterdir()
        }
        for name in BAD_FILES:
            # Only this one is known before anything is fetched: it passes the whole quota.
            expected = errno.ENOSPC if name == "says-terabytes" else errno.EIO
            assert errno_of(read_page, mount.path / name) == expected, name
        for name in BAD_FOLDERS:
            assert errno_of(list_folder, mount.path / name) == errno.EIO, name
        assert (mount.path / "good").read_bytes() == GOOD
        errors = [line for line in mount.read_log().splitlines() if " ERROR " in line]
        for name in [*BAD_FILES, *BAD_FOLDERS]:
            assert len([line for line in errors if f" on /{name} (" in line]) == 1, name
        assert "Traceback" not in mount.read_log()
        status = Path(f"/proc/{mount.pid}/status").read_text()
        assert int(status.split("VmHWM:")[1].split()[0]) < 200_000
    assert run("cache", "fsck", "--cache", str(cache)).returncode == 0
