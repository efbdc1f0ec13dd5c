from __future__ import annotations

import os
from pathlib import Path

from support.histories import MARKER, SIZES
from support.publishing import HardLink, Symlink, make_repository

from lazyfs.cas.digest import ObjectKind
from lazyfs.publish.target_store import opened_store
from lazyfs.publish.target_usage import target_usage
from lazyfs.repository.usage import catalog_usage, directory_usage


def test_usage_of_what_was_published(tmp_path: Path) -> None:
    made = make_repository(
        tmp_path,
        {
            "a": b"12345",
            "b": HardLink("a"),
            "d/x": os.urandom(700),
            "d/l": Symlink("x"),
            f"n/{MARKER}": b"",
            "n/y": b"y" * 30,
        },
        sizes=SIZES,
    )
    target = made.publisher.ledger.target
    with (
        opened_store(target) as store,
        store.revision(made.fqrn, made.result.root_hash) as revision,
    ):
        found = {u.path: u for u in directory_usage(revision)}
        nodes = list(revision.walk())
        assert found[b""].entries == len(nodes)
        assert found[b""].bytes == 5 + 700 + 30
        assert (found[b"/n"].entries, found[b"/n"].bytes) == (3, 30)
        root, nested = catalog_usage(revision)
        assert root.total_entries == len(nodes)
        assert root.total_bytes == sum(n.size for n in nodes if n.is_file)
        assert (nested.entries, nested.bytes, nested.size > 0) == (3, 30, True)


def test_usage_of_a_target(tmp_path: Path) -> None:
    made = make_repository(tmp_path, {"a": b"12345", "b": b"other"})
    (made.root / "data" / "txn" / "left").write_bytes(b"123")
    seen: list[tuple[int, int]] = []
    usage = target_usage(made.publisher.ledger.target, progress=lambda *at: seen.append(at))
    files = list((made.root / "data").glob("[0-9a-f][0-9a-f]/*"))
    assert usage.total.objects == len(files)
    assert usage.total.bytes == sum(p.stat().st_size for p in files)
    assert usage.by_kind[ObjectKind.FILE].objects == 2
    assert usage.by_kind[ObjectKind.CATALOG].objects == 2  # the empty revision has one
    assert usage.by_kind[ObjectKind.CHUNK].objects == 0
    assert usage.other.bytes >= 3
    assert seen[-1][0] == usage.total.objects + usage.other.objects
