from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from support.catalogs import CatalogBuilder
from support.histories import MARKER, Tree, first_of, lay_out, publish_next
from support.publishing import PublishedRepository, make_repository
from support.watched_target import Killed, WatchedTarget

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Algorithm, Digest, ObjectKind
from lazyfs.errors import ConfigError, PublishError, VerificationError
from lazyfs.publish.content import ContentStore
from lazyfs.publish.directory_source import DirectorySource
from lazyfs.publish.directory_target import DirectoryTarget
from lazyfs.publish.gc import GcReport, collect_garbage
from lazyfs.publish.gc_mark import Marker
from lazyfs.publish.gc_roots import GcPolicy, KeptRevision
from lazyfs.publish.history_writer import REFLOG_CATALOG, Reference, dump_reflog
from lazyfs.publish.keys import RepositoryKeys
from lazyfs.publish.known_revision import KnownRevision, read_revision
from lazyfs.publish.lease import LEASE_PATH, break_lease, held
from lazyfs.publish.ledger import REFLOG_PATH, Ledger
from lazyfs.publish.marks import Marks
from lazyfs.publish.rollback import roll_back
from lazyfs.publish.signing import make_whitelist, sign_manifest, sign_whitelist
from lazyfs.publish.tag_editor import TagEditor
from lazyfs.publish.target_store import opened_store
from lazyfs.publish.verify import VerifyOptions, verify_target
from lazyfs.repository.authority import utc_now
from lazyfs.repository.check import check_revision
from lazyfs.repository.manifest import MANIFEST_PATH
from lazyfs.repository.whitelist import WHITELIST_PATH

NOW = GcPolicy(grace=-3600)
"""Nothing is too fresh to go."""


CHECKED = VerifyOptions(tags=True)


@pytest.fixture
def made(tmp_path: Path) -> PublishedRepository:
    """Revisions 1 (tagged v1), 2, 3, 4 (before the newest) and 5; each has a file of its own."""
    history = [tree(number) for number in range(1, 6)]
    repository = first_of(tmp_path, history, tag="v1")
    for following in history[1:]:
        publish_next(repository, following)
    return repository


def tree(number: int) -> Tree:
    return {
        "always": b"always",
        "own": b"content of %d" % number,
        f"n/{MARKER}": b"",
        "n/own": b"nested content of %d" % number * 20,
        f"n/deep/{MARKER}": b"",
        "n/deep/always": b"deep",
    }


def watched(made: PublishedRepository) -> Ledger:
    return Ledger(WatchedTarget(made.root), made.keys, made.fqrn)


def target_of(ledger: Ledger) -> WatchedTarget:
    assert isinstance(ledger.target, WatchedTarget)
    return ledger.target


def files(made: PublishedRepository) -> dict[str, bytes]:
    return {
        str(path.relative_to(made.root)): path.read_bytes()
        for path in made.root.rglob("*")
        if path.is_file() and path.parent.name != "txn"
    }


def objects(made: PublishedRepository) -> set[str]:
    return {path for path in files(made) if path.startswith("data/")}


def needed(made: PublishedRepository, roots: Iterable[Digest]) -> set[str]:
    """What revisions and the manifest need, found by walking."""
    ledger = made.publisher.ledger
    manifest = ledger.head().manifest
    found = set()
    for digest, kind in (
        (manifest.certificate, ObjectKind.CERTIFICATE),
        (manifest.history, ObjectKind.HISTORY),
        (manifest.metainfo, ObjectKind.METAINFO),
    ):
        if digest is not None:
            found.add(digest.object_path(kind))
    with opened_store(ledger.target) as store:
        for root in roots:
            with store.revision(made.fqrn, root) as revision:
                for node in revision.walk():
                    if node.mountpoint or not node.path:
                        catalog = revision.tree.lister(node.path)
                        found.add(catalog.digest.object_path(ObjectKind.CATALOG))
                    if node.digest is not None:
                        found.add(node.digest.object_path())
                    for extent in revision.extents(node) if node.is_file else ():
                        found.add(extent.ref.digest.object_path(extent.ref.kind))
    return found


