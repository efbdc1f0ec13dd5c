"""`Cutter`: where a stream is cut into chunks."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from lazyfs.errors import ConfigError
from lazyfs.publish import cutter_py

LARGEST_CHUNK = 1 << 30
"""Clients fetch chunks whole."""

CutMarks = Callable[[bytes | memoryview, int, int, int, int, int, int], tuple[list[int], int, int]]


def native_cut_marks() -> CutMarks | None:
    """The C twin, or None where it is not built."""
    try:
        found: CutMarks = importlib.import_module("lazyfs._native").cut_marks
    except ImportError:
        return None
    return found


@dataclass(frozen=True, slots=True)
class ChunkSizes:
    """Sizes of chunks in bytes; the defaults are the real server's.

    Raises:
        ConfigError: they do not rise, or leave the bounds of the algorithm.
    """

    minimum: int = 4 << 20
    average: int = 8 << 20
    maximum: int = 16 << 20

    def __post_init__(self) -> None:
        rising = self.minimum < self.average < self.maximum
        if not rising or self.minimum < cutter_py.WINDOW or self.maximum > LARGEST_CHUNK:
            raise ConfigError(
                f"chunk sizes {self.minimum}, {self.average}, {self.maximum} cannot be used",
                hint=f"they must rise, from {cutter_py.WINDOW} to {LARGEST_CHUNK} bytes at most",
            )


class Cutter:
    """Cuts one stream; feed it pieces of any size.

    Args:
        sizes: Bounds and average.
        cut_marks: The twin to use; None: the C one where it is built.
    """

    def __init__(self, sizes: ChunkSizes, cut_marks: CutMarks | None = None) -> None:
        self._sizes = sizes
        self._cut_marks = cut_marks or native_cut_marks() or cutter_py.cut_marks
        self._position = self._last = self._value = 0

    def feed(self, data: bytes | memoryview) -> list[int]:
        """Offsets in the stream at which new chunks begin within ``data``."""
        sizes = self._sizes
        marks, self._last, self._value = self._cut_marks(
            data,
            self._position,
            self._last,
            self._value,
            sizes.minimum,
            sizes.average,
            sizes.maximum,
        )
        self._position += len(data)
        return marks
