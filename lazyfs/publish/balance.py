"""`plan_catalogs`: where a catalog that has become too large is split. Pure.

Source: upstream ``catalog_balancer_impl.h``: from the deepest directories up, whatever is too
heavy gives away its heaviest subdirectories. Here a subtree may be as heavy as a catalog may be;
upstream splits down to half of that, which a caller that wants room to grow asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lazyfs.errors import ConfigError
from lazyfs.repository.pathhash import is_below

MARKERS = 2
"""Entries that a directory gains as the root of such a catalog: its marker, and the one that says
that no one but the publisher wanted it."""


@dataclass(frozen=True, slots=True)
class CatalogWeights:
    """How many entries a catalog has, its root among them.

    Raises:
        ConfigError: they contradict each other.
    """

    maximum: int = 100_000
    """A catalog with more is split, if it can be."""
    minimum: int = 1_000
    """No catalog is made for less."""

    def __post_init__(self) -> None:
        if not 0 < self.minimum <= self.maximum:
            raise ConfigError(
                f"catalogs of {self.minimum} to {self.maximum} entries cannot be",
                hint="give a minimum of at least 1, and a maximum that is not below it",
            )


def plan_catalogs(
    mountpoint: bytes, entries: Mapping[bytes, int], weights: CatalogWeights
) -> tuple[bytes, ...]:
    """The directories at which nested catalogs should begin, those above before those below.

    As few as will do, heaviest first; none if the catalog is light enough. What remains too heavy
    has no directory left that would make a catalog of the minimum: a flat directory cannot be
    split.

    Args:
        mountpoint: The root of the catalog.
        entries: Its directories, and how many entries each has directly in it, as far as they
            belong to this catalog; where a nested catalog begins already counts as one entry, and
            is no directory here. Those without entries may be missing.
        weights: What a catalog should weigh.
    """
    if 1 + sum(entries.values()) <= weights.maximum:
        return ()
    # What all directories below a directory add to its own entries, and the heavy ones of them.
    below: dict[bytes, int] = {}
    heavy: dict[bytes, list[tuple[int, bytes]]] = {}
    chosen: list[bytes] = []
    for path in _deepest_first(mountpoint, entries):
        weight = 1 + entries.get(path, 0) + below.pop(path, 0)
        room = weights.maximum - (MARKERS if path != mountpoint else 0)
        # The heaviest first, of equals the one whose name comes first.
        for negative, child in sorted(heavy.pop(path, ())):
            if weight <= room:
                break
            chosen.append(child)
            weight += negative
        if path == mountpoint:
            break
        parent = path.rpartition(b"/")[0]
        below[parent] = below.get(parent, 0) + weight - 1
        # A catalog for an empty directory would make nothing lighter.
        if weight >= max(weights.minimum, 2):
            heavy.setdefault(parent, []).append((1 - weight, path))
    return tuple(sorted(chosen, key=lambda path: path.split(b"/")))


def _deepest_first(mountpoint: bytes, entries: Mapping[bytes, int]) -> list[bytes]:
    """All directories of the catalog, also those that only others name; its root last."""
    found = {mountpoint}
    for path in entries:
        if not is_below(path, mountpoint):
            raise ValueError(f"{path!r} does not lie below {mountpoint!r}")
        while path not in found:
            found.add(path)
            path = path.rpartition(b"/")[0]
    return sorted(found, key=lambda path: (-path.count(b"/"), path))