def check_all(made: PublishedRepository, roots: Iterable[Digest]) -> None:
    with opened_store(made.publisher.ledger.target) as store:
        for root in roots:
            with store.revision(made.fqrn, root) as revision:
                assert check_revision(revision).problems == ()


def numbers(report: GcReport) -> list[int]:
    return sorted(kept.revision.number for kept in report.kept)


def roots(report: GcReport) -> list[Digest]:
    return [kept.revision.root_hash for kept in report.kept]


# --- what stays and what goes --------------------------------------------------------------


def test_newest_and_tagged_revisions_stay_whole_and_nothing_else(
    made: PublishedRepository,
) -> None:
    before = objects(made)
    sizes = {path: len(content) for path, content in files(made).items()}
    report = collect_garbage(made.publisher.ledger, NOW)
    # The one before the newest has a tag that every publish moves.
    assert numbers(report) == [1, 4, 5]
    assert {k.revision.number: k.reasons for k in report.kept} == {
        1: ("tag v1",),
        4: ("tag trunk-previous",),
        5: ("newest", "tag trunk"),
    }
    after = objects(made)
    assert after == needed(made, roots(report))
    check_all(made, roots(report))
    assert report.removed_objects == len(before - after)
    assert report.removed_bytes == sum(sizes[path] for path in before - after)
    assert report.kept_objects == len(after)
    assert report.kept_bytes == sum(sizes[path] for path in after)
    assert not report.dry_run
    # Revisions 0, 2 and 3 went, with two catalogs each; the innermost one is in all.
    assert len(report.dropped) == 3
    assert report.catalogs == 3 * 2 + 1
    assert not {r.digest.object_path(ObjectKind.CATALOG) for r in report.dropped} & after


def test_the_manifest_is_that_of_the_same_revision(made: PublishedRepository) -> None:
    ledger = made.publisher.ledger
    before = ledger.head().manifest
    report = collect_garbage(ledger, NOW)
    after = ledger.head().manifest
    assert after == replace(before, reflog=after.reflog, timestamp=after.timestamp)
    assert after.timestamp >= before.timestamp
    reflog = (made.root / REFLOG_PATH).read_bytes()
    assert after.reflog == Algorithm.SHA1.digest(reflog)
    rows = {(r.digest, r.type) for r in ledger.references()}
    assert {digest for digest, kind in rows if kind == REFLOG_CATALOG} == set(roots(report))
    assert len(rows) == len(report.kept) + 2  # certificate and history


def test_the_second_time_nothing_is_left_to_do(made: PublishedRepository) -> None:
    collect_garbage(made.publisher.ledger, NOW)
    ledger = watched(made)
    report = collect_garbage(ledger, NOW)
    assert (report.removed_objects, report.dropped) == (0, ())
    assert target_of(ledger).steps == []


def test_the_last_ones_stay_as_many_as_asked_for(made: PublishedRepository) -> None:
    report = collect_garbage(made.publisher.ledger, replace(NOW, keep_last=3))
    assert numbers(report) == [1, 3, 4, 5]
    check_all(made, roots(report))
    # More than there are: the way back ends where revisions were collected.
    report = collect_garbage(made.publisher.ledger, replace(NOW, keep_last=9))
    assert numbers(report) == [1, 3, 4, 5]
    with pytest.raises(ConfigError):
        GcPolicy(keep_last=0)


def test_all_revisions_may_stay(made: PublishedRepository) -> None:
    before = objects(made)
    report = collect_garbage(made.publisher.ledger, replace(NOW, keep_last=9))
    assert numbers(report) == [0, 1, 2, 3, 4, 5]
    # Older history databases go all the same.
    assert {path[-1] for path in before - objects(made)} == {"H"}
    check_all(made, roots(report))


