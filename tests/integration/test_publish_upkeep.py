"""The life of a repository, on a folder and on each S3 server."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.histories import SIZES, lay_out
from support.publishing import FQRN
from support.s3_server import NAMES, S3Servers

from lazyfs.cas.digest import ObjectKind, parse_object_path
from lazyfs.publish.directory_target import DirectoryTarget
from lazyfs.publish.gc import collect_garbage
from lazyfs.publish.gc_roots import GcPolicy
from lazyfs.publish.keys import RepositoryKeys
from lazyfs.publish.publisher import Publisher
from lazyfs.publish.rollback import roll_back
from lazyfs.publish.tag_editor import TagEditor
from lazyfs.publish.target import UploadTarget
from lazyfs.publish.target_store import opened_store
from lazyfs.publish.target_usage import target_usage
from lazyfs.publish.verify import VerifyOptions, repair_target, verify_target
from lazyfs.repository.diff import diff_revisions


@pytest.fixture(params=["directory", *NAMES])
def target(request: pytest.FixtureRequest, tmp_path: Path, s3_servers: S3Servers) -> UploadTarget:
    if request.param == "directory":
        return DirectoryTarget(tmp_path / "repository")
    server = s3_servers.get(request.param)
    return server.target(server.new_bucket(), "some/repository")


def test_a_life(target: UploadTarget, tmp_path: Path) -> None:
    publisher = Publisher(target, RepositoryKeys.generate(FQRN), FQRN, sizes=SIZES)
    ledger, source = publisher.ledger, tmp_path / "tree"
    publisher.init()
    for number in range(1, 5):
        lay_out(source, {"a": b"%d" % number, "n/.cvmfscatalog": b"", "n/x": b"same" * 200})
        publisher.publish(source)
    TagEditor(ledger).add("fourth")
    roots = [r.digest for r in ledger.references() if r.type == 0]

    result = roll_back(ledger, str(roots[2]), tag="second")
    with (
        opened_store(target) as store,
        store.revision(FQRN, roots[2]) as old,
        store.revision(FQRN, result.root_hash) as new,
    ):
        assert list(diff_revisions(old, new)) == []

    before = target_usage(target)
    report = collect_garbage(ledger, GcPolicy(grace=-3600))
    after = target_usage(target)
    assert sorted(kept.revision.number for kept in report.kept) == [4, 5]
    assert before.total.objects - after.total.objects == report.removed_objects > 0
    assert after.total.bytes == report.kept_bytes

    lay_out(source, {"a": b"2", "n/.cvmfscatalog": b"", "n/x": b"same" * 200})
    lost = [
        stored.path
        for stored in target.objects()
        if (parsed := parse_object_path(stored.path)) and parsed[1] is ObjectKind.CHUNK
    ]
    target.remove(lost[:2])
    found = verify_target(target, FQRN, ledger.keys.trusted, VerifyOptions(content=False))
    assert len(found.problems) == len(lost[:2]) > 0
    mended = repair_target(target, FQRN, ledger.keys.trusted, source)
    assert (len(mended.mended), mended.problems) == (len(lost[:2]), ())
    whole = verify_target(target, FQRN, ledger.keys.trusted, VerifyOptions(tags=True))
    assert (whole.revisions, whole.problems) == (2, ())
