from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import stat
import subprocess
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.publishing import (
    FQRN,
    File,
    Folder,
    HardLink,
    Item,
    PublishedRepository,
    Symlink,
    make_repository,
    write_tree,
)

from lazyfs.cas.codec import Codec
from lazyfs.cas.digest import Algorithm, Digest, ObjectKind
from lazyfs.errors import PublishError
from lazyfs.publish.cutter import ChunkSizes
from lazyfs.publish.directory_target import DirectoryTarget, DirectoryUpload
from lazyfs.publish.ingest import TreeOptions
from lazyfs.publish.keys import RepositoryKeys
from lazyfs.publish.lease import LEASE_PATH, held
from lazyfs.publish.ledger import REFLOG_PATH
from lazyfs.publish.publisher import Publisher
from lazyfs.repository.catalog import COUNTERS
from lazyfs.repository.manifest import MANIFEST_PATH, Manifest, parse_manifest
from lazyfs.repository.repository import Repository
from lazyfs.repository.revision import Revision
from lazyfs.repository.signed import parse_signed
from lazyfs.repository.whitelist import WHITELIST_PATH

MARKER = ".cvmfscatalog"
SIZES = ChunkSizes(1024, 2048, 4096)
NOISE = hashlib.shake_128(b"noise").digest(20_000)

TREE: dict[str, Item] = {
    "plain": File(b"hello", 0o640, mtime_ns=1_600_000_000_123_456_789),
    "old": File(b"x", mtime_ns=-86_400_000_000_001),
    "empty": b"",
    "no-cut": bytes(2000),
    "large": NOISE,
    "setuid": File(b"#!", 0o4755),
    "one": b"linked",
    "two": HardLink("one"),
    "other/three": HardLink("one"),
    "link": Symlink("plain"),
    "variable": Symlink("$(OS:-linux)/x"),
    "hollow": Folder(0o1777),
    "deep/.cvmfscatalog": b"",
    "deep/file": b"in the nested catalog",
    "deep/er/.cvmfscatalog": b"",
    "deep/er/large": NOISE[:9000],
    "deep/er/sub/x": b"x",
}


@contextlib.contextmanager
def opened(repository: PublishedRepository, cache: Path) -> Iterator[Revision]:
    with Repository.open(repository.root, pubkey=repository.pubkey, cache=cache) as found:
        yield found.current


def manifest_of(repository: PublishedRepository) -> Manifest:
    return parse_manifest((repository.root / MANIFEST_PATH).read_bytes())


@contextlib.contextmanager
def database(
    repository: PublishedRepository, digest: Digest, kind: ObjectKind = ObjectKind.CATALOG
) -> Iterator[sqlite3.Connection]:
    stored = (repository.root / digest.object_path(kind)).read_bytes()
    assert digest.algorithm.digest(stored) == digest
    connection = sqlite3.connect(":memory:")
    connection.deserialize(zlib.decompress(stored))
    with contextlib.closing(connection):
        yield connection


def schema(connection: sqlite3.Connection) -> set[str]:
    rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {"".join(sql.split()) for (sql,) in rows}


@pytest.mark.parametrize("algorithm", [Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128])
def test_a_tree_reads_back_as_it_is_on_disk(tmp_path: Path, algorithm: Algorithm) -> None:
    repository = make_repository(tmp_path, TREE, sizes=SIZES, algorithm=algorithm)
    with opened(repository, tmp_path / "cache") as revision:
        nodes = {node.path.decode(): node for node in revision.walk()}
        on_disk = {"": repository.source}
        on_disk |= {f"/{p.relative_to(repository.source)}": p for p in repository.source.rglob("*")}
        assert nodes.keys() == on_disk.keys()
        for name, path in on_disk.items():
            node, status = nodes[name], path.lstat()
            assert node.mode == status.st_mode, name
            assert (node.uid, node.gid) == (status.st_uid, status.st_gid), name
            assert node.mtime_ns == status.st_mtime_ns, name
            assert node.size == status.st_size, name
            if node.is_symlink:
                assert node.symlink == os.fsencode(path.readlink())
            if node.is_file:
                assert node.algorithm is algorithm
                with revision.open_file(node) as file:
                    assert file.read() == path.read_bytes(), name


