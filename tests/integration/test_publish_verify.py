from __future__ import annotations

import datetime
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.catalogs import CatalogBuilder
from support.histories import MARKER, SIZES
from support.publishing import File, Item, PublishedRepository, Symlink, make_repository, write_tree

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Algorithm, ObjectKind
from lazyfs.cas.store import ObjectRef, Receiver
from lazyfs.errors import ConfigError, NetworkError, PublishError
from lazyfs.publish.content import ContentStore
from lazyfs.publish.directory_target import DirectoryTarget
from lazyfs.publish.gc import collect_garbage
from lazyfs.publish.gc_roots import GcPolicy
from lazyfs.publish.history_writer import (
    REFLOG_CATALOG,
    REFLOG_CERTIFICATE,
    Reference,
    dump_reflog,
)
from lazyfs.publish.ingest import TreeOptions
from lazyfs.publish.lease import held
from lazyfs.publish.ledger import REFLOG_PATH
from lazyfs.publish.publisher import Publisher
from lazyfs.publish.signing import make_whitelist, sign_manifest, sign_whitelist
from lazyfs.publish.target_store import opened_store
from lazyfs.publish.verify import VerifyOptions, VerifyReport, repair_target, verify_target
from lazyfs.repository.authority import utc_now
from lazyfs.repository.manifest import MANIFEST_PATH
from lazyfs.repository.whitelist import WHITELIST_PATH

NOISE = hashlib.shake_128(b"noise").digest(3000)
TREE: dict[str, Item] = {
    "a": b"alpha",
    "empty": b"",
    "large": NOISE,
    "raw": File(b"not compressed" * 3),
    "l": Symlink("a"),
    f"n/{MARKER}": b"",
    "n/x": b"in a nested catalog",
    "z-same": b"in a nested catalog",
}
FAST = VerifyOptions(content=False)


@pytest.fixture
def made(tmp_path: Path) -> PublishedRepository:
    options = TreeOptions(codec=lambda path: Codec.NONE if path == b"/raw" else Codec.ZLIB)
    repository = make_repository(tmp_path, {"a": b"old"}, tag="v1", sizes=SIZES, options=options)
    repository.publish(TREE)
    return repository


def verified(
    made: PublishedRepository,
    options: VerifyOptions | None = None,
    *,
    now: datetime.datetime | None = None,
) -> VerifyReport:
    return verify_target(
        made.publisher.ledger.target,
        made.fqrn,
        made.keys.trusted,
        options,
        clock=lambda: now or utc_now(),
    )


def repaired(
    made: PublishedRepository, source: Path | None = None, options: VerifyOptions | None = None
) -> VerifyReport:
    return repair_target(
        made.publisher.ledger.target,
        made.fqrn,
        made.keys.trusted,
        source or made.source,
        options,
    )


def messages(report: VerifyReport) -> list[str]:
    return [f"{p.path.decode()}: {p.message}" for p in report.problems]


def object_file(made: PublishedRepository, path: bytes, chunk: int = 0) -> Path:
    """Where the object of a file, or one of its chunks, is stored."""
    with opened_store(made.publisher.ledger.target) as store:
        head = made.publisher.ledger.head().manifest
        with store.revision(made.fqrn, head.root_catalog) as revision:
            node = revision.lookup(path)
            if node.is_dir:
                catalog = revision.tree.lister(path)
                return made.root / catalog.digest.object_path(ObjectKind.CATALOG)
            if node.digest is not None:
                return made.root / node.digest.object_path()
            ref = revision.extents(node)[chunk].ref
            return made.root / ref.digest.object_path(ref.kind)


# --- all is well ---------------------------------------------------------------------------


def test_nothing_is_wrong_with_what_was_published(made: PublishedRepository) -> None:
    report = verified(made)
    assert report.problems == ()
    assert (report.revisions, report.catalogs) == (1, 2)
    head = made.publisher.ledger.head().manifest
    with (
        opened_store(made.publisher.ledger.target) as store,
        store.revision(made.fqrn, head.root_catalog) as revision,
    ):
        chunks = len(revision.extents(revision.lookup(b"/large")))
    assert chunks > 3
    # Two catalogs, the chunks, and four other contents: one is empty, one has two names.
    assert report.objects == 2 + chunks + 4
    assert report.bytes == len(NOISE) + 5 + 14 * 3 + 19
    assert report.mended == ()
    assert report.whitelist_expires is not None
    fast = verified(made, FAST)
    assert (fast.objects, fast.problems) == (report.objects, ())