def test_revisions_since_a_date_stay(made: PublishedRepository) -> None:
    start = int(time.time())
    made.publisher.ledger = Ledger(
        made.publisher.ledger.target, made.keys, made.fqrn, clock=lambda: start + 1000
    )
    publish_next(made, tree(6))
    publish_next(made, tree(7))
    publish_next(made, tree(8))
    policy = replace(NOW, keep_since=start + 1000)
    report = collect_garbage(made.publisher.ledger, policy, clock=lambda: start + 9000)
    assert numbers(report) == [1, 6, 7, 8]
    assert [k.reasons for k in report.kept if k.revision.number == 6] == [("recent",)]


def test_documents_that_readers_may_still_hold_stay(made: PublishedRepository) -> None:
    histories = {path for path in objects(made) if path.endswith("H")}
    assert len(histories) == 6
    collect_garbage(made.publisher.ledger, GcPolicy(grace=3600))
    assert {path for path in objects(made) if path.endswith("H")} == histories
    collect_garbage(made.publisher.ledger, GcPolicy(grace=3600), clock=lambda: time.time() + 4000)
    assert len([path for path in objects(made) if path.endswith("H")]) == 1


def test_a_rollback_keeps_what_it_shows(made: PublishedRepository) -> None:
    roll_back(made.publisher.ledger, "v1")
    TagEditor(made.publisher.ledger).remove(["v1"])
    report = collect_garbage(made.publisher.ledger, NOW)
    assert numbers(report) == [5, 6]
    check_all(made, roots(report))


def test_publishing_goes_on_and_brings_back_what_was_removed(made: PublishedRepository) -> None:
    collect_garbage(made.publisher.ledger, NOW)
    result = publish_next(made, tree(3))
    assert result.revision == 6
    check_all(made, [result.root_hash])


def test_catalogs_that_revisions_share_are_read_once(made: PublishedRepository) -> None:
    ledger = watched(made)
    report = collect_garbage(ledger, NOW)
    with opened_store(made.publisher.ledger.target) as store:
        nested = {
            found.digest
            for root in roots(report)
            for path in (b"/n", b"/n/deep")
            for found in [store.revision(made.fqrn, root).tree.lister(path)]
        }
    assert len(nested) == 4
    assert {target_of(ledger).fetched[digest] for digest in nested} == {1}


def test_what_a_dry_run_tells_is_what_happens(made: PublishedRepository) -> None:
    before = files(made)
    with held(made.publisher.ledger.target, "test"):  # it keeps nobody out
        planned = collect_garbage(made.publisher.ledger, NOW, dry_run=True)
    assert files(made) == before
    done = collect_garbage(made.publisher.ledger, NOW)
    assert planned == replace(done, dry_run=True)
    assert done.removed_objects > 0


def test_progress_rises(made: PublishedRepository) -> None:
    seen: list[int] = []
    report = collect_garbage(
        made.publisher.ledger, NOW, progress=lambda done, total: seen.append(done)
    )
    assert seen == sorted(set(seen))
    assert seen[-1] >= report.catalogs + report.kept_objects + 2 * report.removed_objects


# --- litter --------------------------------------------------------------------------------


def test_what_killed_publishers_left_goes_when_it_is_old(made: PublishedRepository) -> None:
    staging = made.root / "data" / "txn"
    for name, age in (("old", 5000), ("young", 100)):
        (staging / name).write_bytes(b"12345")
        os.utime(staging / name, (time.time() - age,) * 2)
    for path in (made.root / LEASE_PATH, staging / "documents.lock"):
        os.utime(path, (1, 1))
    collect_garbage(made.publisher.ledger, GcPolicy(grace=3600))
    assert {path.name for path in staging.iterdir()} == {"young", "lease", "documents.lock"}


def test_what_has_no_name_of_an_object_stays(made: PublishedRepository) -> None:
    left = [
        made.root / "data" / "ab" / name
        for name in ("README", "cd" * 19 + "L", "cd" * 19 + "-sha3", "cd" * 20)
    ]
    for path in left:
        path.write_bytes(b"x")
    collect_garbage(made.publisher.ledger, NOW)
    assert all(path.exists() for path in left)


