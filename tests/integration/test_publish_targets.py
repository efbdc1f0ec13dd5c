"""What every target promises: a folder, and a bucket of each S3 server."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from support.s3_server import NAMES, S3Servers

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Algorithm, ObjectKind
from lazyfs.cas.origin import open_uncached
from lazyfs.cas.store import ObjectRef
from lazyfs.errors import FormatError, HashMismatch, ObjectMissing, PublishError
from lazyfs.publish import directory_target, s3_target
from lazyfs.publish.content import ContentStore
from lazyfs.publish.directory_target import DirectoryTarget
from lazyfs.publish.lease import (
    LEASE_PATH,
    Holder,
    Lease,
    break_lease,
    held,
    new_holder,
)
from lazyfs.publish.s3_exchange import WHOLE_SIZE
from lazyfs.publish.s3_target import ONE_REQUEST_SIZE
from lazyfs.publish.target import StoredObject, UploadTarget

PATH = "data/ab/cdef"
MANY = 1100
"""More than one answer lists, and more than one request deletes."""


@pytest.fixture(params=["directory", *NAMES])
def target(request: pytest.FixtureRequest, tmp_path: Path, s3_servers: S3Servers) -> UploadTarget:
    if request.param == "directory":
        made: UploadTarget = DirectoryTarget(tmp_path / "repository")
    else:
        server = s3_servers.get(request.param)
        made = server.target(server.new_bucket(), "some/repository")
    made.prepare()
    return made


def put(target: UploadTarget, path: str, content: bytes, *, replace: bool = False) -> bool:
    upload = target.upload()
    try:
        for start in range(0, len(content), 1 << 20):
            upload.write(content[start : start + (1 << 20)])
        return upload.commit(path, replace=replace)
    finally:
        upload.discard()


def stored(target: UploadTarget) -> dict[str, StoredObject]:
    """All that is listed, but leases and locks."""
    return {item.path: item for item in target.objects() if not item.path.startswith("data/txn/")}


def content_of(target: UploadTarget, path: str) -> bytes:
    document = target.read(path)
    assert document is not None
    return document.content


# --- objects -------------------------------------------------------------------------------------


def test_to_prepare_again_does_no_harm_and_leaves_nothing(target: UploadTarget) -> None:
    target.replace(".cvmfspublished", b"kept")
    target.prepare()
    assert content_of(target, ".cvmfspublished") == b"kept"
    assert stored(target) == {}
    assert [item.path for item in target.objects() if "probe" in item.path] == []


@pytest.mark.parametrize(
    "size", [0, 1, ONE_REQUEST_SIZE, ONE_REQUEST_SIZE + 1, WHOLE_SIZE, WHOLE_SIZE + 1]
)
def test_an_object_is_there_once_it_is_committed(target: UploadTarget, size: int) -> None:
    content = os.urandom(size)
    upload = target.upload()
    upload.write(content[: size // 2])
    upload.write(content[size // 2 :])
    assert not target.has(PATH)
    assert stored(target) == {}
    assert upload.commit(PATH)
    upload.discard()
    assert target.has(PATH)
    assert content_of(target, PATH) == content
    assert stored(target)[PATH].size == size
    assert abs(stored(target)[PATH].modified - time.time()) < 60


@pytest.mark.parametrize("size", [10, ONE_REQUEST_SIZE + 1])
def test_an_object_that_is_there_stays(target: UploadTarget, size: int) -> None:
    first, second = os.urandom(size), os.urandom(size)
    assert put(target, PATH, first)
    assert not put(target, PATH, second)
    assert content_of(target, PATH) == first


@pytest.mark.parametrize("size", [10, ONE_REQUEST_SIZE + 1])
def test_a_damaged_object_is_replaced_on_demand(target: UploadTarget, size: int) -> None:
    good = os.urandom(size)
    assert put(target, PATH, b"damaged")
    assert put(target, PATH, good, replace=True)
    assert content_of(target, PATH) == good


def test_what_is_discarded_is_forgotten(target: UploadTarget) -> None:
    upload = target.upload()
    upload.write(b"x")
    upload.discard()
    upload.discard()
    assert stored(target) == {}


def test_the_same_object_from_many_threads_is_there_whole(target: UploadTarget) -> None:
    content = os.urandom(200_000)
    start = threading.Barrier(4)

    def upload(_: int) -> None:
        start.wait()
        put(target, PATH, content)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upload, range(4)))
    assert content_of(target, PATH) == content


def test_many_objects_are_listed_and_removed(target: UploadTarget) -> None:
    paths = [f"data/{number % 256:02x}/{number}" for number in range(MANY)]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda path: put(target, path, path.encode()), paths))
    listed = list(target.objects())
    assert len(listed) == len({item.path for item in listed})
    assert {path: item.size for path, item in stored(target).items()} == {
        path: len(path) for path in paths
    }
    target.remove(iter([*paths[1:], "data/ff/there-is-none"]))
    assert list(stored(target)) == paths[:1]
    target.remove([])


def test_documents_are_removed_and_are_no_objects(target: UploadTarget) -> None:
    target.replace(".cvmfspublished", b"x")
    assert stored(target) == {}
    target.remove([".cvmfspublished"])
    assert target.read(".cvmfspublished") is None


# --- reading objects -----------------------------------------------------------------------------


def test_a_target_is_an_origin(target: UploadTarget) -> None:
    digest = ContentStore(target, Algorithm.SHA1).put_bytes(b"content", ObjectKind.CERTIFICATE)
    with open_uncached(target, ObjectRef(digest, ObjectKind.CERTIFICATE)) as handle:
        assert handle.pread(100, 0) == b"content"
    # Another kind is another object.
    with pytest.raises(ObjectMissing, match=str(digest)):
        open_uncached(target, ObjectRef(digest))


def test_wrong_content_is_told_from_missing_content(target: UploadTarget) -> None:
    digest = Algorithm.SHA1.digest(zlib.compress(b"right"))
    ref = ObjectRef(digest)
    put(target, digest.object_path(ObjectKind.FILE), zlib.compress(b"wrong"))
    with pytest.raises(HashMismatch):
        open_uncached(target, ref)
    put(target, digest.object_path(ObjectKind.FILE), b"no zlib at all", replace=True)
    with pytest.raises(FormatError):
        open_uncached(target, ref)
    put(target, digest.object_path(ObjectKind.FILE), zlib.compress(b"right"), replace=True)
    with open_uncached(target, ref) as handle:
        assert handle.pread(100, 0) == b"right"


def test_a_large_object_is_fetched_whole(target: UploadTarget) -> None:
    content = os.urandom(3 << 20)
    digest = Algorithm.SHA1.digest(content)
    put(target, digest.object_path(ObjectKind.FILE), content)
    with open_uncached(target, ObjectRef(digest, codec=Codec.NONE)) as handle:
        assert handle.pread(len(content) + 1, 0) == content


# --- documents -----------------------------------------------------------------------------------


def test_documents_are_replaced(target: UploadTarget) -> None:
    assert target.read(".cvmfswhitelist") is None
    target.replace(".cvmfswhitelist", b"one")
    first = target.read(".cvmfswhitelist")
    target.replace(".cvmfswhitelist", b"")
    second = target.read(".cvmfswhitelist")
    assert first is not None
    assert second is not None
    assert (first.content, second.content) == (b"one", b"")
    assert first.version != second.version
    assert target.read(".cvmfswhitelist") == second


def test_a_document_is_made_only_where_none_is(target: UploadTarget) -> None:
    version = target.replace_if("data/txn/x", b"one", None)
    assert version is not None
    assert target.replace_if("data/txn/x", b"two", None) is None
    there = target.read("data/txn/x")
    assert there is not None
    assert (there.content, there.version) == (b"one", version)


def test_a_document_is_replaced_only_as_it_is_known(target: UploadTarget) -> None:
    first = target.replace_if("data/txn/x", b"one", None)
    second = target.replace_if("data/txn/x", b"two", first)
    assert second not in (None, first)
    assert target.replace_if("data/txn/x", b"three", first) is None
    assert content_of(target, "data/txn/x") == b"two"
    third = target.replace_if("data/txn/x", b"three", second)
    assert third is not None
    assert content_of(target, "data/txn/x") == b"three"


def test_a_document_that_was_removed_is_not_replaced(target: UploadTarget) -> None:
    version = target.replace_if("data/txn/x", b"one", None)
    target.remove(["data/txn/x"])
    assert target.replace_if("data/txn/x", b"two", version) is None
    assert target.read("data/txn/x") is None


def test_of_many_who_make_a_document_one_succeeds(target: UploadTarget) -> None:
    for round_number in range(5):
        start = threading.Barrier(4)

        def make(name: int, path: str = f"data/txn/{round_number}") -> str | None:
            start.wait()  # noqa: B023 - the threads end before the next round
            return target.replace_if(path, b"by %d" % name, None)

        with ThreadPoolExecutor(4) as pool:
            versions = list(pool.map(make, range(4)))
        winners = [name for name, version in enumerate(versions) if version is not None]
        assert len(winners) == 1
        there = target.read(f"data/txn/{round_number}")
        assert there is not None
        assert there.content == b"by %d" % winners[0]
        assert there.version == versions[winners[0]]


def test_no_change_of_a_document_is_lost(target: UploadTarget) -> None:
    target.replace("data/txn/counter", b"0 -")
    start = threading.Barrier(2)

    def count(name: str) -> None:
        start.wait()
        for _ in range(20):
            while True:
                there = target.read("data/txn/counter")
                assert there is not None
                number = int(there.content.split()[0])
                new = f"{number + 1} {name}".encode()
                if target.replace_if("data/txn/counter", new, there.version) is not None:
                    break

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(count, ("a", "b")))
    assert content_of(target, "data/txn/counter").split()[0] == b"40"


def test_a_document_has_a_limit(target: UploadTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (directory_target, s3_target):
        monkeypatch.setattr(module, "DOCUMENT_LIMIT", 1000)
    target.replace("small", bytes(1000))
    target.replace("large", bytes(1001))
    assert content_of(target, "small") == bytes(1000)
    with pytest.raises(PublishError, match="too large"):
        target.read("large")


# --- leases --------------------------------------------------------------------------------------


class Clock:
    """Unix time as a test wants it."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def acquire(target: UploadTarget, purpose: str, clock: Clock, *, seconds: float = 100.0) -> Lease:
    holder = new_holder(purpose, seconds, now=clock())
    return Lease.acquire(target, holder, clock=clock)


