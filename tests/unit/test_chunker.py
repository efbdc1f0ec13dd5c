from __future__ import annotations

import hashlib
import threading

import pytest

from lazyfs.errors import ConfigError
from lazyfs.publish import cutter_py
from lazyfs.publish.cutter import LARGEST_CHUNK, ChunkSizes, CutMarks, Cutter, native_cut_marks

DATA = hashlib.shake_128(b"cvmfs").digest(1 << 20)
SMALL = ChunkSizes(1024, 2048, 4096)
LARGE = ChunkSizes(65536, 131072, 262144)


@pytest.fixture(params=["python", "native"])
def twin(request: pytest.FixtureRequest) -> CutMarks:
    if request.param == "python":
        return cutter_py.cut_marks
    native = native_cut_marks()
    if native is None:
        pytest.skip("the C extension is not built")
    return native


def test_reference_vector_of_large_chunks(twin: CutMarks) -> None:
    assert Cutter(LARGE, twin).feed(DATA) == [
        103569, 305517, 396957, 489280, 580241, 689661, 788775, 866940, 983379,
    ]  # fmt: skip


def test_reference_vector_of_small_chunks(twin: CutMarks) -> None:
    cuts = Cutter(SMALL, twin).feed(DATA)
    assert len(cuts) == 513
    assert cuts[:12] == [
        1157, 2510, 5266, 7077, 8319, 9614, 12025, 13696, 16560, 18195, 20057, 21143,
    ]  # fmt: skip


@pytest.mark.parametrize("piece", [1, 31, 32, 33, 1023, 1024, 4096, 100_000])
def test_pieces_of_any_size_give_the_same_cuts(twin: CutMarks, piece: int) -> None:
    data = DATA[:200_000] if piece > 1 else DATA[:20_000]
    cutter = Cutter(SMALL, twin)
    cuts = [cut for at in range(0, len(data), piece) for cut in cutter.feed(data[at : at + piece])]
    assert cuts == Cutter(SMALL, twin).feed(data)
    assert cuts


def test_forced_cut_at_the_maximum_needs_a_byte_after_it(twin: CutMarks) -> None:
    # Zeros never make a mark of their own: the rolling value stays 0.
    assert Cutter(SMALL, twin).feed(bytes(4096)) == []
    assert Cutter(SMALL, twin).feed(bytes(4097)) == [4096]
    assert Cutter(SMALL, twin).feed(bytes(12289)) == [4096, 8192, 12288]


def test_value_of_all_ones_is_a_mark(twin: CutMarks) -> None:
    # abs(INT_MIN) does not exist in 32 bits, and upstream's comparison takes it for small. Bytes
    # of 1 fill the value with ones in 32 steps, which the window before the minimum just gives.
    assert Cutter(SMALL, twin).feed(b"\x01" * 2000) == [1024]


def test_smallest_window(twin: CutMarks) -> None:
    sizes = ChunkSizes(32, 64, 128)
    cuts = Cutter(sizes, twin).feed(DATA[:20_000])
    gaps = [b - a for a, b in zip([0, *cuts], cuts, strict=False)]
    assert min(gaps) >= 32
    assert max(gaps) <= 128
    assert cuts == Cutter(sizes, cutter_py.cut_marks).feed(DATA[:20_000])


def test_short_and_empty_input_is_not_cut(twin: CutMarks) -> None:
    cutter = Cutter(SMALL, twin)
    assert cutter.feed(b"") == []
    assert cutter.feed(DATA[:1024]) == []


def test_any_bytes_like_object_is_taken(twin: CutMarks) -> None:
    expected = Cutter(SMALL, twin).feed(DATA)
    assert Cutter(SMALL, twin).feed(memoryview(DATA)) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        (b"", 0, 0, 0, 31, 64, 128),
        (b"", 0, 0, 0, 64, 64, 128),
        (b"", 0, 0, 0, 64, 128, 128),
        (b"", 0, 1, 0, 64, 128, 256),
    ],
)
def test_twins_refuse_what_cannot_be(
    twin: CutMarks, arguments: tuple[bytes, int, int, int, int, int, int]
) -> None:
    with pytest.raises(ValueError, match="32 <= minimum"):
        twin(*arguments)


def test_text_is_refused(twin: CutMarks) -> None:
    with pytest.raises(TypeError):
        twin("text", 0, 0, 0, 64, 128, 256)  # type: ignore[arg-type]


def test_many_threads_do_not_disturb_each_other(twin: CutMarks) -> None:
    expected = Cutter(SMALL, twin).feed(DATA[:100_000])
    found: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: found.append(Cutter(SMALL, twin).feed(DATA[:100_000])))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


@pytest.mark.parametrize(
    "sizes", [(31, 64, 128), (64, 64, 128), (64, 128, 128), (64, 128, LARGEST_CHUNK + 1)]
)
def test_sizes_that_cannot_be_used(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        ChunkSizes(*sizes)