def test_tagged_revisions_are_checked_where_that_is_wanted(made: PublishedRepository) -> None:
    made.publisher.ledger.head()
    report = verified(made, VerifyOptions(tags=True))
    assert (report.revisions, report.problems) == (2, ())
    # The tags trunk-previous and v1 are one revision.
    lost = object_of_tag(made, "v1")
    lost.unlink()
    assert verified(made).problems == ()
    (problem,) = verified(made, VerifyOptions(tags=True)).problems
    assert problem.path == b"/a"


def object_of_tag(made: PublishedRepository, name: str) -> Path:
    ledger = made.publisher.ledger
    root = next(tag.root_hash for tag in ledger.tags(ledger.head()) if tag.name == name)
    with opened_store(ledger.target) as store, store.revision(made.fqrn, root) as revision:
        digest = revision.lookup(b"/a").digest
        assert digest is not None
        return made.root / digest.object_path()


def test_catalogs_in_common_are_gone_through_once(made: PublishedRepository) -> None:
    with made.publisher.transaction() as transaction:
        transaction.remove("/l")
        transaction.commit(tag="v3")
    report = verified(made, VerifyOptions(tags=True))
    # Three root catalogs, and the nested one that two of them have in common.
    assert (report.revisions, report.catalogs, report.problems) == (3, 4, ())