def test_what_an_interrupted_publish_left_goes(made: PublishedRepository) -> None:
    """Killed after the reflog, before the manifest: all is there but nobody is told."""
    before = (made.root / MANIFEST_PATH).read_bytes()
    lost = publish_next(made, tree(99)).root_hash
    (made.root / MANIFEST_PATH).write_bytes(before)
    report = collect_garbage(made.publisher.ledger, replace(NOW, keep_last=2))
    assert numbers(report) == [1, 4, 5]
    assert lost in {reference.digest for reference in report.dropped}
    assert objects(made) == needed(made, roots(report))


# --- refusals ------------------------------------------------------------------------------


def test_a_repository_that_is_not_collectable_is_left_alone(made: PublishedRepository) -> None:
    ledger = made.publisher.ledger
    manifest = replace(ledger.head().manifest, garbage_collectable=False)
    (made.root / MANIFEST_PATH).write_bytes(sign_manifest(manifest, made.keys.key, Algorithm.SHA1))
    before = files(made)
    for dry_run in (False, True):
        with pytest.raises(PublishError, match="not made for garbage collection"):
            collect_garbage(ledger, NOW, dry_run=dry_run)
    assert files(made) == before
    assert collect_garbage(ledger, NOW, force=True).removed_objects > 0
    assert not ledger.head().manifest.garbage_collectable


def catalog_paths(made: PublishedRepository, tag: str) -> dict[str, Path]:
    ledger = made.publisher.ledger
    root = next(t.root_hash for t in ledger.tags(ledger.head()) if t.name == tag)
    with opened_store(ledger.target) as store, store.revision(made.fqrn, root) as revision:
        return {
            path.decode(): made.root
            / revision.tree.lister(path).digest.object_path(ObjectKind.CATALOG)
            for path in (b"", b"/n", b"/n/deep")
        }


@pytest.mark.parametrize("path", ["", "/n", "/n/deep"])
@pytest.mark.parametrize("spoil", ["missing", "damaged"])
def test_nothing_goes_if_what_must_stay_cannot_be_read(
    made: PublishedRepository, path: str, spoil: str
) -> None:
    catalog = catalog_paths(made, "v1")[path]
    if spoil == "missing":
        catalog.unlink()
    else:
        catalog.write_bytes(catalog.read_bytes()[:-1])
    before = files(made)
    with pytest.raises(PublishError, match=r"to stay \((revision 1, )?tag v1\)|to stay"):
        collect_garbage(made.publisher.ledger, NOW)
    assert files(made) == before


def test_a_catalog_that_names_impossible_objects_stops_all(
    made: PublishedRepository,
) -> None:
    ledger = made.publisher.ledger
    store = ContentStore(ledger.target, Algorithm.SHA1)
    builder = CatalogBuilder().file(b"/x", Algorithm.SHA1.digest(b"x"), 1, flags=4 | 6 << 8)
    digest = store.put_bytes(builder.build(), ObjectKind.CATALOG)
    kept = KeptRevision(_read(made, digest), ("test",))
    with (
        opened_store(ledger.target) as reader,
        Marks(reader.workspace / "marks") as marks,
        pytest.raises(PublishError, match="no usable content hash"),
    ):
        Marker(reader, marks, 2, lambda: None).mark([kept])


def _read(made: PublishedRepository, digest: Digest) -> KnownRevision:
    with opened_store(made.publisher.ledger.target) as store:
        return read_revision(store, digest)


def test_without_a_reflog_nothing_goes(made: PublishedRepository) -> None:
    (made.root / REFLOG_PATH).unlink()
    before = files(made)
    with pytest.raises(PublishError, match="no reflog"):
        collect_garbage(made.publisher.ledger, NOW)
    (made.root / REFLOG_PATH).write_bytes(b"damaged" * 100)
    with pytest.raises(Exception, match="damaged database"):
        collect_garbage(made.publisher.ledger, NOW)
    (made.root / REFLOG_PATH).unlink()
    assert files(made) == before


