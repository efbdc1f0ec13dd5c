"""`SparseMap`: which bytes of a sparse file a tar has; all others are zeros.

Source: GNU tar's manual, "Storing Sparse Files": one form for GNU archives, three for pax.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from lazyfs.errors import FormatError
from lazyfs.publish.tar_header import BLOCK, Records, parse_decimal, parse_number
from lazyfs.repository.row import MAX_SIZE

MAX_EXTENTS = 1 << 18
"""Of one file."""

_GNU_EXTENTS = slice(386, 482)
_GNU_IS_EXTENDED = 482
_GNU_SIZE = slice(483, 495)
_MORE_EXTENTS = slice(0, 504)
_MORE_IS_EXTENDED = 504
_NUMBER_BYTES = 20


@dataclass(frozen=True, slots=True)
class SparseMap:
    """Where the bytes that are stored belong.

    Raises:
        FormatError: the extents overlap, go back, or leave the file.
    """

    size: int
    """Of the file, holes included."""
    extents: tuple[tuple[int, int], ...]
    """Offset and length of each."""

    def __post_init__(self) -> None:
        position = 0
        for offset, length in self.extents:
            if offset < position or length < 0:
                raise FormatError("the map of a sparse file is out of order")
            position = offset + length
        if not position <= self.size <= MAX_SIZE:
            raise FormatError("the map of a sparse file leaves the file")

    @classmethod
    def pairs(cls, size: int, numbers: Sequence[int]) -> Self:
        """A map from offsets and lengths in turn.

        Raises:
            FormatError: they cannot be.
        """
        if len(numbers) % 2 or len(numbers) > 2 * MAX_EXTENTS:
            raise FormatError("the map of a sparse file is incomplete, or too long")
        return cls(size, tuple(zip(numbers[::2], numbers[1::2], strict=True)))

    @property
    def stored(self) -> int:
        """How many bytes are stored."""
        return sum(length for _, length in self.extents)

    def runs(self) -> Iterator[tuple[int, bool]]:
        """The file from its begin to its end: so many bytes, and whether they are stored."""
        position = 0
        for offset, length in self.extents:
            yield offset - position, False
            yield length, True
            position = offset + length
        yield self.size - position, False


def read_gnu_map(header: bytes, read_block: Callable[[], bytes]) -> SparseMap:
    """The map that begins in the header of a GNU archive.

    Args:
        header: The header block.
        read_block: Gives the blocks that follow it.

    Raises:
        FormatError: it is damaged.
    """
    numbers = _gnu_numbers(header[_GNU_EXTENTS])
    more = header[_GNU_IS_EXTENDED]
    while more:
        if len(numbers) > 2 * MAX_EXTENTS:
            raise FormatError("the map of a sparse file is too long")
        block = read_block()
        numbers += _gnu_numbers(block[_MORE_EXTENTS])
        more = block[_MORE_IS_EXTENDED]
    return SparseMap.pairs(parse_number(header[_GNU_SIZE]), numbers)


def _gnu_numbers(data: bytes) -> list[int]:
    """The numbers of the pairs that are in use."""
    numbers: list[int] = []
    for at in range(0, len(data), 24):
        offset, length = data[at : at + 12], data[at + 12 : at + 24]
        if not length[0]:
            break
        numbers += (parse_number(offset), parse_number(length))
    return numbers


def parse_pax_map(size: bytes, records: Records) -> SparseMap:
    """The map in the records of an extended header, as the versions 0.0 and 0.1 have it.

    Raises:
        FormatError: it is damaged.
    """
    numbers: list[int] = []
    for key, value in records:
        if key == b"GNU.sparse.map":
            numbers = [parse_decimal(number) for number in value.split(b",") if value]
        elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            if len(numbers) % 2 != (key == b"GNU.sparse.numbytes"):
                raise FormatError("the map of a sparse file is out of order")
            numbers.append(parse_decimal(value))
    return SparseMap.pairs(parse_decimal(size), numbers)


def read_stored_map(size: bytes, read_block: Callable[[], bytes]) -> tuple[SparseMap, int]:
    """The map before the content, as version 1.0 has it, and how many bytes it takes there.

    Args:
        size: Of the file.
        read_block: Gives the blocks of the content.

    Raises:
        FormatError: it is damaged.
    """
    numbers: list[int] = []
    rest, taken = b"", 0
    # The first number says how many pairs follow.
    while not numbers or len(numbers) < 1 + 2 * numbers[0]:
        if len(rest) > _NUMBER_BYTES or len(numbers) > 2 * MAX_EXTENTS:
            raise FormatError("the map of a sparse file is damaged, or too long")
        *lines, rest = (rest + read_block()).split(b"\n")
        taken += BLOCK
        numbers += [parse_decimal(line) for line in lines]
    if len(numbers) != 1 + 2 * numbers[0]:
        raise FormatError("the map of a sparse file is longer than it says")
    return SparseMap.pairs(parse_decimal(size), numbers[1:]), taken
