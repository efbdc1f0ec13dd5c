"""Repositories of the real server, checked and collected as if lazyfs had published them."""

from __future__ import annotations

import datetime
import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.reference import NAMES, TAGS, ReferenceRepositories

from lazyfs.cas.digest import parse_object_path
from lazyfs.publish.directory_target import DirectoryTarget
from lazyfs.publish.gc import collect_garbage
from lazyfs.publish.gc_roots import GcPolicy
from lazyfs.publish.keys import RepositoryKeys
from lazyfs.publish.ledger import Ledger
from lazyfs.publish.verify import VerifyOptions, verify_target
from lazyfs.repository.diff import ChangeKind, diff_revisions
from lazyfs.repository.repository import Repository
from lazyfs.repository.trust import load_master_keys


@pytest.mark.parametrize("name", NAMES)
def test_the_check_finds_nothing_wrong(references: ReferenceRepositories, name: str) -> None:
    reference = references.get(name)
    # The whitelists ran out long ago.
    then = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    report = verify_target(
        DirectoryTarget(reference.folder),
        reference.fqrn,
        load_master_keys([reference.key]),
        VerifyOptions(tags=True),
        clock=lambda: then,
    )
    assert report.problems == ()
    assert report.objects > 0


def test_a_collection_would_keep_what_tags_need(
    references: ReferenceRepositories, tmp_path: Path
) -> None:
    reference = references.get("history")
    trusted = load_master_keys([reference.key])
    keys = replace(RepositoryKeys.generate(reference.fqrn), master=None, trusted=trusted)
    copy = tmp_path / reference.fqrn
    shutil.copytree(reference.folder, copy)
    ledger = Ledger(DirectoryTarget(copy), keys, reference.fqrn)
    report = collect_garbage(ledger, GcPolicy(grace=-1), dry_run=True, force=True)
    kept = {reason for each in report.kept for reason in each.reasons}
    assert {f"tag {tag}" for tag in TAGS} <= kept
    stored = [s for s in ledger.target.objects() if parse_object_path(s.path)]
    assert report.kept_objects + report.removed_objects == len(stored)
    head = ledger.head()
    numbers = {head.manifest.revision, *(tag.revision for tag in ledger.tags(head))}
    assert {each.revision.number for each in report.kept} == numbers


def test_a_diff_of_tags_is_what_the_real_client_showed(
    references: ReferenceRepositories, tmp_path: Path
) -> None:
    reference = references.get("history")
    with Repository.open(
        reference.folder,
        pubkey=reference.key,
        cache=tmp_path,
        overrides={"LAZYFS_ALLOW_EXPIRED": "yes"},
    ) as repository:
        for older, newer in itertools.pairwise(TAGS):
            before = {truth.path: truth.sha256 for truth in reference.truth(older)}
            after = {truth.path: truth.sha256 for truth in reference.truth(newer)}
            with (
                repository.revision(tag=older) as old,
                repository.revision(tag=newer) as new,
            ):
                changes = list(diff_revisions(old, new))
            found = {
                kind: {change.path for change in changes if change.kind is kind}
                for kind in ChangeKind
            }
            assert found[ChangeKind.ADDED] == after.keys() - before.keys()
            assert found[ChangeKind.REMOVED] == before.keys() - after.keys()
            both = before.keys() & after.keys()
            changed = {path for path in both if before[path] != after[path]}
            assert changed <= found[ChangeKind.MODIFIED]
            assert changes
