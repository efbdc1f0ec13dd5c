from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from support.memory_store import MemoryStore

from lazyfs.cas.cached_store import CachedStore
from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Algorithm
from lazyfs.cas.fsck import fsck
from lazyfs.cas.handle import FileHandle
from lazyfs.cas.local_cache import LocalCache
from lazyfs.cas.store import ObjectRef, Receiver
from lazyfs.config.settings import CacheSettings
from lazyfs.errors import CodecError, NetworkError

OBJECTS = 24
SIZE = 20_000
QUOTA = 8 * SIZE

CHILD = """
import os, random, signal, sys
from pathlib import Path
from lazyfs.cas.cached_store import CachedStore
from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Algorithm
from lazyfs.cas.directory_store import DirectoryStore
from lazyfs.cas.index import CacheIndex
from lazyfs.cas.local_cache import LocalCache
from lazyfs.cas.store import ObjectRef
from lazyfs.config.settings import CacheSettings

def content(number):
    return number.to_bytes(4, "big") * (SIZE // 4)

def ref(number):
    return ObjectRef(Algorithm.SHA1.digest(Codec.ZLIB.compress(content(number))), size=SIZE)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def dying(function, *, after=False):
    def call(*arguments, **named):
        if after:
            function(*arguments, **named)
        die()
    return call

SIZE, quota, cache_folder, objects = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
cache = LocalCache.open(CacheSettings(Path(cache_folder), limit=quota))
store = CachedStore(cache, DirectoryStore(Path(objects)))
print("open", flush=True)
sys.stdin.readline()
"""
"""Opens the cache, says so, and waits for a line before it goes on."""

READ = """
for number in random.Random(sys.argv[5]).choices(range(OBJECTS), k=150):
    with store.open(ref(number)) as handle:
        assert handle.read_all() == content(number)
cache.close()
"""


def content_of(number: int) -> bytes:
    return number.to_bytes(4, "big") * (SIZE // 4)


def ref_of(number: int) -> ObjectRef:
    stored = Codec.ZLIB.compress(content_of(number))
    return ObjectRef(Algorithm.SHA1.digest(stored), size=SIZE)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    for number in range(OBJECTS):
        path = root / ref_of(number).digest.object_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Codec.ZLIB.compress(content_of(number)))
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