def test_progress_and_journal(made: PublishedRepository, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    journal = tmp_path / "journal"
    options = VerifyOptions(journal=journal)
    target = made.publisher.ledger.target
    first = verify_target(
        target, made.fqrn, made.keys.trusted, options, progress=lambda *at: seen.append(at)
    )
    assert seen[-1][0] == 10
    assert first.objects > 0
    assert verified(made, options).objects == 0
    # What was only looked for does not count as verified.
    journal.unlink()
    verified(made, replace(options, content=False))
    assert not journal.exists()


def test_what_follows_from_being_killed_or_collected_is_no_problem(
    made: PublishedRepository,
) -> None:
    before = (made.root / MANIFEST_PATH).read_bytes()
    made.publish({"a": b"published, but for the manifest"})
    (made.root / MANIFEST_PATH).write_bytes(before)
    assert verified(made, VerifyOptions(tags=True)).problems == ()
    collect_garbage(made.publisher.ledger, GcPolicy(grace=-3600))
    assert verified(made, VerifyOptions(tags=True)).problems == ()


# --- objects -------------------------------------------------------------------------------

OBJECTS = [(b"/a", 0), (b"/empty", 0), (b"/large", 1), (b"/raw", 0), (b"/n", 0), (b"/n/x", 0)]


@pytest.mark.parametrize(("path", "chunk"), OBJECTS)
@pytest.mark.parametrize("content", [True, False])
def test_a_missing_object_is_found(
    made: PublishedRepository, path: bytes, chunk: int, content: bool
) -> None:
    object_file(made, path, chunk).unlink()
    problems = verified(made, VerifyOptions(content=content)).problems
    assert [p.path for p in problems] in ([path], [b"/z-same"], [b"/n/.cvmfscatalog"])


@pytest.mark.parametrize(("path", "chunk"), OBJECTS)
def test_a_damaged_object_is_found(made: PublishedRepository, path: bytes, chunk: int) -> None:
    file = object_file(made, path, chunk)
    file.write_bytes(file.read_bytes() + b"x")
    assert len(verified(made).problems) == 1
    # Catalogs are read in any case.
    assert len(verified(made, FAST).problems) == (1 if path == b"/n" else 0)


def test_a_root_catalog_that_is_lost_is_told_once(made: PublishedRepository) -> None:
    object_file(made, b"").unlink()
    report = verified(made)
    assert report.revisions == 0
    assert len([m for m in messages(report) if "trunk" not in m and "reflog" not in m]) == 1


def test_a_catalog_without_a_root_entry_is_a_problem(made: PublishedRepository) -> None:
    ledger = made.publisher.ledger
    builder = CatalogBuilder()
    builder.rows.clear()
    builder.properties |= {"revision": "3"}
    store = ContentStore(ledger.target, Algorithm.SHA1)
    root = store.put_bytes(builder.build(), ObjectKind.CATALOG)
    head = ledger.head()
    manifest = replace(head.manifest, root_catalog=root, revision=3, catalog_size=0)
    ledger.advance(store, manifest, after=head, tags=ledger.tags(head))
    (message,) = messages(verified(made))
    assert "no such file or directory" in message


# --- documents -----------------------------------------------------------------------------


def resign(made: PublishedRepository, **changes: object) -> None:
    manifest = replace(made.publisher.ledger.head().manifest, **changes)  # type: ignore[arg-type]
    (made.root / MANIFEST_PATH).write_bytes(sign_manifest(manifest, made.keys.key, Algorithm.SHA1))


def forged_manifest(made: PublishedRepository) -> None:
    manifest = made.publisher.ledger.head().manifest
    other = make_repository(made.root.parent.parent / "x", {}, "other.example.org")
    signed = sign_manifest(manifest, other.keys.key, Algorithm.SHA1)
    (made.root / MANIFEST_PATH).write_bytes(signed)


def edited_manifest(made: PublishedRepository) -> None:
    content = (made.root / MANIFEST_PATH).read_bytes()
    (made.root / MANIFEST_PATH).write_bytes(content.replace(b"\nS2\n", b"\nS3\n"))


def other_name(made: PublishedRepository) -> None:
    resign(made, fqrn="other.example.org")


def wrong_revision(made: PublishedRepository) -> None:
    resign(made, revision=7)


def wrong_size(made: PublishedRepository) -> None:
    resign(made, catalog_size=1)


def no_certificate(made: PublishedRepository) -> None:
    certificate = made.publisher.ledger.head().manifest.certificate
    assert certificate is not None
    (made.root / certificate.object_path(ObjectKind.CERTIFICATE)).unlink()


def lost_metainfo(made: PublishedRepository) -> None:
    resign(made, metainfo=Algorithm.SHA1.digest(b"lost"))


def lost_history(made: PublishedRepository) -> None:
    history = made.publisher.ledger.head().manifest.history
    assert history is not None
    (made.root / history.object_path(ObjectKind.HISTORY)).unlink()


def no_whitelist(made: PublishedRepository) -> None:
    (made.root / WHITELIST_PATH).unlink()


def write_whitelist(made: PublishedRepository, of: PublishedRepository, by: object = None) -> None:
    whitelist = make_whitelist(made.fqrn, of.keys, Algorithm.SHA1, now=utc_now())
    master = (by or made).keys.need_master()  # type: ignore[attr-defined]
    (made.root / WHITELIST_PATH).write_bytes(sign_whitelist(whitelist, master, Algorithm.SHA1))


def unlisted(made: PublishedRepository) -> None:
    write_whitelist(made, make_repository(made.root.parent.parent / "x", {}, "other.example.org"))


def false_whitelist(made: PublishedRepository) -> None:
    other = make_repository(made.root.parent.parent / "x", {}, "other.example.org")
    write_whitelist(made, made, other)


def no_reflog(made: PublishedRepository) -> None:
    (made.root / REFLOG_PATH).unlink()


def damaged_reflog(made: PublishedRepository) -> None:
    (made.root / REFLOG_PATH).write_bytes(b"x" * 5000)


def reflog_without_head(made: PublishedRepository) -> None:
    head = made.publisher.ledger.head().manifest
    rows = [r for r in made.publisher.ledger.references() if r.digest != head.root_catalog]
    (made.root / REFLOG_PATH).write_bytes(dump_reflog(made.fqrn, rows))


def reflog_of_what_is_gone(made: PublishedRepository) -> None:
    rows = made.publisher.ledger.references()
    gone = Reference(Algorithm.SHA1.digest(b"gone"), REFLOG_CATALOG, 5)
    odd = Reference(Algorithm.SHA1.digest(b"odd"), 9, 5)
    (made.root / REFLOG_PATH).write_bytes(dump_reflog(made.fqrn, [*rows, gone, odd]))


def reflog_of_another_type(made: PublishedRepository) -> None:
    head = made.publisher.ledger.head().manifest
    rows = [
        replace(r, type=REFLOG_CERTIFICATE) if r.digest == head.root_catalog else r
        for r in made.publisher.ledger.references()
    ]
    (made.root / REFLOG_PATH).write_bytes(dump_reflog(made.fqrn, rows))


def change_tag(made: PublishedRepository, **changes: object) -> None:
    ledger = made.publisher.ledger
    head = ledger.head()
    tags = [
        replace(tag, **changes) if tag.name == "v1" else tag  # type: ignore[arg-type]
        for tag in ledger.tags(head)
    ]
    ledger.advance(
        ContentStore(ledger.target, Algorithm.SHA1), head.manifest, after=head, tags=tags
    )


def lost_tag(made: PublishedRepository) -> None:
    change_tag(made, root_hash=Algorithm.SHA1.digest(b"gone"))


def tag_of_no_root(made: PublishedRepository) -> None:
    store = ContentStore(made.publisher.ledger.target, Algorithm.SHA1)
    digest = store.put_bytes(CatalogBuilder(b"/n").build(), ObjectKind.CATALOG)
    change_tag(made, root_hash=digest)


def tag_of_another_number(made: PublishedRepository) -> None:
    change_tag(made, revision=7)


def tag_of_another_size(made: PublishedRepository) -> None:
    change_tag(made, size=7)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (forged_manifest, ["not signed by the repository's certificate"]),
        (edited_manifest, ["the digest does not fit"]),
        (other_name, ["belongs to 'other.example.org'"]),
        (wrong_revision, ["says revision 7, its catalog 2"]),
        (wrong_size, ["says the root catalog has 1 bytes"]),
        (no_certificate, ["cannot read", "X, which is not there"]),
        (lost_metainfo, ["does not have the meta-info", "cannot read"]),
        (lost_history, ["H, which is not there", "cannot read"]),
        (no_whitelist, ["there is no whitelist"]),
        (unlisted, ["is not on the whitelist"]),
        (false_whitelist, ["not signed by any of the master keys"]),
        (no_reflog, ["reflog: there is none"]),
        (damaged_reflog, ["damaged database"]),
        (reflog_without_head, ["does not have the root catalog"]),
        (reflog_of_what_is_gone, ["C, which is not there", "row of unknown type 9"]),
        (reflog_of_another_type, ["does not have the root catalog", "X, which is not there"]),
        (lost_tag, ["cannot read"]),
        (tag_of_no_root, ["not a root catalog"]),
        (tag_of_another_number, ["tag v1: says revision 7, its catalog 1"]),
        (tag_of_another_size, ["tag v1: says the root catalog has 7 bytes"]),
    ],
)
def test_what_is_wrong_with_documents_is_named(
    made: PublishedRepository, spoil: Callable[[PublishedRepository], None], expected: list[str]
) -> None:
    spoil(made)
    found = messages(verified(made))
    assert len(found) == len(expected), found
    for message, text in zip(found, expected, strict=True):
        assert text in message


