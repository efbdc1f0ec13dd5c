from __future__ import annotations

import contextlib
import itertools
import tempfile
import zlib
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from lazyfs.cas.codec import Codec, decompress
from lazyfs.cas.digest import Algorithm, Digest
from lazyfs.cas.evictor import LOW_WATER
from lazyfs.cas.fsck import fsck
from lazyfs.cas.handle import FileHandle
from lazyfs.cas.local_cache import LocalCache
from lazyfs.cas.rebuild import parse_key
from lazyfs.cas.store import ObjectRef
from lazyfs.cas.verify import MemorySink, ObjectReceiver
from lazyfs.cas.writer import CacheWriter
from lazyfs.config.settings import CacheSettings
from lazyfs.errors import CodecError, FormatError, HashMismatch, QuotaExceeded

digests = st.sampled_from(Algorithm).flatmap(
    lambda a: st.binary(min_size=a.size, max_size=a.size).map(lambda raw: Digest(a, raw))
)
contents = st.one_of(
    st.binary(max_size=2000),
    st.builds(lambda piece, times: piece * times, st.binary(max_size=40), st.integers(0, 500)),
)
codecs = st.sampled_from(Codec)


def split(data: bytes, cuts: list[float]) -> list[bytes]:
    borders = [0, *sorted(int(cut * len(data)) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(borders)]


cuts = st.lists(st.floats(0, 1), max_size=12)

# --- digests -------------------------------------------------------------------------------


@given(digests)
def test_a_digest_is_read_back_from_its_text(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest
    assert str(digest) == digest.hex + digest.algorithm.suffix


@given(st.one_of(st.text(), st.from_regex(r"[0-9a-fA-F]{30,42}(-[a-z0-9]{0,9})?\n?")))
def test_text_is_refused_or_is_the_one_way_to_write_a_digest(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except FormatError:
        return
    assert str(digest) == text


@given(digests, codecs)
def test_a_cache_key_is_read_back(digest: Digest, codec: Codec) -> None:
    assert parse_key(ObjectRef(digest, codec=codec).key) == (digest, codec)


@given(st.sampled_from(Algorithm), st.binary(), cuts)
def test_any_split_gives_the_same_digest(
    algorithm: Algorithm, data: bytes, at: list[float]
) -> None:
    hasher = algorithm.hasher()
    for piece in split(data, at):
        hasher.update(piece)
    assert hasher.result() == algorithm.digest(data)


# --- decoders ------------------------------------------------------------------------------


def outcome(codec: Codec, pieces: list[bytes], limit: int) -> bytes | None:
    decoder = codec.decoder(limit=limit)
    content = b""
    try:
        for piece in pieces:
            for out in decoder.feed(piece):
                content += out
                assert len(content) <= limit
        decoder.finish()
    except CodecError:
        return None
    return content


@given(codecs, contents, cuts)
def test_content_comes_back_from_any_split(codec: Codec, content: bytes, at: list[float]) -> None:
    assert outcome(codec, split(codec.compress(content), at), len(content)) == content


@given(codecs, contents, st.binary(max_size=8), st.integers(0, 9000), cuts, st.data())
def test_damage_has_the_same_outcome_for_any_split(
    codec: Codec, content: bytes, junk: bytes, limit: int, at: list[float], data: st.DataObject
) -> None:
    stored = codec.compress(content)
    start = data.draw(st.integers(0, len(stored)))
    damaged = stored[:start] + junk + stored[start + data.draw(st.integers(0, 8)) :]
    whole = outcome(codec, [damaged], limit)
    assert outcome(codec, split(damaged, at), limit) == whole
    assert whole is None or len(whole) <= limit


@given(st.binary(max_size=400), st.integers(0, 500))
def test_arbitrary_bytes_inflate_within_the_limit_or_are_an_error(data: bytes, limit: int) -> None:
    for stored in (data, b"\x78\x9c" + data):
        with contextlib.suppress(CodecError):
            assert len(decompress(Codec.ZLIB, stored, limit=limit)) <= limit


@given(codecs, st.binary(max_size=400), st.one_of(st.none(), st.integers(0, 500)), cuts)
def test_no_arbitrary_bytes_pass_for_an_object(
    codec: Codec, stored: bytes, size: int | None, at: list[float]
) -> None:
    honest = ObjectRef(Algorithm.SHA1.digest(stored), codec=codec, size=size, limit=500)
    other = ObjectRef(Algorithm.SHA1.digest(stored + b"x"), codec=codec, size=size, limit=500)
    for ref in (honest, other):
        sink = MemorySink()
        receiver = ObjectReceiver(ref, sink)
        try:
            for piece in split(stored, at):
                receiver.write(piece)
            receiver.finish()
        except (CodecError, HashMismatch):
            continue
        assert ref is honest
        content = sink.getvalue()
        assert len(content) == size or size is None
        assert content == (zlib.decompress(stored) if codec is Codec.ZLIB else stored)


# --- the cache -----------------------------------------------------------------------------

QUOTA = 10_000
SIZES = [2500, 3000, 1, 2000, 4000, 0]
NAMES = [*range(11)]


def ref_of(name: int) -> ObjectRef:
    content = content_of(name)
    return ObjectRef(Algorithm.SHA1.digest(content), codec=Codec.NONE, size=len(content))


def content_of(name: int) -> bytes:
    return bytes([name]) * SIZES[name % len(SIZES)]


class CacheMachine(RuleBasedStateMachine):
    """A cache beside a model: names in the order of their last use, pins, handles, writers."""

    @initialize()
    def start(self) -> None:
        self.stack = contextlib.ExitStack()
        folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.settings_ = CacheSettings(Path(folder) / "cache", limit=QUOTA)
        self.cache = LocalCache.open(self.settings_)
        self.order: list[int] = []
        self.pinned: set[int] = set()
        self.handles: list[tuple[int, FileHandle]] = []
        self.writers: list[tuple[int, CacheWriter]] = []

    # What is used: by content in the cache, and by what is being written.

    def temporary(self) -> int:
        return sum(len(content_of(name)) for name, _ in self.writers)

    def used(self) -> int:
        return sum(len(content_of(name)) for name in self.order)

    def expect_room(self, size: int) -> bool:
        """Evict in the model as the cache must; False if there cannot be room."""
        held = {name for name, _ in self.handles} | self.pinned
        while self.used() + self.temporary() + size > QUOTA:
            goal = min(int(QUOTA * LOW_WATER), QUOTA - size)
            freed = False
            for name in list(self.order):
                if self.used() + self.temporary() <= goal:
                    break
                if name not in held:
                    self.order.remove(name)
                    freed = freed or bool(content_of(name))
            if not freed:
                return False
        return True

    @rule(name=st.sampled_from(NAMES))
    def begin(self, name: int) -> None:
        if name in self.order or any(name == other for other, _ in self.writers):
            return
        writer = self.cache.create(ref_of(name))
        if not self.expect_room(len(content_of(name))):
            with contextlib.suppress(QuotaExceeded), writer:
                raise AssertionError("there is no room for it")
            return
        writer.__enter__()
        self.writers.append((name, writer))
        assert self.cache.has(ref_of(name)) is False

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), keep=st.booleans())
    def finish(self, data: st.DataObject, keep: bool) -> None:
        self.end(data.draw(st.integers(0, len(self.writers) - 1)), keep)

    def end(self, number: int, keep: bool) -> None:
        name, writer = self.writers.pop(number)
        content = content_of(name)
        with contextlib.ExitStack() as stack:
            stack.push(writer)
            writer.write(b"from an attempt that failed"[: len(content)])
            writer.restart()
            writer.write(content)
            handle = writer.commit()
        assert handle.read_all() == content
        self.order.append(name)
        if keep:
            self.handles.append((name, handle))
        else:
            handle.close()

    @rule(name=st.sampled_from(NAMES), keep=st.sampled_from([False, False, False, True]))
    def put(self, name: int, keep: bool) -> None:
        before = len(self.writers)
        self.begin(name)
        if len(self.writers) > before:
            self.end(before, keep)

    @precondition(lambda self: self.writers)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        name, writer = self.writers.pop(data.draw(st.integers(0, len(self.writers) - 1)))
        writer.write(content_of(name))
        writer.__exit__(None, None, None)

    @rule(name=st.sampled_from(NAMES), keep=st.booleans())
    def get(self, name: int, keep: bool) -> None:
        handle = self.cache.get(ref_of(name))
        assert (handle is not None) == (name in self.order)
        if handle is None:
            return
        assert handle.read_all() == content_of(name)
        self.order.remove(name)
        self.order.append(name)
        if keep:
            self.handles.append((name, handle))
        else:
            handle.close()

    @precondition(lambda self: self.handles)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        name, handle = self.handles.pop(data.draw(st.integers(0, len(self.handles) - 1)))
        assert handle.read_all() == content_of(name)
        handle.close()

    @rule(name=st.sampled_from(NAMES), pinned=st.booleans())
    def pin(self, name: int, pinned: bool) -> None:
        change = self.cache.pin if pinned else self.cache.unpin
        assert change(ref_of(name).key) == (name in self.order)
        if name in self.order:
            (self.pinned.add if pinned else self.pinned.discard)(name)

    @rule(name=st.sampled_from(NAMES))
    def evict(self, name: int) -> None:
        held = any(name == other for other, _ in self.handles)
        assert self.cache.evict(ref_of(name).key) == (name in self.order and not held)
        if name in self.order and not held:
            self.order.remove(name)
            self.pinned.discard(name)

    @rule()
    def reopen(self) -> None:
        self.cache.close()
        for _, writer in self.writers:
            writer.__exit__(None, None, None)
        self.writers.clear()
        self.cache = LocalCache.open(self.settings_)

    @invariant()
    def the_cache_holds_what_the_model_holds(self) -> None:
        if not hasattr(self, "cache"):
            return
        usage = self.cache.usage()
        assert usage.used == self.used()
        assert usage.temporary == self.temporary()
        assert usage.used + usage.temporary <= QUOTA
        assert usage.pinned == sum(len(content_of(name)) for name in self.pinned)
        files = {key for key, _ in self.cache.layout.object_keys()}
        assert files == {ref_of(name).key for name in self.order}
        assert len(self.cache.layout.temporary_files()) == len(self.writers)

    def teardown(self) -> None:
        if not hasattr(self, "cache"):
            return
        for _, handle in self.handles:
            handle.close()
        for _, writer in self.writers:
            writer.__exit__(None, None, None)
        recent = [entry.key for entry in self.cache.entries()]
        assert recent == [ref_of(name).key for name in reversed(self.order)]
        assert fsck(self.cache).problems == ()
        self.cache.close()
        self.stack.close()


CacheMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestTheCacheAgreesWithItsModel = CacheMachine.TestCase