def test_a_lease_keeps_others_out_until_it_is_released(target: UploadTarget) -> None:
    clock = Clock()
    lease = acquire(target, "first", clock)
    with pytest.raises(PublishError, match=r"another publisher is at work: .*\(first\)"):
        acquire(target, "second", clock)
    lease.release()
    acquire(target, "second", clock).release()


def test_a_publisher_waits_for_a_lease(target: UploadTarget) -> None:
    clock = Clock()
    first = acquire(target, "first", clock)
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            first.release()

    holder = new_holder("second", 100.0, now=clock())
    second = Lease.acquire(target, holder, wait=600.0, clock=clock, sleep=sleep)
    assert len(pauses) == 3
    second.renew()


def test_a_lease_that_has_run_out_is_taken_over(target: UploadTarget) -> None:
    clock = Clock()
    first = acquire(target, "first", clock, seconds=100.0)
    clock.now += 99
    with pytest.raises(PublishError):
        acquire(target, "second", clock)
    first.renew()
    clock.now += 99
    with pytest.raises(PublishError):
        acquire(target, "second", clock)
    clock.now += 1
    second = acquire(target, "second", clock)
    with pytest.raises(PublishError, match=r"was lost, .*\(second\)"):
        first.renew()
    # Who has lost it takes nothing from who has it.
    first.release()
    second.renew()