def test_an_expired_whitelist_is_a_problem(made: PublishedRepository) -> None:
    later = utc_now() + datetime.timedelta(days=40)
    report = verified(made, now=later)
    (message,) = messages(report)
    assert "whitelist: expired at" in message
    assert report.whitelist_expires is not None
    assert report.whitelist_expires < later


def test_what_cannot_be_checked_at_all_is_an_error(
    made: PublishedRepository, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="master public key"):
        verify_target(made.publisher.ledger.target, made.fqrn, ())
    empty = DirectoryTarget(tmp_path / "empty")
    with pytest.raises(PublishError, match="no repository there"):
        verify_target(empty, made.fqrn, made.keys.trusted)


@pytest.mark.parametrize("kind", [ObjectKind.CERTIFICATE, ObjectKind.HISTORY, ObjectKind.CATALOG])
def test_a_target_that_cannot_be_reached_is_not_said_to_be_damaged(
    made: PublishedRepository, kind: ObjectKind
) -> None:
    class CutOff(DirectoryTarget):
        def fetch(self, ref: ObjectRef, receiver: Receiver) -> None:
            if ref.kind is kind:
                raise PublishError("cannot be reached", path=self.name)
            super().fetch(ref, receiver)

    with pytest.raises(PublishError, match="cannot be reached"):
        verify_target(CutOff(made.root), made.fqrn, made.keys.trusted)


# --- repair --------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "chunk"), [each for each in OBJECTS if each[0] != b"/n"])
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_what_was_lost_is_made_again(
    made: PublishedRepository, path: bytes, chunk: int, damage: str
) -> None:
    file = object_file(made, path, chunk)
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:-1])
    report = repaired(made)
    assert report.problems == ()
    (mended,) = report.mended
    assert mended.object == file.parent.name + file.name
    assert file.read_bytes() == content
    assert verified(made).problems == ()
    assert repaired(made).mended == ()


def test_much_is_made_again_at_once(made: PublishedRepository) -> None:
    files = [p for p in (made.root / "data").glob("??/*") if p.name[-1] not in "CHXM"]
    old = object_of_tag(made, "v1")
    contents = {p: p.read_bytes() for p in files}
    for path in files:
        path.unlink()
    report = repaired(made, options=FAST)
    assert report.problems == ()
    assert len(report.mended) == len(files) - 1
    assert {p: p.read_bytes() for p in files if p != old} == {
        p: content for p, content in contents.items() if p != old
    }
    # The file of the tagged revision is another one by now.
    (problem,) = repaired(made, options=VerifyOptions(tags=True)).problems
    assert "another one now" in problem.message
    write_tree(made.source, {"a": b"old"})
    assert repaired(made, options=VerifyOptions(tags=True)).problems == ()
    assert old.exists()


