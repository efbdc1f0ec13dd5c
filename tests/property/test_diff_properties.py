from __future__ import annotations

import stat
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from support.histories import Tree, first_of, histories, publish_next

from lazyfs.publish.target_store import opened_store
from lazyfs.repository.diff import ChangeKind, diff_revisions
from lazyfs.repository.likeness import Aspect
from lazyfs.repository.node import Node
from lazyfs.repository.revision import Revision

Facts = dict[Aspect, object]


def facts(revision: Revision, node: Node) -> Facts:
    """All that is compared of an entry, by what it is called when it differs."""
    extents = revision.extents(node) if node.is_file else ()
    return {
        Aspect.TYPE: stat.S_IFMT(node.mode),
        Aspect.MODE: stat.S_IMODE(node.mode),
        Aspect.OWNER: (node.uid, node.gid),
        Aspect.MTIME: node.mtime_ns,
        Aspect.XATTRS: revision.xattrs(node),
        Aspect.TARGET: node.symlink,
        Aspect.CONTENT: [(e.offset, e.ref.digest, e.ref.kind, e.ref.codec) for e in extents],
        Aspect.LINKS: node.nlink if not node.is_dir else 0,
    }


def brute_force(old: Revision, new: Revision, path: bytes) -> dict[bytes, object]:
    """What a comparison of two whole walks finds."""
    before, after = (
        {node.path: facts(r, node) for node in r.walk() if is_at(node.path, path)}
        for r in (old, new)
    )
    found: dict[bytes, object] = {}
    for name in before.keys() | after.keys():
        if name not in after:
            found[name] = (ChangeKind.REMOVED, frozenset())
        elif name not in before:
            found[name] = (ChangeKind.ADDED, frozenset())
        elif before[name][Aspect.TYPE] != after[name][Aspect.TYPE]:
            found[name] = (ChangeKind.MODIFIED, frozenset((Aspect.TYPE,)))
        else:
            what = {aspect for aspect in Aspect if before[name][aspect] != after[name][aspect]}
            if what:
                found[name] = (ChangeKind.MODIFIED, frozenset(what))
    return found


def is_at(path: bytes, top: bytes) -> bool:
    return path == top or path.startswith(top + b"/")


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(histories(most=3))
def test_a_diff_is_what_two_walks_tell(history: list[Tree]) -> None:
    with tempfile.TemporaryDirectory(prefix="lazyfs-diff-") as folder:
        made = first_of(Path(folder), history)
        roots = [made.result.root_hash]
        roots += [publish_next(made, tree).root_hash for tree in history[1:]]
        with opened_store(made.publisher.ledger.target) as store:
            revisions = [store.revision(made.fqrn, root) for root in roots]
            for old in revisions:
                for new in revisions:
                    check(old, new)
            for revision in revisions:
                revision.close()


def check(old: Revision, new: Revision) -> None:
    seen: list[int] = []
    changes = list(diff_revisions(old, new, progress=lambda done, total: seen.append(done)))
    assert {c.path: (c.kind, c.what) for c in changes} == brute_force(old, new, b"")
    assert len(changes) == len({c.path for c in changes})
    order = [tuple(c.path.split(b"/")) for c in changes]
    assert order == sorted(order)
    assert len(seen) >= len(changes)
    for change in changes:
        assert (change.old is None) == (change.kind is ChangeKind.ADDED)
        assert (change.new is None) == (change.kind is ChangeKind.REMOVED)
    for top in {node.path for revision in (old, new) for node in revision.walk()}:
        below = {c.path: (c.kind, c.what) for c in diff_revisions(old, new, top)}
        assert below == brute_force(old, new, top)
