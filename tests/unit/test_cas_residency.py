from __future__ import annotations

import os
from pathlib import Path

import pytest

from lazyfs.cas import residency
from lazyfs.cas.residency import is_resident


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(1 << 20))
    return path


def test_what_was_just_written_is_in_memory(path: Path) -> None:
    with path.open("rb") as file:
        assert is_resident(file.fileno(), 1 << 20)


def test_what_was_dropped_is_not(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert not is_resident(file.fileno(), 1 << 20)


def test_what_cannot_be_told_is_not(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with path.open("rb") as file:
        assert not is_resident(file.fileno(), (1 << 20) + 1)  # it ends before
        monkeypatch.setattr(residency, "MOST_BYTES", 1000)
        assert not is_resident(file.fileno(), 1001)
        fd = os.dup(file.fileno())
    os.close(fd)
    assert not is_resident(fd, 1000)