def changed(source: Path) -> None:
    (source / "a").write_bytes(b"ALPHA")


def shorter(source: Path) -> None:
    (source / "a").write_bytes(b"al")


def missing(source: Path) -> None:
    (source / "a").unlink()


def linked(source: Path) -> None:
    (source / "a").rename(source / "b")
    (source / "a").symlink_to("b")


def folder(source: Path) -> None:
    (source / "a").unlink()
    (source / "a").mkdir()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (changed, "another one now"),
        (shorter, "shorter now"),
        (missing, "No such file"),
        (linked, "cannot read"),
        (folder, "no regular file"),
    ],
)
def test_what_cannot_be_made_again_is_told_with_its_reason(
    made: PublishedRepository, spoil: Callable[[Path], None], reason: str
) -> None:
    file = object_file(made, b"/a")
    file.write_bytes(b"damaged")
    spoil(made.source)
    report = repaired(made)
    assert report.mended == ()
    (problem,) = report.problems
    assert problem.path == b"/a"
    assert "cannot be repaired: " in problem.message
    assert reason in problem.message
    assert file.read_bytes() == b"damaged"
    assert {p.name for p in (made.root / "data" / "txn").iterdir()} <= {"lease", "documents.lock"}


def test_catalogs_and_documents_are_not_made_of_files(made: PublishedRepository) -> None:
    object_file(made, b"/n").unlink()
    no_whitelist(made)
    found = messages(repaired(made))
    assert len(found) == 2
    assert "there is no whitelist" in found[0]


@pytest.mark.parametrize("lost_catalog", [False, True])
@pytest.mark.parametrize("absent", ["n/x", "z-same"])
def test_an_object_of_several_files_is_made_of_any(
    made: PublishedRepository, absent: str, lost_catalog: bool
) -> None:
    object_file(made, b"/n/x").unlink()
    (made.source / absent).unlink()
    if lost_catalog:
        # What the rest of the tree cannot tell does not keep from trying.
        object_file(made, b"/n").unlink()
    report = repaired(made)
    found = [p.path for p in report.problems]
    assert len(report.mended) == (0 if lost_catalog and absent == "z-same" else 1)
    assert found == ([b"/n"] if lost_catalog else []) + [b"/z-same"] * (1 - len(report.mended))


def test_the_source_may_stand_below_the_root(made: PublishedRepository, tmp_path: Path) -> None:
    lost = [object_file(made, path) for path in (b"/a", b"/n/x")]
    for file in lost:
        file.unlink()
    shutil.copytree(made.source / "n", tmp_path / "part")
    target, keys = made.publisher.ledger.target, made.keys.trusted
    report = repair_target(target, made.fqrn, keys, tmp_path / "part", at="/n")
    (problem,) = report.problems
    assert problem.path == b"/a"
    assert "does not reach" in problem.message
    # It is the content of another file too, which the source does not have.
    assert [mended.path for mended in report.mended] == [b"/n/x"]


def test_repairing_keeps_others_out_and_needs_a_folder(
    made: PublishedRepository, tmp_path: Path
) -> None:
    with held(made.publisher.ledger.target, "test"):
        with pytest.raises(PublishError, match="another publisher"):
            repaired(made)
        assert verified(made).problems == ()
    with pytest.raises(PublishError, match="not a directory"):
        repaired(made, tmp_path / "none")


def test_what_cannot_be_reached_is_not_repaired(made: PublishedRepository) -> None:
    class Silent(DirectoryTarget):
        def fetch(self, ref: ObjectRef, receiver: Receiver) -> None:
            if ref.kind is ObjectKind.FILE:
                raise NetworkError("no answer", object=str(ref))
            super().fetch(ref, receiver)

    report = repair_target(Silent(made.root), made.fqrn, made.keys.trusted, made.source)
    assert report.mended == ()
    assert all("no answer" in problem.message for problem in report.problems)
    assert "cannot be repaired" not in "".join(messages(report))


def test_other_algorithms_are_repaired_too(tmp_path: Path) -> None:
    made = make_repository(tmp_path, TREE, sizes=SIZES, algorithm=Algorithm.SHAKE128)
    assert isinstance(made.publisher, Publisher)
    for path in (b"/a", b"/large", b"/empty"):
        object_file(made, path).unlink()
    assert len(repaired(made).mended) == 3
    assert verified(made).problems == ()
