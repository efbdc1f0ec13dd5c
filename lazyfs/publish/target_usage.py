"""How much a target stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from lazyfs.cas.digest import ObjectKind, parse_object_path
from lazyfs.publish.target import UploadTarget

Progress = Callable[[int, int], None]
"""Called with the objects counted so far, and 0: nobody knows how many there are."""


@dataclass(frozen=True, slots=True)
class StoredUsage:
    """Objects and what they take."""

    objects: int
    bytes: int
    """As they are stored."""


@dataclass(frozen=True, slots=True)
class TargetUsage:
    """What a target stores."""

    total: StoredUsage
    """All objects."""
    by_kind: dict[ObjectKind, StoredUsage]
    """Every kind is there."""
    other: StoredUsage
    """What lies among the objects and is none: leases, and what killed publishers left."""


def target_usage(target: UploadTarget, *, progress: Progress | None = None) -> TargetUsage:
    """What ``target`` stores, whether a revision needs it or not.

    Raises:
        PublishError: it cannot be listed.
    """
    objects: Counter[ObjectKind | None] = Counter()
    sizes: Counter[ObjectKind | None] = Counter()
    for seen, stored in enumerate(target.objects(), start=1):
        found = parse_object_path(stored.path)
        kind = found[1] if found is not None else None
        objects[kind] += 1
        sizes[kind] += stored.size
        if progress is not None:
            progress(seen, 0)
    other = StoredUsage(objects.pop(None, 0), sizes.pop(None, 0))
    return TargetUsage(
        StoredUsage(objects.total(), sizes.total()),
        {kind: StoredUsage(objects[kind], sizes[kind]) for kind in ObjectKind},
        other,
    )