def test_a_manifest_that_cannot_be_believed_decides_nothing(made: PublishedRepository) -> None:
    path = made.root / MANIFEST_PATH
    content = path.read_bytes()
    first = made.publisher.ledger.references()[0].digest
    manifest = made.publisher.ledger.head().manifest
    newest = str(manifest.root_catalog)
    forged = replace(manifest, root_catalog=first)
    other = make_repository(made.root.parent.parent / "x", {}, "other.example.org")
    for spoiled in (
        content.replace(newest.encode(), str(first).encode()),
        sign_manifest(forged, other.keys.key, Algorithm.SHA1),
    ):
        path.write_bytes(spoiled)
        before = files(made)
        with pytest.raises(VerificationError):
            collect_garbage(made.publisher.ledger, NOW)
        assert files(made) == before


def test_another_publisher_at_work_is_respected(made: PublishedRepository) -> None:
    before = files(made)
    with (
        held(made.publisher.ledger.target, "publish"),
        pytest.raises(PublishError, match="another publisher"),
    ):
        collect_garbage(made.publisher.ledger, NOW)
    assert files(made) == before


def test_who_lost_the_right_to_publish_removes_no_more(
    made: PublishedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lazyfs.publish.gc._BATCH", 2)
    ledger = watched(made)
    target = target_of(ledger)
    removed = []

    def lose() -> None:
        removed.append(len(target.steps))
        if len(removed) == 2:
            (made.root / LEASE_PATH).write_bytes(b"{}")

    target.before_removing = lose
    with pytest.raises(PublishError, match="right to publish was lost"):
        collect_garbage(ledger, NOW)
    assert len([step for step in target.steps if step.startswith("-")]) == 4


def test_a_publisher_that_was_overtaken_cannot_publish_what_is_gone(
    made: PublishedRepository, tmp_path: Path
) -> None:
    """Its lease ran out while it slept, and nothing but its uploads was there to be collected."""
    ledger = made.publisher.ledger
    collect_garbage(ledger, NOW)
    before = ledger.head().manifest
    lay_out(tmp_path / "other", tree(77))
    with made.publisher.transaction() as transaction:
        transaction.sync(DirectorySource(tmp_path / "other"))
        break_lease(ledger.target)
        report = collect_garbage(ledger, NOW)
        assert report.dropped == ()
        assert report.removed_objects > 0
        with pytest.raises(PublishError, match="somebody else has published"):
            transaction.commit()
    after = ledger.head().manifest
    assert (after.root_catalog, after.revision) == (before.root_catalog, before.revision)
    check_all(made, [after.root_catalog])
    publish_next(made, tree(77))
    assert verify_target(ledger.target, made.fqrn, made.keys.trusted, CHECKED).problems == ()


def test_the_certificate_of_new_keys_stays_though_it_was_garbage_before(
    made: PublishedRepository,
) -> None:
    ledger = made.publisher.ledger
    collect_garbage(ledger, NOW)
    fresh = RepositoryKeys.generate(made.fqrn)
    keys = replace(fresh, master=made.keys.master, trusted=made.keys.trusted)
    whitelist = make_whitelist(made.fqrn, made.keys, Algorithm.SHA1, now=utc_now())
    both = (*whitelist.fingerprints, Algorithm.SHA1.digest(keys.certificate_der))
    signed = sign_whitelist(
        replace(whitelist, fingerprints=both), made.keys.need_master(), Algorithm.SHA1
    )
    ledger.target.replace(WHITELIST_PATH, signed)
    # A publisher was killed after it had stored the certificate, and more.
    store = ContentStore(ledger.target, Algorithm.SHA1)
    certificate = store.put_bytes(keys.certificate_pem, ObjectKind.CERTIFICATE)
    store.put_bytes(b"litter", ObjectKind.FILE)
    collect_garbage(Ledger(ledger.target, keys, made.fqrn), NOW)
    assert (made.root / certificate.object_path(ObjectKind.CERTIFICATE)).exists()
    report = verify_target(ledger.target, made.fqrn, made.keys.trusted, CHECKED)
    assert report.problems == ()
    assert Ledger(ledger.target, keys, made.fqrn).head().manifest.certificate == certificate


# --- what may go wrong ---------------------------------------------------------------------


def test_documents_change_before_the_first_object_goes(made: PublishedRepository) -> None:
    ledger = watched(made)
    collect_garbage(ledger, NOW)
    steps = target_of(ledger).steps
    assert steps[:2] == [REFLOG_PATH, MANIFEST_PATH]
    assert all(step.startswith("-data/") for step in steps[2:])
    assert len(steps) > 10


def test_killed_before_any_step_it_leaves_a_whole_repository(made: PublishedRepository) -> None:
    kept: list[Digest] = roots(collect_garbage(made.publisher.ledger, NOW, dry_run=True))
    # Each run begins anew, and comes one step further than the one before it.
    for step in (0, 1, 2, 3, 4, 1000):
        ledger = watched(made)
        target_of(ledger).die_before = step
        with contextlib.suppress(Killed):
            collect_garbage(ledger, NOW)
            assert step == 1000
        report = verify_target(made.publisher.ledger.target, made.fqrn, made.keys.trusted, CHECKED)
        assert report.problems == ()
        assert report.revisions == len(kept)
        logged = {r.digest for r in made.publisher.ledger.references()}
        assert set(kept) <= logged
        # What the reflog still has is whole, so that it may be named or published again.
        check_all(made, {r.digest for r in made.publisher.ledger.references() if r.type == 0})
        break_lease(DirectoryTarget(made.root))
    collect_garbage(made.publisher.ledger, NOW)
    assert objects(made) == needed(made, kept)


# --- views of other revisions --------------------------------------------------------------


def test_views_of_other_revisions_are_marked_as_far_as_they_are_there(
    made: PublishedRepository, tmp_path: Path
) -> None:
    target = made.publisher.ledger.target
    store = ContentStore(target, Algorithm.SHA1)
    content = Algorithm.SHA1.digest(Codec.ZLIB.compress(b"seen"))
    seen = CatalogBuilder().file(b"/x", content, 4)
    gone = Algorithm.SHA1.digest(b"a root catalog that was collected")
    shown = store.put_bytes(seen.build(), ObjectKind.CATALOG)
    root = CatalogBuilder()
    root.binds += [(b"/.cvmfs/a", str(gone), 0), (b"/.cvmfs/b", str(shown), 0)]
    digest = store.put_bytes(root.build(), ObjectKind.CATALOG)
    with opened_store(target) as reader, Marks(reader.workspace / "marks") as marks:
        marker = Marker(reader, marks, 2, lambda: None)
        marker.mark([KeptRevision(read_revision(reader, digest), ("test",))])
        assert marks.is_needed(shown, ObjectKind.CATALOG)
        assert marks.is_needed(content, ObjectKind.FILE)
        assert not marks.is_needed(content, ObjectKind.CHUNK)
        assert marker.catalogs == 2


def test_a_kept_revision_that_the_reflog_lacks_is_put_back(made: PublishedRepository) -> None:
    ledger = made.publisher.ledger
    head = ledger.head().manifest.root_catalog
    reflog = dump_reflog(made.fqrn, [Reference(head, REFLOG_CATALOG, 5)])
    (made.root / REFLOG_PATH).write_bytes(reflog)
    report = collect_garbage(ledger, NOW)
    logged = {r.digest for r in ledger.references() if r.type == REFLOG_CATALOG}
    assert logged == set(roots(report))
    assert numbers(report) == [1, 4, 5]
    # What the manifest names stays, whatever the reflog says.
    assert objects(made) == needed(made, roots(report))
