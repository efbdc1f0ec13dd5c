from __future__ import annotations

import datetime
import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import run
from support.documents import make_keys
from support.hostile import BAD_FILES, BAD_FOLDERS, GOOD, make_hostile_repository
from support.mounts import mounted
from support.publishing import PublishedRepository, make_repository

from lazyfs.cas.digest import Algorithm
from lazyfs.cas.store import SMALL_LIMIT
from lazyfs.errors import (
    CertificateRefused,
    FormatError,
    HashMismatch,
    LazyfsError,
    SignatureError,
    WhitelistExpired,
)
from lazyfs.publish.keys import RepositoryKeys
from lazyfs.publish.signing import make_whitelist, sign_manifest, sign_whitelist
from lazyfs.repository.manifest import MANIFEST_PATH, parse_manifest
from lazyfs.repository.whitelist import WHITELIST_PATH

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


# --- documents that must not be believed ---------------------------------------------------


def other_key(repository: PublishedRepository) -> None:
    path = repository.root / MANIFEST_PATH
    manifest = parse_manifest(path.read_bytes())
    path.write_bytes(sign_manifest(manifest, make_keys("others").key, Algorithm.SHA1))


def expired(repository: PublishedRepository) -> None:
    _whitelist(repository, repository.keys, age=datetime.timedelta(days=31))


def revoked(repository: PublishedRepository) -> None:
    _whitelist(repository, make_keys("others"))


def _whitelist(
    repository: PublishedRepository,
    listed: RepositoryKeys,
    age: datetime.timedelta = datetime.timedelta(),
) -> None:
    now = datetime.datetime.now(datetime.UTC) - age
    whitelist = make_whitelist(repository.fqrn, listed, Algorithm.SHA1, now=now, days=30)
    signed = sign_whitelist(whitelist, repository.keys.need_master(), Algorithm.SHA1)
    (repository.root / WHITELIST_PATH).write_bytes(signed)


def cut_manifest(repository: PublishedRepository) -> None:
    path = repository.root / MANIFEST_PATH
    path.write_bytes(path.read_bytes()[:-1])


def tampered(repository: PublishedRepository) -> None:
    path = repository.root / MANIFEST_PATH
    path.write_bytes(path.read_bytes().replace(b"\nS", b"\nS1"))


def over_long(repository: PublishedRepository) -> None:
    path = repository.root / MANIFEST_PATH
    path.write_bytes(path.read_bytes() + bytes(SMALL_LIMIT))


SPOILT: list[tuple[Callable[[PublishedRepository], None], type[LazyfsError]]] = [
    (other_key, SignatureError),
    (expired, WhitelistExpired),
    (revoked, CertificateRefused),
    (cut_manifest, SignatureError),
    (tampered, HashMismatch),
    (over_long, FormatError),
]


@pytest.mark.parametrize(("spoil", "error"), SPOILT)
def test_what_must_not_be_believed_is_not_mounted(
    spoil: Callable[[PublishedRepository], None], error: type[LazyfsError], tmp_path: Path
) -> None:
    repository = make_repository(tmp_path, {"file": b"1"})
    spoil(repository)
    (tmp_path / "mnt").mkdir()
    options = ("--pubkey", str(repository.pubkey), "--cache", str(tmp_path / "cache"))
    done = run("mount", *options, str(repository.root), str(tmp_path / "mnt"))
    assert done.returncode == error.exit_code, done.stderr
    assert str(repository.root) in done.stderr
    assert MANIFEST_PATH in done.stderr or WHITELIST_PATH in done.stderr
    assert "Traceback" not in done.stderr


def documents(repository: PublishedRepository) -> dict[Path, bytes]:
    paths = [repository.root / name for name in (MANIFEST_PATH, WHITELIST_PATH)]
    return {path: path.read_bytes() for path in paths}


def test_a_mount_stays_where_it_is_while_it_must_not_believe(tmp_path: Path) -> None:
    def serve(content: dict[Path, bytes]) -> None:
        for path, document in content.items():
            path.write_bytes(document)

    def refusals() -> list[str]:
        return [line for line in mount.read_log().splitlines() if "stays at revision" in line]

    repository = make_repository(tmp_path, {"file": b"before"})
    first = documents(repository)
    expect = ["stays at revision", "asking again", "repeating past caches"]
    with mounted(repository.root, pubkey=repository.pubkey, expect=expect) as mount:
        repository.publish({"file": b"after"})
        second = documents(repository)
        for number, (spoil, _) in enumerate(SPOILT, 1):
            serve(second)
            spoil(repository)
            mount.ctl("remount")
            assert len(refusals()) == number, spoil
            assert (mount.path / "file").read_bytes() == b"before"
        serve(second)
        mount.ctl("remount")
        assert (mount.path / "file").read_bytes() == b"after"
        serve(first)
        mount.ctl("remount")
        assert "offers revision" in refusals()[-1]
        assert (mount.path / "file").read_bytes() == b"after"
        assert "Traceback" not in mount.read_log()