def test_chunked_only_if_larger_than_the_minimum_and_cut(tmp_path: Path) -> None:
    repository = make_repository(tmp_path, TREE, sizes=SIZES)
    with opened(repository, tmp_path / "cache") as revision:
        large, no_cut = revision.lookup(b"/large"), revision.lookup(b"/no-cut")
        assert large.chunked
        assert large.digest is None
        assert len(revision.extents(large)) > 3
        assert not no_cut.chunked
        assert no_cut.digest is not None
        assert (repository.root / no_cut.digest.object_path(ObjectKind.FILE)).exists()
        assert revision.lookup(b"/empty").digest == Digest.parse(
            "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78"
        )


def test_hard_links_are_groups_within_one_directory(tmp_path: Path) -> None:
    repository = make_repository(tmp_path, TREE, sizes=SIZES)
    with opened(repository, tmp_path / "cache") as revision:
        one, two, three, plain = (
            revision.lookup(p) for p in (b"/one", b"/two", b"/other/three", b"/plain")
        )
        assert one.hardlink_group == two.hardlink_group > 0
        assert (one.nlink, two.nlink) == (2, 2)
        assert (three.hardlink_group, three.nlink) == (0, 1)
        assert (plain.hardlink_group, plain.nlink) == (0, 1)


def test_directories_count_their_subdirectories(tmp_path: Path) -> None:
    repository = make_repository(tmp_path, TREE, sizes=SIZES)
    with opened(repository, tmp_path / "cache") as revision:
        links = {p: revision.lookup(p).nlink for p in (b"", b"/deep", b"/deep/er", b"/hollow")}
        assert links == {b"": 5, b"/deep": 3, b"/deep/er": 3, b"/hollow": 2}


