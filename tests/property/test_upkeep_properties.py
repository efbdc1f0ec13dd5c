"""Counting and repairing random repositories."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.histories import Tree, first_of, histories, publish_next

from lazyfs.publish.target_store import opened_store
from lazyfs.publish.verify import VerifyOptions, repair_target, verify_target
from lazyfs.repository.usage import catalog_usage, directory_usage

relaxed = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))


@relaxed
@given(histories(most=3))
def test_what_is_counted_is_what_a_walk_finds(history: list[Tree]) -> None:
    with tempfile.TemporaryDirectory(prefix="lazyfs-usage-") as folder:
        made = first_of(Path(folder), history)
        for tree in history[1:]:
            publish_next(made, tree)
        with (
            opened_store(made.publisher.ledger.target) as store,
            store.revision(made.fqrn, made.result.root_hash) as revision,
        ):
            nodes = list(revision.walk())

            def below(top: bytes) -> tuple[int, int]:
                found = [n for n in nodes if n.path == top or n.path.startswith(top + b"/")]
                return len(found), sum(n.size for n in found if n.is_file)

            directories = list(directory_usage(revision, depth=None))
            assert {u.path for u in directories} == {n.path for n in nodes if n.is_dir}
            assert all((u.entries, u.bytes) == below(u.path) for u in directories)
            mountpoints = {n.path for n in nodes if n.mountpoint} | {b""}
            catalogs = list(catalog_usage(revision))
            assert {u.mountpoint for u in catalogs} == mountpoints
            for usage in catalogs:
                assert (usage.total_entries, usage.total_bytes) == below(usage.mountpoint)
                inner = [m for m in mountpoints if (m + b"/").startswith(usage.mountpoint + b"/")]
                assert usage.catalogs == len(inner)


@relaxed
@given(histories(most=3), st.data())
def test_whatever_objects_of_files_are_lost_is_made_again(
    history: list[Tree], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory(prefix="lazyfs-repair-") as name:
        folder = Path(name)
        made = first_of(folder, history)
        for tree in history[1:]:
            publish_next(made, tree)
        stored = [p for p in (made.root / "data").glob("??/*") if p.name[-1] not in "CHXM"]
        before = {path: path.read_bytes() for path in stored}
        for path in stored:
            match data.draw(st.sampled_from(["keep", "lose", "cut"])):
                case "lose":
                    path.unlink()
                case "cut":
                    path.write_bytes(before[path][:-1])
        target, trusted = made.publisher.ledger.target, made.keys.trusted
        found = verify_target(target, made.fqrn, trusted)
        report = repair_target(target, made.fqrn, trusted, folder / "tree")
        assert report.problems == ()
        assert bool(found.problems) == bool(report.mended)
        assert verify_target(target, made.fqrn, trusted).problems == ()
        for mended in report.mended:
            path = made.root / "data" / mended.object[:2] / mended.object[2:]
            assert path.read_bytes() == before[path]
        # What older revisions need and the tree has no more is told where it is looked for.
        old = repair_target(target, made.fqrn, trusted, folder / "tree", VerifyOptions(tags=True))
        assert all("cannot be repaired" in problem.message for problem in old.problems)
