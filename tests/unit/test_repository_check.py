from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from support.catalogs import CatalogBuilder, Row
from support.memory_store import MemoryStore

from lazyfs.cas.digest import Algorithm, ObjectKind
from lazyfs.cas.store import ObjectRef
from lazyfs.errors import ConfigError, LazyfsError, ObjectMissing, PathNotFound
from lazyfs.repository.check import CheckReport, Thoroughness, check_revision
from lazyfs.repository.revision import Revision

FOLDER = stat.S_IFDIR | 0o755
CONTENT = {b"/a": b"alpha", b"/d/b": b"beta", b"/d/n/c": b"gamma" * 100}


class Good:
    """A repository in which all is right, for tests to spoil."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.digests = {path: store.put(content) for path, content in CONTENT.items()}
        self.marker = store.put(b"")
        self.nested = CatalogBuilder(
            b"/d/n",
            counters={"self_regular": 2, "self_dir": 1, "self_file_size": 500},
        )
        self.nested.file(b"/d/n/c", self.digests[b"/d/n/c"], 500)
        self.nested.file(b"/d/n/.cvmfscatalog", self.marker)
        self.pieces = [store.put(piece, ObjectKind.CHUNK) for piece in (b"one", b"twotwo")]
        self.root = CatalogBuilder(
            counters={
                "self_regular": 3,
                "self_dir": 3,
                "self_symlink": 1,
                "self_nested": 1,
                "self_chunked": 1,
                "self_chunks": 2,
                "self_chunked_size": 9,
                "self_file_size": 18,
                "subtree_regular": 2,
                "subtree_dir": 1,
                "subtree_file_size": 500,
            }
        )
        self.root.rows[0] = (b"", Row(FOLDER, flags=1, size=4096, links=3))
        self.root.add(b"/d", Row(FOLDER, flags=1, size=4096, links=3))
        self.root.file(b"/a", self.digests[b"/a"], 5)
        self.root.file(b"/d/b", self.digests[b"/d/b"], 4)
        chunks: list[tuple[object, object, object]] = [
            (0, 3, self.pieces[0].raw),
            (3, 6, self.pieces[1].raw),
        ]
        self.root.chunked(b"/d/big", 9, chunks)
        self.root.link(b"/l", b"a")

    def revision(self) -> Revision:
        content = self.nested.build()
        digest = self.nested.put(self.store)
        self.root.mountpoint(b"/d/n", str(digest), len(content))
        return self.root.revision(self.store)


@pytest.fixture
def good() -> Good:
    return Good(MemoryStore())


def messages(report: CheckReport) -> list[str]:
    return [f"{p.path.decode()}: {p.message}" for p in report.problems]


def test_nothing_is_wrong_with_a_good_repository(good: Good) -> None:
    seen: list[tuple[int, int]] = []
    report = check_revision(good.revision(), progress=lambda *at: seen.append(at))
    assert report.problems == ()
    # Two catalogs, three files and two chunks; the empty marker needs no object.
    assert (report.catalogs, report.objects) == (2, 7)
    assert report.bytes == 5 + 4 + 9 + 500
    # The mountpoint is counted in both catalogs.
    assert seen[-1] == (9, 10)


def test_content_may_be_left_out(good: Good) -> None:
    revision = good.revision()
    good.store.objects = {
        key: stored for key, stored in good.store.objects.items() if key[1] is ObjectKind.CATALOG
    }
    report = check_revision(revision, content=False)
    assert report.problems == ()
    assert (report.catalogs, report.objects) == (2, 0)


def test_a_subtree_is_checked_alone(good: Good) -> None:
    revision = good.revision()
    report = check_revision(revision, subtree=b"/d/n")
    assert (report.catalogs, report.objects, report.problems) == (1, 2, ())
    report = check_revision(revision, subtree=b"/a")
    assert (report.catalogs, report.objects) == (0, 1)
    with pytest.raises(PathNotFound):
        check_revision(revision, subtree=b"/none")


# --- content -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ObjectKind.FILE, ObjectKind.CHUNK, ObjectKind.CATALOG])
def test_a_damaged_object_is_found(good: Good, kind: ObjectKind) -> None:
    revision = good.revision()
    revision.listdir(b"/d/n")  # catalogs that are open are proved at their origin all the same
    key = next(k for k in good.store.objects if k[1] is kind and k[0] != good.marker)
    good.store.objects[key] = good.store.objects[key][:-1]
    report = check_revision(revision)
    (problem,) = report.problems
    assert str(key[0]) in problem.object


def test_a_missing_object_is_found(good: Good) -> None:
    revision = good.revision()
    del good.store.objects[good.digests[b"/d/n/c"], ObjectKind.FILE]
    (problem,) = check_revision(revision).problems
    assert problem.path == b"/d/n/c"


def test_an_object_used_twice_is_read_once_but_every_size_is_proved(good: Good) -> None:
    good.root.file(b"/again", good.digests[b"/a"], 5)
    good.root.file(b"/liar", good.digests[b"/a"], 6)
    report = check_revision(good.revision())
    assert any("/liar: the content has 5 bytes" in m for m in messages(report))
    assert report.objects == 7


def test_a_missing_catalog_is_one_problem(good: Good) -> None:
    revision = good.revision()
    nested = next(n.digest for n in revision.tree.root.nested())
    del good.store.objects[nested, ObjectKind.CATALOG]
    (problem,) = check_revision(revision).problems
    assert problem.path == b"/d/n"
    assert str(nested) in problem.object


# --- more than readers need ----------------------------------------------------------------


def test_the_object_of_empty_files_is_looked_for_where_that_is_wanted(good: Good) -> None:
    thorough = Thoroughness(empty_objects=True)
    revision = good.revision()
    assert check_revision(revision, thoroughness=thorough).objects == 8
    del good.store.objects[good.marker, ObjectKind.FILE]
    assert check_revision(revision).problems == ()
    thorough = Thoroughness(empty_objects=True)
    (problem,) = check_revision(revision, thoroughness=thorough).problems
    assert problem.path == b"/d/n/.cvmfscatalog"


def test_catalogs_of_an_earlier_check_are_passed_over(good: Good) -> None:
    thorough = Thoroughness()
    first = check_revision(good.revision(), thoroughness=thorough)
    assert (first.catalogs, first.objects) == (2, 7)
    good.root.link(b"/l2", b"a")
    good.root.counters["self_symlink"] = 2
    second = check_revision(good.root.revision(good.store), thoroughness=thorough)
    # The other root catalog, and what its own entries name.
    assert (second.catalogs, second.objects, second.problems) == (1, 5, ())


def test_the_entry_of_a_catalog_that_is_passed_over_is_checked(good: Good) -> None:
    thorough = Thoroughness()
    check_revision(good.revision(), thoroughness=thorough)
    good.root.rows[-1] = (b"/d/n", Row(FOLDER, flags=3, size=4096, links=2, uid=7))
    found = messages(check_revision(good.root.revision(good.store), thoroughness=thorough))
    assert found == ["/d/n: the mountpoint differs from the root of its catalog"]


def test_damage_may_be_taken_care_of(good: Good) -> None:
    revision = good.revision()
    lost = {
        path: good.store.objects.pop((good.digests[path], ObjectKind.FILE))
        for path in (b"/a", b"/d/b")
    }
    seen: list[tuple[bytes, ObjectRef]] = []

    def mend(path: bytes, ref: ObjectRef, why: LazyfsError) -> bool:
        assert isinstance(why, ObjectMissing)
        seen.append((path, ref))
        return path == b"/a"

    report = check_revision(revision, thoroughness=Thoroughness(on_damage=mend))
    assert {path: ref.digest for path, ref in seen} == {path: good.digests[path] for path in lost}
    assert [problem.path for problem in report.problems] == [b"/d/b"]
    assert report.objects == 5


# --- the journal ---------------------------------------------------------------------------


def test_a_check_goes_on_where_it_was(good: Good, tmp_path: Path) -> None:
    revision, journal = good.revision(), tmp_path / "journal"
    stored = good.store.objects.pop((good.digests[b"/a"], ObjectKind.FILE))
    first = check_revision(revision, journal=journal)
    assert (first.objects, len(first.problems)) == (6, 1)
    # A line that was cut by a kill does not count.
    journal.write_text(journal.read_text() + str(good.digests[b"/a"]))
    good.store.objects[good.digests[b"/a"], ObjectKind.FILE] = stored
    second = check_revision(revision, journal=journal)
    assert (second.objects, second.problems) == (1, ())
    assert check_revision(revision, journal=journal).objects == 0


@pytest.mark.parametrize("content", ["precious", "precious\n", "\xe9"])
def test_a_file_that_is_no_journal_stays_as_it_is(good: Good, tmp_path: Path, content: str) -> None:
    precious = tmp_path / "file"
    precious.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match="no journal"):
        check_revision(good.revision(), journal=precious)
    assert precious.read_text(encoding="latin-1") == content


@pytest.mark.parametrize("size", [0, 5])
def test_a_journal_of_a_run_killed_at_once(good: Good, tmp_path: Path, size: int) -> None:
    revision, journal = good.revision(), tmp_path / "journal"
    assert check_revision(revision, journal=journal).objects > 0
    whole = journal.read_text()
    journal.write_text(whole[:size])
    assert check_revision(revision, journal=journal).objects > 0
    assert sorted(journal.read_text().split("\n")) == sorted(whole.split("\n"))


def test_a_journal_that_cannot_be_used_is_an_error(good: Good, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        check_revision(good.revision(), journal=tmp_path / "none" / "journal")


# --- catalogs ------------------------------------------------------------------------------


def wrong_counter(good: Good) -> None:
    good.nested.counters["self_regular"] = 3
    good.root.counters["subtree_regular"] = 3


def wrong_subtree_counter(good: Good) -> None:
    good.root.counters["subtree_file_size"] = 499


def missing_counter(good: Good) -> None:
    good.nested.script = "DELETE FROM statistics WHERE counter = 'self_xattr'"


def orphan(good: Good) -> None:
    good.root.file(b"/nowhere/x", good.digests[b"/a"], 5)


def rows_below_a_mountpoint(good: Good) -> None:
    good.root.file(b"/d/n/ghost", good.digests[b"/a"], 5)


def wrong_links(good: Good) -> None:
    good.root.folder(b"/d/more")
    good.root.counters["self_dir"] = 4


def unregistered_mountpoint(good: Good) -> None:
    good.root.add(b"/m", Row(FOLDER, flags=3, size=4096, links=2))
    good.root.rows[0] = (b"", Row(FOLDER, flags=1, size=4096, links=4))
    good.root.counters["self_dir"] = 4


def registered_without_entry(good: Good) -> None:
    digest = CatalogBuilder(b"/ghost").put(good.store)
    good.root.nested.append((b"/ghost", str(digest), 0))
    good.root.counters["self_nested"] = 2


def mountpoint_differs(good: Good) -> None:
    good.nested.rows[0] = (b"/d/n", Row(FOLDER & ~0o055, flags=33, size=4096, links=2))


def no_root_entry(good: Good) -> None:
    del good.nested.rows[0]
    good.nested.counters |= {"self_dir": 0, "self_regular": 0, "self_file_size": 0}
    good.root.counters |= {"subtree_dir": 0, "subtree_regular": 0, "subtree_file_size": 0}


def wrong_prefix(good: Good) -> None:
    good.nested.properties["root_prefix"] = "/elsewhere"


def no_marker(good: Good) -> None:
    del good.nested.rows[-1]
    good.nested.counters["self_regular"] = 1
    good.root.counters["subtree_regular"] = 1


def marker_in_vain(good: Good) -> None:
    good.root.file(b"/d/.cvmfscatalog", good.marker)
    good.root.counters["self_regular"] = 4


def lying_link(good: Good) -> None:
    good.root.add(b"/l2", Row(stat.S_IFLNK | 0o777, flags=12, size=9, symlink=b"a"))
    good.root.counters["self_symlink"] = 2


def misplaced_name(good: Good) -> None:
    good.root.add(b"/real", Row(digest=good.digests[b"/a"].raw, size=5, name=b"shown"))
    good.root.counters |= {"self_regular": 4, "self_file_size": 23}


def broken_hard_links(good: Good) -> None:
    good.root.add(b"/h", Row(digest=good.digests[b"/a"].raw, size=5, links=2 | 1 << 32))
    good.root.counters |= {"self_regular": 4, "self_file_size": 23}


def unequal_hard_links(good: Good) -> None:
    for name, uid in ((b"/h", 0), (b"/i", 1)):
        row = Row(digest=good.digests[b"/a"].raw, size=5, links=2 | 1 << 32, uid=uid)
        good.root.add(name, row)
    good.root.counters |= {"self_regular": 5, "self_file_size": 28}


def chunk_gap(good: Good) -> None:
    good.root.chunks[1] = (b"/d/big", 4, 5, good.pieces[1].raw)


def lying_size(good: Good) -> None:
    good.root.rows = [
        (path, Row(digest=row.digest, size=6) if path == b"/a" else row)
        for path, row in good.root.rows
    ]
    good.root.counters["self_file_size"] = 19


def impossible_row(good: Good) -> None:
    good.root.add(b"/bad", Row(mode=0))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (wrong_counter, ["/d/n: counter self_regular says 3, there are 2"]),
        (wrong_subtree_counter, [": counter subtree_file_size says 499, there are 500"]),
        (missing_counter, ["/d/n: counter self_xattr is missing"]),
        (orphan, [": 8 entries are stored, 7 can be reached"]),
        (rows_below_a_mountpoint, [": 8 entries are stored, 7 can be reached"]),
        (wrong_links, ["/d: 3 links are recorded, there are 4"]),
        (unregistered_mountpoint, ["/m: a mountpoint without a nested catalog"]),
        (registered_without_entry, ["/ghost: a nested catalog is registered without an entry"]),
        (mountpoint_differs, ["/d/n: the mountpoint differs"]),
        (no_root_entry, ["/d/n: the catalog has no root entry"]),
        (wrong_prefix, ["/d/n: the catalog was published for"]),
        (no_marker, ["/d/n: a nested catalog without .cvmfscatalog"]),
        (marker_in_vain, ["/d/.cvmfscatalog: a marker without a nested catalog"]),
        (lying_link, ["/l2: the size is not the length"]),
        (misplaced_name, ["/shown: listed, but not found"]),
        (broken_hard_links, ["/h: 2 hard links recorded, 1 found"]),
        (unequal_hard_links, ["/h: hard links to one file differ"]),
        (chunk_gap, ["/d/big: a chunk at 4 does not follow 3"]),
        (lying_size, ["/a: the content has 5 bytes, 6 were declared"]),
        (impossible_row, [": mode 0 or size 0 cannot be"]),
    ],
)
def test_what_is_wrong_is_named(
    good: Good, spoil: Callable[[Good], None], expected: list[str]
) -> None:
    spoil(good)
    found = messages(check_revision(good.revision()))
    for text in expected:
        assert any(message.startswith(text) for message in found), found
    if spoil not in (wrong_prefix, no_root_entry, unregistered_mountpoint, impossible_row):
        assert len(found) == len(expected), found


def test_bound_revisions_are_not_followed(good: Good) -> None:
    good.root.add(b"/snap", Row(FOLDER, flags=1 | 0x4000, size=4096, links=2))
    good.root.binds.append((b"/snap", str(Algorithm.SHA1.digest(b"gone")), 0))
    good.root.rows[0] = (b"", Row(FOLDER, flags=1, size=4096, links=4))
    good.root.counters["self_dir"] = 4
    assert messages(check_revision(good.revision())) == []


def test_problems_are_bounded(good: Good, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lazyfs.repository.check.MAX_PROBLEMS", 3)
    for number in range(50):
        good.root.chunked(b"/bad%d" % number, 5, [])
    assert 3 <= len(check_revision(good.revision()).problems) < 20
