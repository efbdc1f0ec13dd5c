from __future__ import annotations

from pathlib import Path

import pytest

from lazyfs.cas.digest import Algorithm, Digest, ObjectKind
from lazyfs.errors import PublishError
from lazyfs.publish import marks as marks_module
from lazyfs.publish.marks import Marks


def digest(number: int, algorithm: Algorithm = Algorithm.SHA1) -> Digest:
    return Digest(algorithm, Algorithm.SHA1.digest(b"%d" % number).raw)


def test_what_is_marked_is_needed_in_memory_and_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marks_module, "_BATCH", 7)
    with Marks(tmp_path / "marks") as marks:
        for number in [*range(50), *range(20)]:
            marks.need(digest(number), ObjectKind.FILE)
        assert all(marks.is_needed(digest(number), ObjectKind.FILE) for number in range(50))
        assert not marks.is_needed(digest(50), ObjectKind.FILE)


def test_kind_and_algorithm_count(tmp_path: Path) -> None:
    with Marks(tmp_path / "marks") as marks:
        marks.need(digest(1), ObjectKind.CHUNK)
        assert marks.is_needed(digest(1), ObjectKind.CHUNK)
        assert not marks.is_needed(digest(1), ObjectKind.FILE)
        assert not marks.is_needed(digest(1, Algorithm.RMD160), ObjectKind.CHUNK)


def test_the_condemned_come_in_batches(tmp_path: Path) -> None:
    with Marks(tmp_path / "marks") as marks:
        assert list(marks.condemned(10)) == []
        assert not marks.any_condemned()
        for number in range(25):
            marks.condemn(f"data/{number}", number)
            marks.is_needed(digest(number), ObjectKind.FILE)
        assert marks.any_condemned()
        batches = list(marks.condemned(10))
        assert [len(batch) for batch in batches] == [10, 10, 5]
        assert [pair for batch in batches for pair in batch] == [
            (f"data/{number}", number) for number in range(25)
        ]


def test_a_full_disk_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="room for temporary files"):
        Marks(tmp_path / "none" / "marks")
