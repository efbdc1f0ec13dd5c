"""What goes to an object store and comes from it: nouns for `S3Client` and `S3Target`."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from lazyfs.errors import PublishError

WHOLE_SIZE = 16 << 20
"""Up to this size, which no chunk of a file exceeds by default, an object is one request."""

PART_SIZE = 8 << 20
"""Larger objects go in parts: what one upload holds in memory, for each part on its way."""

MAX_PARTS = 10_000
"""S3's limit."""

OBJECT_SECONDS = 259_200
DOCUMENT_SECONDS = 61
"""For how long caches may keep things, as the real server says."""


@dataclass(frozen=True, slots=True)
class Form:
    """How an object is served."""

    content_type: str = "application/octet-stream"
    cache_control: str = f"max-age={OBJECT_SECONDS}"


@dataclass(frozen=True, slots=True)
class Answer:
    """An object on its way here."""

    etag: str
    pieces: Generator[bytes, None, None]
    """Its bytes; raises `NetworkError`."""


class Unsettled(Exception):
    """A conditional write may or may not have happened.

    Args:
        error: To be raised if nothing tells.
    """

    def __init__(self, error: PublishError) -> None:
        super().__init__(str(error))
        self.error = error


def served_as(path: str) -> Form:
    """What readers and caches are told of the object at ``path``."""
    name = path.rpartition("/")[2]
    if path.startswith("data/txn/"):
        return Form(cache_control="no-store")
    if name.startswith(".cvmfsalt-"):
        return Form("application/x-cvmfs")
    if name.endswith(".json"):
        return Form("application/json", f"max-age={DOCUMENT_SECONDS}")
    if name.startswith(".cvmfs"):
        return Form("application/x-cvmfs", f"max-age={DOCUMENT_SECONDS}")
    return Form()