def dead_process() -> Holder:
    """A holder whose process has ended."""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        here = new_holder("killed", 1e6, now=time.time())
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        process.kill()
    return replace(here, pid=process.pid, started=int(fields[19]))


def test_the_lease_of_a_dead_process_is_taken_over_at_once(target: UploadTarget) -> None:
    gone = Lease.acquire(target, dead_process())
    lease = Lease.acquire(target, new_holder("next", 100.0, now=time.time()))
    with pytest.raises(PublishError, match=r"was lost, .*\(next\)"):
        gone.renew()
    lease.release()


def test_of_many_publishers_one_gets_the_lease(target: UploadTarget) -> None:
    clock = Clock()
    start = threading.Barrier(4)

    def compete(name: int) -> Lease | None:
        start.wait()
        with contextlib.suppress(PublishError):
            return acquire(target, str(name), clock)
        return None

    with ThreadPoolExecutor(4) as pool:
        leases = list(pool.map(compete, range(4)))
    (winner,) = [lease for lease in leases if lease is not None]
    winner.renew()


def test_a_lease_can_outlive_its_process_and_be_broken(target: UploadTarget) -> None:
    clock = Clock()
    holder = new_holder("by hand", 100.0, now=clock(), process=False)
    Lease.acquire(target, holder, clock=clock)
    resumed = Lease.resume(target, holder.token, 100.0, clock=clock)
    broken = break_lease(target)
    assert broken is not None
    assert broken.token == holder.token
    with pytest.raises(PublishError, match="was lost"):
        resumed.renew()
    with pytest.raises(PublishError, match="was lost"):
        Lease.resume(target, holder.token, 100.0, clock=clock)


def test_a_damaged_lease_keeps_nobody_out(target: UploadTarget) -> None:
    target.replace(LEASE_PATH, b"\x00 not a lease")
    with held(target, "publish"):
        pass


@pytest.fixture
def broken(target: UploadTarget, tmp_path: Path) -> UploadTarget:
    """The target after its place has vanished."""
    if isinstance(target, DirectoryTarget):
        target.root.rename(tmp_path / "elsewhere")
    elif isinstance(target, s3_target.S3Target):
        target = s3_target.S3Target(
            replace(target.location, bucket="there-is-no-such-bucket"), environ={}
        )
    return target


@pytest.mark.parametrize(
    "use",
    [
        lambda target: put(target, PATH, b"x"),
        lambda target: put(target, PATH, bytes(ONE_REQUEST_SIZE + 1)),
        lambda target: put(target, PATH, bytes(WHOLE_SIZE + 1)),
        lambda target: put(target, PATH, b"x", replace=True),
        lambda target: list(target.objects()),
        lambda target: target.replace_if("x", b"x", None),
        lambda target: target.replace_if("x", b"x", "0" * 32),
    ],
    ids=["small", "large", "parts", "replace", "list", "create", "exchange"],
)
def test_a_place_that_has_vanished_is_a_clear_error(
    broken: UploadTarget, use: Callable[[UploadTarget], object]
) -> None:
    with pytest.raises(PublishError) as caught:
        use(broken)
    assert caught.value.hint or caught.value.path