def test_special_files_and_xattrs(tmp_path: Path) -> None:
    source = tmp_path / "made"
    source.mkdir()
    os.mkfifo(source / "fifo", 0o600)
    (source / "file").write_bytes(b"x")
    try:
        os.setxattr(source / "file", "user.colour", b"\xffblue\x00")
        os.setxattr(source / "file", "user.long", b"x" * 256)
    except OSError:
        pytest.skip("the file system keeps no user attributes")
    if os.geteuid() == 0:
        os.mknod(source / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    repository = make_repository(tmp_path, source)
    with opened(repository, tmp_path / "cache") as revision:
        fifo = revision.lookup(b"/fifo")
        assert stat.S_ISFIFO(fifo.mode)
        assert (fifo.size, fifo.rdev) == (0, 0)
        # A value of 256 bytes does not fit the format's one-byte length.
        assert revision.xattrs(revision.lookup(b"/file")) == {b"user.colour": b"\xffblue\x00"}
        if os.geteuid() == 0:
            assert revision.lookup(b"/null").rdev == os.makedev(1, 3)
        assert revision.counters()["xattr"] == 1


def test_options_choose_codecs_attributes_and_times(tmp_path: Path) -> None:
    options = TreeOptions(
        codec=lambda path: Codec.NONE if path.endswith(b".gz") else Codec.ZLIB,
        xattrs=False,
        nanoseconds=False,
    )
    tree: dict[str, Item] = {"a.gz": NOISE, "b": File(NOISE, mtime_ns=1_600_000_000_123_456_789)}
    repository = make_repository(tmp_path, tree, sizes=SIZES, options=options)
    with opened(repository, tmp_path / "cache") as revision:
        assert revision.lookup(b"/a.gz").codec is Codec.NONE
        assert revision.lookup(b"/b").codec is Codec.ZLIB
        assert revision.lookup(b"/b").mtime_ns == 1_600_000_000_000_000_000
        with revision.open_file(b"/a.gz") as file:
            assert file.read() == NOISE
    with database(repository, manifest_of(repository).root_catalog) as root:
        assert root.execute(
            "SELECT count(*) FROM catalog WHERE mtimens IS NOT NULL"
        ).fetchone() == (0,)


def test_names_need_not_be_text(tmp_path: Path) -> None:
    source = tmp_path / "made"
    source.mkdir()
    names = [b"latin-\xe9", b"new\nline", b"x" * 255, b"'quote"]
    for name in names:
        (source / os.fsdecode(name)).write_bytes(name)
    repository = make_repository(tmp_path, source)
    with opened(repository, tmp_path / "cache") as revision:
        assert {node.name for node in revision.listdir(b"")} == set(names)


def recount(connection: sqlite3.Connection) -> Counter[str]:
    found: Counter[str] = Counter()
    for mode, flags, size, xattr in connection.execute(
        "SELECT mode, flags, size, xattr FROM catalog"
    ):
        kind = {stat.S_IFREG: "regular", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink"}
        found[kind.get(stat.S_IFMT(mode), "special")] += 1
        found["xattr"] += xattr is not None
        if stat.S_ISREG(mode):
            found["file_size"] += size
            if flags & 0x40:
                found["chunked"] += 1
                found["chunked_size"] += size
    found["chunks"] = connection.execute("SELECT count(*) FROM chunks").fetchone()[0]
    found["nested"] = connection.execute("SELECT count(*) FROM nested_catalogs").fetchone()[0]
    return found


def check_catalog(
    repository: PublishedRepository, digest: Digest, mountpoint: str
) -> tuple[Counter[str], int]:
    """What a catalog counts with all below it, and its size; everything in it is checked."""
    below: Counter[str] = Counter()
    with database(repository, digest) as catalog:
        for path, child, size in catalog.execute("SELECT path, sha1, size FROM nested_catalogs"):
            counted, real_size = check_catalog(repository, Digest.parse(child), path)
            assert size == real_size
            below += counted
            check_mountpoint(repository, catalog, Digest.parse(child), path)
        own = recount(catalog)
        rows = dict(catalog.execute("SELECT counter, value FROM statistics").fetchall())
        expected = {f"self_{name}": own[name] for name in COUNTERS}
        assert rows == expected | {f"subtree_{name}": below[name] for name in COUNTERS}
        properties = dict(catalog.execute("SELECT key, value FROM properties").fetchall())
        assert (properties["schema"], properties["schema_revision"]) == ("2.5", "7")
        assert properties.get("root_prefix", "") == mountpoint
        (root,) = catalog.execute("SELECT flags FROM catalog LIMIT 1").fetchone()
        assert root == (33 if mountpoint else 1)  # a repository's root is no nested root
        return own + below, len(catalog.serialize())


def check_mountpoint(
    repository: PublishedRepository, parent: sqlite3.Connection, child: Digest, path: str
) -> None:
    """The two rows of a mountpoint are equal but for their flags."""
    columns = "hardlinks, size, mode, mtime, mtimens, name, uid, gid, xattr, parent_1, parent_2"
    query = f"SELECT flags, {columns} FROM catalog WHERE flags & ?"
    with database(repository, child) as nested:
        (root,) = nested.execute(query, (0x20,)).fetchall()
    rows = {row[6]: row for row in parent.execute(query, (0x2,))}
    row = rows[path.rpartition("/")[2]]
    assert (row[0], root[0]) == (3, 33)
    assert row[1:] == root[1:]


def test_every_catalog_counts_what_it_holds(tmp_path: Path) -> None:
    repository = make_repository(tmp_path, TREE, sizes=SIZES)
    manifest = manifest_of(repository)
    total, size = check_catalog(repository, manifest.root_catalog, "")
    assert size == manifest.catalog_size
    assert total["nested"] == 2
    # Each of the two mountpoints counts in both of its catalogs.
    directories = [p for p in repository.source.rglob("*") if p.is_dir()]
    assert total["dir"] == len(directories) + 1 + 2


def test_tables_are_the_real_servers(tmp_path: Path) -> None:
    reference = Path(__file__).parents[3] / "shared/fixtures/history.ref.example.tar"
    if not reference.exists():
        pytest.skip("../shared/fixtures is not here")
    subprocess.run(["tar", "-C", tmp_path, "-xf", reference], check=True)
    repository = make_repository(tmp_path, {"x": b"x"})
    folder = tmp_path / "history.ref.example"
    theirs = parse_manifest((folder / MANIFEST_PATH).read_bytes())
    ours = manifest_of(repository)
    real = PublishedRepository(
        fqrn="",
        root=folder,
        pubkey=folder,
        keys=repository.keys,
        publisher=repository.publisher,
        options=repository.options,
        source=folder,
        result=repository.result,
    )
    assert ours.history is not None
    assert theirs.history is not None
    for kind, mine, their in (
        (ObjectKind.CATALOG, ours.root_catalog, theirs.root_catalog),
        (ObjectKind.HISTORY, ours.history, theirs.history),
    ):
        with database(repository, mine, kind) as a, database(real, their, kind) as b:
            assert schema(a) == schema(b)


def test_openssl_agrees_with_both_signatures(tmp_path: Path) -> None:
    repository = make_repository(tmp_path, {"x": b"x"})
    certificate = tmp_path / "certificate"
    certificate.write_bytes(repository.keys.certificate_pem)
    schemes: tuple[tuple[str, list[str | Path]], ...] = (
        (MANIFEST_PATH, ["-certin", "-inkey", certificate, "-pkeyopt", "digest:sha1"]),
        (WHITELIST_PATH, ["-pubin", "-inkey", repository.pubkey]),
    )
    for name, options in schemes:
        document = parse_signed((repository.root / name).read_bytes(), name)
        signed, signature = tmp_path / "signed", tmp_path / "signature"
        payload = document.signed_bytes
        if name == MANIFEST_PATH:
            payload = hashlib.sha1(payload).digest()
        signed.write_bytes(payload)
        signature.write_bytes(document.signature)
        command: list[str | Path] = ["openssl", "pkeyutl", "-verify", "-in", signed, *options]
        command += ["-sigfile", signature]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0, name


def test_the_next_revision_follows_the_last(tmp_path: Path) -> None:
    repository = make_repository(tmp_path, {"a": NOISE, "b": b"same"}, ttl=77)
    first = manifest_of(repository)
    result = repository.publish({"a": NOISE, "b": b"same", "c": b"new"}, tag="v2")
    second = manifest_of(repository)
    assert (first.revision, second.revision, result.revision) == (1, 2, 2)
    # Root catalog, history and the one new file; the others are there already.
    assert result.new_objects == 3
    with database(repository, second.root_catalog) as root:
        properties = dict(root.execute("SELECT key, value FROM properties").fetchall())
    assert properties["previous_revision"] == str(first.root_catalog)
    assert properties["revision"] == "2"
    assert properties["TTL"] == "77"
    with Repository.open(repository.root, pubkey=repository.pubkey, cache=tmp_path / "c") as found:
        tags = {tag.name: tag.revision for tag in found.tags()}
    assert tags == {"trunk": 2, "trunk-previous": 1, "v2": 2}
    with Repository.open(
        repository.root, pubkey=repository.pubkey, cache=tmp_path / "c", tag="trunk-previous"
    ) as old:
        assert {node.name for node in old.current.listdir(b"")} == {b"a", b"b"}


def test_reflog_holds_all_that_manifests_named(tmp_path: Path) -> None:
    repository = make_repository(tmp_path, {"a": b"1"})
    first = manifest_of(repository)
    repository.publish({"a": b"2"})
    second = manifest_of(repository)
    raw = (repository.root / REFLOG_PATH).read_bytes()
    assert second.reflog == Algorithm.SHA1.digest(raw)
    with contextlib.closing(sqlite3.connect(":memory:")) as reflog:
        reflog.deserialize(raw)
        refs = dict(reflog.execute("SELECT hash, type FROM refs").fetchall())
    for manifest in (first, second):
        assert refs[str(manifest.root_catalog)] == 0
        assert refs[str(manifest.certificate)] == 1
        assert refs[str(manifest.history)] == 2


def test_settings_stay_from_one_publish_to_the_next(tmp_path: Path) -> None:
    keys = RepositoryKeys.generate(FQRN)
    target = DirectoryTarget(tmp_path / FQRN)
    (tmp_path / "tree").mkdir()
    Publisher(target, keys, FQRN, algorithm=Algorithm.SHAKE128, ttl=61).init(
        garbage_collectable=False, metainfo=b'{"organisation": "test"}'
    )
    Publisher(target, keys, FQRN).publish(tmp_path / "tree")
    manifest = parse_manifest((target.root / MANIFEST_PATH).read_bytes())
    assert manifest.revision == 1
    assert manifest.root_catalog.algorithm is Algorithm.SHAKE128
    assert manifest.ttl == 61
    assert not manifest.garbage_collectable
    assert manifest.metainfo is not None
    stored = (target.root / manifest.metainfo.object_path(ObjectKind.METAINFO)).read_bytes()
    assert zlib.decompress(stored) == b'{"organisation": "test"}'


class RecordingTarget(DirectoryTarget):
    """Notes the order in which things become visible."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.visible: list[str] = []

    def upload(self) -> DirectoryUpload:
        target = self

        class Upload(DirectoryUpload):
            def commit(self, path: str, *, replace: bool = False) -> bool:
                target.visible.append(path)
                return super().commit(path, replace=replace)

        return Upload(self.root, self.root / "data" / "txn")

    def replace(self, path: str, content: bytes) -> None:
        if path != LEASE_PATH:
            self.visible.append(path)
        super().replace(path, content)


def test_manifest_comes_last_and_catalogs_after_their_content(tmp_path: Path) -> None:
    made = make_repository(tmp_path, {"x": b"x"})
    target = RecordingTarget(made.root)
    Publisher(target, made.keys, made.fqrn, sizes=SIZES).publish(made.source)
    write_tree(
        made.source, {f"{d}/{n}": b"new" for d in ("deep", "deep/er") for n in (MARKER, "x", "y")}
    )
    target.visible.clear()
    Publisher(target, made.keys, made.fqrn, sizes=SIZES).publish(made.source)
    assert target.visible[-2:] == [REFLOG_PATH, MANIFEST_PATH]
    root = manifest_of(made).root_catalog
    with database(made, root) as catalog:
        ((child,),) = catalog.execute("SELECT sha1 FROM nested_catalogs").fetchall()
    with database(made, Digest.parse(child)) as catalog:
        ((grandchild,),) = catalog.execute("SELECT sha1 FROM nested_catalogs").fetchall()
    catalogs = [path for path in target.visible if path.endswith("C")]
    order = [Digest.parse(grandchild), Digest.parse(child), root]
    assert catalogs == [digest.object_path(ObjectKind.CATALOG) for digest in order]
    # A whole file's object has no letter.
    files = [p for p in target.visible if p.startswith("data/") and p[-1] in "0123456789abcdef"]
    assert files
    assert target.visible.index(files[-1]) < target.visible.index(catalogs[-1])


def test_failure_leaves_the_old_revision_and_no_litter(tmp_path: Path) -> None:
    repository = make_repository(tmp_path, {"a": b"1"})
    before = (repository.root / MANIFEST_PATH).read_bytes()
    trees: tuple[dict[str, Item], ...] = (
        {"a": b"2", MARKER: b""},
        {"a": b"2", f"d/{MARKER}": Symlink("x")},
        {"a": b"2", ".cvmfs": b""},
    )
    for tree in trees:
        with pytest.raises(PublishError):
            repository.publish(tree)
    with pytest.raises(PublishError, match="not a directory"):
        repository.publish(tmp_path / "missing")
    assert (repository.root / MANIFEST_PATH).read_bytes() == before
    left = [p.name for p in (repository.root / "data" / "txn").iterdir()]
    assert sorted(left) == ["documents.lock", "lease"]


def test_a_second_publisher_is_refused(tmp_path: Path) -> None:
    repository = make_repository(tmp_path, {"a": b"1"})
    with (
        held(DirectoryTarget(repository.root), "test"),
        pytest.raises(PublishError, match=r"another publisher is at work: .*\(test\)"),
    ):
        repository.publish({"a": b"2"})
    assert repository.publish({"a": b"2"}).revision == 2


def test_no_repository_and_another_repository_are_refused(tmp_path: Path) -> None:
    repository = make_repository(tmp_path, {"a": b"1"})
    other = RepositoryKeys.generate("other.example.org")
    with pytest.raises(PublishError, match=f"holds {FQRN}"):
        Publisher(DirectoryTarget(repository.root), other, "other.example.org").publish(tmp_path)
    with pytest.raises(PublishError, match="is a repository already"):
        repository.publisher.init()
    empty = DirectoryTarget(tmp_path / "empty")
    empty.prepare()
    with pytest.raises(PublishError, match="publish init"):
        Publisher(empty, other, "other.example.org").publish(tmp_path)


def test_a_taken_tag_is_refused_before_anything_is_uploaded(tmp_path: Path) -> None:
    repository = make_repository(tmp_path, {"a": b"1"}, tag="v1")
    objects = sorted((repository.root / "data").glob("??/*"))
    with pytest.raises(PublishError, match="'v1' already"):
        repository.publish({"a": b"a new file"}, tag="v1")
    assert sorted((repository.root / "data").glob("??/*")) == objects


def test_damaged_reflog_is_a_typed_error(tmp_path: Path) -> None:
    repository = make_repository(tmp_path, {"a": b"1"})
    (repository.root / REFLOG_PATH).write_bytes(b"not a database" * 100)
    with pytest.raises(Exception, match="damaged database") as caught:
        repository.publish({"a": b"2"})
    assert type(caught.value).__name__ == "FormatError"
    assert manifest_of(repository).revision == 1


def test_served_files_are_readable_by_a_web_server(tmp_path: Path) -> None:
    repository = make_repository(tmp_path, TREE, sizes=SIZES)
    for path in repository.root.rglob("*"):
        if path.is_file() and path.name != "documents.lock":
            assert stat.S_IMODE(path.stat().st_mode) == 0o644, path