class Child:
    """A process that shares the cache."""

    def __init__(self, folder: Path, repository: Path, script: str, *more: str) -> None:
        script = CHILD + script.replace("OBJECTS", str(OBJECTS))
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, str(SIZE), str(QUOTA), folder, repository, *more],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def await_open(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "open\n"

    def run(self) -> int:
        self.process.communicate("go\n", timeout=60)
        return self.process.returncode


class Source(MemoryStore):
    """All objects, and how often each was fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: Counter[str] = Counter()
        self.before_fetch: Callable[[], object] = lambda: None
        for number in range(OBJECTS):
            self.put(content_of(number))

    def fetch(self, ref: ObjectRef, receiver: Receiver) -> None:
        self.fetched[ref.key] += 1
        self.before_fetch()
        super().fetch(ref, receiver)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def cache(folder: Path) -> Iterator[LocalCache]:
    with LocalCache.open(CacheSettings(folder, limit=QUOTA)) as cache:
        yield cache


def read(store: CachedStore, number: int) -> None:
    with store.open(ref_of(number)) as handle:
        assert handle.read_all() == content_of(number)


def path_of(cache: LocalCache, number: int) -> Path:
    return cache.layout.object_path(ref_of(number).key)


# --- many processes ------------------------------------------------------------------------


def test_processes_that_share_a_cache_read_the_same_bytes_within_one_quota(
    cache: LocalCache, repository: Path
) -> None:
    children = [Child(cache.directory, repository, READ, str(seed)) for seed in range(4)]
    for child in children:
        child.await_open()
    with ThreadPoolExecutor(4) as pool:
        ends = [pool.submit(child.run) for child in children]
        while not all(end.done() for end in ends):
            usage = cache.usage()
            assert usage.used + usage.temporary <= QUOTA
    assert [end.result() for end in ends] == [0, 0, 0, 0]
    assert cache.usage().evictions > OBJECTS
    assert cache.usage().temporary == 0
    report = fsck(cache)
    assert report.problems == ()
    assert report.bytes == cache.usage().used
    assert cache.layout.temporary_files() == []


def test_what_one_process_has_open_no_other_evicts(
    cache: LocalCache, source: Source, repository: Path
) -> None:
    store = CachedStore(cache, source)
    fetched, cached = store.open(ref_of(0)), store.open(ref_of(1))
    cached.close()
    cached = store.open(ref_of(1))
    child = Child(cache.directory, repository, READ, "evict")
    child.await_open()
    assert child.run() == 0
    assert cache.usage().evictions > 0
    for number, handle in enumerate((fetched, cached)):
        assert handle.path is not None
        assert handle.path.read_bytes() == content_of(number)
        assert handle.read_all() == content_of(number)
        handle.close()
    assert cache.evict(ref_of(0).key)
    assert cache.evict(ref_of(1).key)


# --- killed --------------------------------------------------------------------------------

KILLS = {
    "while content is written": """
with cache.create(ref(0)) as writer:
    writer.write(content(0)[:SIZE // 2])
    die()
""",
    "before the object has its name": """
Path.rename = dying(Path.rename)
store.open(ref(0))
""",
    "before the row is written": """
Path.rename = dying(Path.rename, after=True)
store.open(ref(0))
""",
    "after the row is written": """
CacheIndex.exclusive = CacheIndex.exclusive
LocalCache._remember = dying(LocalCache._remember)
store.open(ref(0))
""",
    "between an evicted file and its row": """
store.open(ref(0)).close()
CacheIndex.remove = dying(CacheIndex.remove)
cache.evict(ref(0).key)
""",
    "while a damaged object is dropped": """
store.open(ref(0)).close()
cache.layout.object_path(ref(0).key).write_bytes(b"x" * SIZE)
CacheIndex.heal = dying(CacheIndex.heal)
store.open(ref(0))
""",
}


@pytest.mark.parametrize("script", KILLS.values(), ids=KILLS)
def test_a_process_killed_at_any_point_leaves_a_usable_cache(
    script: str, folder: Path, repository: Path, source: Source
) -> None:
    with LocalCache.open(CacheSettings(folder, limit=QUOTA)) as cache:
        child = Child(folder, repository, script)
        child.await_open()
        assert child.run() == -signal.SIGKILL
        store = CachedStore(cache, source)
        for number in range(OBJECTS):
            read(store, number)
        assert cache.usage().used <= QUOTA
        assert store.counters.uncached == 0
    with LocalCache.open(CacheSettings(folder, limit=QUOTA)) as cache:
        assert cache.usage().temporary == 0
        assert cache.layout.temporary_files() == []
        assert fsck(cache).problems == ()


@pytest.mark.parametrize("script", KILLS.values(), ids=KILLS)
def test_the_next_process_finds_no_file_that_no_quota_counts(
    script: str, folder: Path, repository: Path
) -> None:
    child = Child(folder, repository, script)
    child.await_open()
    assert child.run() == -signal.SIGKILL
    with LocalCache.open(CacheSettings(folder, limit=QUOTA)) as cache:
        files = [path.stat().st_size for _, path in cache.layout.object_keys()]
        assert sum(files) <= cache.usage().used
        assert cache.usage().temporary == 0
        assert cache.layout.temporary_files() == []
        assert fsck(cache, repair=True).clean
        assert fsck(cache).problems == ()


def test_room_that_a_killed_process_had_reserved_is_given_back(
    cache: LocalCache, repository: Path, source: Source
) -> None:
    child = Child(
        cache.directory, repository, "cache.evictor.reserve(ref(0).key + '.x', quota); die()"
    )
    child.await_open()
    assert child.run() == -signal.SIGKILL
    assert cache.usage().temporary == QUOTA
    store = CachedStore(cache, source)
    read(store, 0)
    assert store.counters.uncached == 0
    assert cache.usage().temporary == 0


# --- files that others put and remove ------------------------------------------------------


def test_a_file_removed_from_outside_is_fetched_again(cache: LocalCache, source: Source) -> None:
    store = CachedStore(cache, source)
    with store.open(ref_of(0)) as handle:
        path_of(cache, 0).unlink()
        read(store, 0)
        assert handle.read_all() == content_of(0)
    assert source.fetched[ref_of(0).key] == 2
    assert fsck(cache).problems == ()


def test_all_folders_may_go_while_the_cache_is_open(cache: LocalCache, source: Source) -> None:
    store = CachedStore(cache, source)
    read(store, 0)
    shutil.rmtree(cache.layout.objects)
    for number in range(OBJECTS):
        read(store, number)
    shutil.rmtree(cache.layout.temporary)
    read(store, 0)
    assert cache.sweep() == 0


def _symlink(path: Path) -> None:
    path.symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    "put",
    [
        pytest.param(lambda path: path.write_bytes(b"x" * SIZE), id="garbage"),
        pytest.param(lambda path: path.write_bytes(content_of(0)), id="right-but-unknown"),
        pytest.param(lambda path: path.mkdir(), id="folder"),
        pytest.param(os.mkfifo, id="pipe"),
        pytest.param(_symlink, id="link"),
    ],
)
@pytest.mark.parametrize("known", [False, True])
def test_whatever_is_put_in_an_objects_place_is_never_served(
    put: Callable[[Path], None], known: bool, cache: LocalCache, source: Source
) -> None:
    store = CachedStore(cache, source)
    path = path_of(cache, 0)
    if known:
        read(store, 0)
        path.unlink()
    path.parent.mkdir(exist_ok=True)
    put(path)
    read(store, 0)
    read(store, 0)
    assert source.fetched[ref_of(0).key] >= 1


# --- damage --------------------------------------------------------------------------------


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "flipped": flip,
    "cut": lambda content: content[:-1],
    "emptied": lambda content: b"",
    "longer": lambda content: content + b"\0",
}


@pytest.mark.parametrize("same_process", [True, False])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_object_is_noticed_and_fetched_again(
    damage: Callable[[bytes], bytes],
    same_process: bool,
    cache: LocalCache,
    source: Source,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = CachedStore(cache, source)
    read(store, 0)
    assert cache.pin(ref_of(0).key)
    path_of(cache, 0).write_bytes(damage(content_of(0)))
    if same_process:
        read(store, 0)
    else:
        with LocalCache.open(CacheSettings(cache.directory, limit=QUOTA)) as other:
            read(CachedStore(other, source), 0)
    assert source.fetched[ref_of(0).key] == 2
    assert "damaged in the cache" in caplog.text
    assert cache.usage().healed == 1
    assert cache.usage().pinned == SIZE
    assert path_of(cache, 0).read_bytes() == content_of(0)
    assert fsck(cache).problems == ()


def test_a_wrong_declaration_does_not_cost_a_good_object(cache: LocalCache, source: Source) -> None:
    store = CachedStore(cache, source)
    read(store, 0)
    assert store.peek(ObjectRef(ref_of(0).digest, size=SIZE + 1)) is None
    assert path_of(cache, 0).exists()
    assert cache.usage().healed == 0


def test_a_cache_that_cannot_be_written_serves_what_can_be_proven(
    folder: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalCache.open(CacheSettings(folder)) as cache:
        read(CachedStore(cache, source), 0)
        read(CachedStore(cache, source), 1)
        path_of(cache, 1).write_bytes(flip(content_of(1)))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with LocalCache.open(CacheSettings(folder)) as cache:
        assert not cache.writable
        store = CachedStore(cache, source)
        read(store, 0)
        read(store, 1)
        assert (store.counters.hits, store.counters.uncached) == (1, 1)


# --- single flight -------------------------------------------------------------------------

THREADS = 64


class Together:
    """Lets a fetch end when all but its own thread wait for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        waiting = self.waiting = threading.Semaphore(0)

        class Watched(Future[FileHandle]):
            def result(self, timeout: float | None = None) -> FileHandle:
                waiting.release()
                return super().result(timeout)

        monkeypatch.setattr("lazyfs.cas.flight.Future", Watched)

    def await_all(self) -> None:
        for _ in range(THREADS - 1):
            assert self.waiting.acquire(timeout=30)

    def open(self, store: CachedStore) -> list[Future[FileHandle]]:
        with ThreadPoolExecutor(THREADS) as pool:
            return [pool.submit(store.open, ref_of(0)) for _ in range(THREADS)]


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch, source: Source) -> Together:
    together = Together(monkeypatch)
    source.before_fetch = together.await_all
    return together


def test_threads_that_want_one_object_cause_one_fetch(
    cache: LocalCache, source: Source, together: Together
) -> None:
    handles = [future.result() for future in together.open(CachedStore(cache, source))]
    assert source.fetched.total() == 1
    assert len({handle.fileno() for handle in handles}) == THREADS
    for handle in handles:
        assert handle.read_all() == content_of(0)
        assert not cache.evict(ref_of(0).key)
        handle.close()
    assert cache.evict(ref_of(0).key)


@pytest.mark.parametrize("error", [NetworkError("no server answers"), KeyboardInterrupt()])
def test_the_failure_of_the_one_fetch_reaches_all_who_wait(
    error: BaseException, cache: LocalCache, source: Source, together: Together
) -> None:
    def fail() -> None:
        together.await_all()
        raise error

    source.before_fetch = fail
    store = CachedStore(cache, source)
    outcomes = together.open(store)
    assert [future.exception() for future in outcomes] == [error] * THREADS
    assert source.fetched.total() == 1
    assert cache.layout.temporary_files() == []
    assert cache.usage().temporary == 0
    source.before_fetch = lambda: None
    read(store, 0)


def test_who_declares_another_size_shares_no_fetch(cache: LocalCache, source: Source) -> None:
    liar = ObjectRef(ref_of(0).digest, size=SIZE + 1)
    both = threading.Barrier(2, timeout=30)
    source.before_fetch = both.wait
    store = CachedStore(cache, source)
    with ThreadPoolExecutor(2) as pool:
        honest, lying = pool.submit(read, store, 0), pool.submit(store.open, liar)
        assert honest.exception() is None
        assert isinstance(lying.exception(), CodecError)
    assert fsck(cache).problems == ()
