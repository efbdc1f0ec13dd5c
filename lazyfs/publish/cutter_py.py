"""The chunk cutter in Python; ``native/chunker.c`` is its fast twin, with the same tests.

Source: upstream ``ingestion/chunk_detector.cc``, signed 32-bit wrap-around arithmetic included.
"""

from __future__ import annotations

WINDOW = 32
"""Bytes that the rolling value depends on, one for each of its bits."""

_MASK = 0xFFFFFFFF
_CENTRE = 0x7FFFFFFF


def cut_marks(
    data: bytes | memoryview,
    position: int,
    last: int,
    value: int,
    minimum: int,
    average: int,
    maximum: int,
) -> tuple[list[int], int, int]:
    """The cuts that a piece of a stream brings.

    Args:
        data: The next bytes of the stream.
        position: Offset of their first byte in the stream.
        last: Offset of the last cut; 0 at the beginning.
        value: The rolling value; 0 at the beginning.
        minimum: Smallest chunk in bytes, at least 32.
        average: Larger than ``minimum``.
        maximum: Larger than ``average``.

    Returns:
        Offsets of the first byte of each new chunk, and the new ``last`` and ``value``.

    Raises:
        ValueError: the sizes do not fit together.
    """
    if not WINDOW <= minimum < average < maximum or last > position:
        raise ValueError("need 32 <= minimum < average < maximum, last <= position")
    threshold = _MASK // average
    view = memoryview(data)
    marks: list[int] = []
    end = position + len(view)
    i = position
    while i < end:
        begin = last + minimum - WINDOW
        if i < begin:
            i = min(begin, end)
            continue
        cut = i == last + maximum
        if not cut:
            value = (value << 1 ^ view[i - position]) & _MASK
            cut = i >= last + minimum and _is_mark(value, threshold)
        if cut:
            marks.append(i)
            last, value = i, 0
        else:
            i += 1
    return marks, last, value


def _is_mark(value: int, threshold: int) -> bool:
    distance = (value - _CENTRE) & _MASK
    return distance < threshold or -distance & _MASK < threshold or distance == 1 << 31
