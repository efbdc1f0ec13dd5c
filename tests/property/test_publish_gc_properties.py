from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.histories import Tree, first_of, histories, publish_next
from support.publishing import PublishedRepository

from lazyfs.cas.digest import Digest, ObjectKind
from lazyfs.publish.gc import collect_garbage
from lazyfs.publish.gc_roots import GcPolicy
from lazyfs.publish.history_writer import REFLOG_CATALOG
from lazyfs.publish.rollback import roll_back
from lazyfs.publish.tag_editor import TagEditor
from lazyfs.publish.target_store import opened_store
from lazyfs.repository.check import check_revision


def contents(made: PublishedRepository, root: Digest) -> tuple[list[object], set[str]]:
    """The tree of a revision with all content, and the objects that it needs."""
    tree: list[object] = []
    objects = set()
    ledger = made.publisher.ledger
    with opened_store(ledger.target) as store, store.revision(made.fqrn, root) as revision:
        assert check_revision(revision).problems == ()
        for node in revision.walk():
            content = None
            if node.is_file:
                with revision.open_file(node) as file:
                    content = file.read()
                refs = [extent.ref for extent in revision.extents(node)]
                objects |= {ref.digest.object_path(ref.kind) for ref in refs}
            if node.digest is not None:
                objects.add(node.digest.object_path())
            if node.mountpoint or not node.path:
                digest = revision.tree.lister(node.path).digest
                objects.add(digest.object_path(ObjectKind.CATALOG))
            tree.append((node.path, node.mode, node.mtime_ns, node.symlink, content))
    return tree, objects


def stored(made: PublishedRepository) -> set[str]:
    found = {stored.path for stored in made.publisher.ledger.target.objects()}
    return {path for path in found if not path.startswith("data/txn/")}


def expected(
    made: PublishedRepository, published: list[Digest], roots: Iterable[Digest]
) -> set[Digest]:
    """The kept revisions, told from what was done."""
    ledger = made.publisher.ledger
    tagged = {tag.root_hash for tag in ledger.tags(ledger.head())}
    return tagged | set(roots) | {published[-1]}


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(histories(most=5), st.data())
def test_what_a_kept_revision_needs_is_never_removed(
    history: list[Tree], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory(prefix="lazyfs-gc-") as folder:
        made = first_of(Path(folder), history)
        ledger = made.publisher.ledger
        published = [r.digest for r in ledger.references() if r.type == REFLOG_CATALOG]
        before: dict[Digest, list[object]] = {}
        for number, tree in enumerate(history[1:]):
            tag = data.draw(st.sampled_from([None, f"v{number}"]))
            published.append(publish_next(made, tree, tag=tag).root_hash)
            if data.draw(st.integers(0, 4)) == 0:
                published.append(roll_back(ledger).root_hash)
            if data.draw(st.booleans()):
                before |= {root: contents(made, root)[0] for root in published[-3:]}
                published = collect(made, published, data.draw(st.integers(1, 3)), before)
        names = [tag.name for tag in ledger.tags(ledger.head()) if tag.name.startswith("v")]
        if names:
            TagEditor(ledger).remove([data.draw(st.sampled_from(names))])
        before |= {
            tag.root_hash: contents(made, tag.root_hash)[0] for tag in ledger.tags(ledger.head())
        }
        collect(made, published, 1, before)


def collect(
    made: PublishedRepository,
    published: list[Digest],
    keep_last: int,
    before: dict[Digest, list[object]],
) -> list[Digest]:
    """Collect, and compare with what should be left; the revisions that are left."""
    ledger = made.publisher.ledger
    planned = collect_garbage(ledger, GcPolicy(keep_last, grace=-3600), dry_run=True)
    report = collect_garbage(ledger, GcPolicy(keep_last, grace=-3600))
    assert planned.removed_objects == report.removed_objects
    kept = {each.revision.root_hash for each in report.kept}
    assert kept == expected(made, published, published[-keep_last:])
    needed: set[str] = set()
    for root in kept:
        tree, objects = contents(made, root)
        needed |= objects
        assert before.get(root, tree) == tree
    documents = {reference for reference in ledger.references() if reference.type != REFLOG_CATALOG}
    assert {path for path in stored(made) if path[-1] not in "HXM"} == needed
    assert len(stored(made)) == len(needed) + len(documents)
    return [root for root in published if root in kept]
