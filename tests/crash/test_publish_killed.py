"""A publisher that is killed, at every boundary between it and the place that it publishes to."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.killed_target import Boundaries, KilledTarget, count_boundaries, killed_at
from support.publishing import FQRN, write_tree
from support.s3_server import NAMES, S3Servers

from lazyfs.publish.cutter import ChunkSizes
from lazyfs.publish.directory_source import DirectorySource
from lazyfs.publish.directory_target import DirectoryTarget
from lazyfs.publish.gc import collect_garbage
from lazyfs.publish.keys import RepositoryKeys
from lazyfs.publish.publisher import Publisher
from lazyfs.publish.target import UploadTarget
from lazyfs.publish.target_store import opened_store
from lazyfs.publish.verify import VerifyOptions, verify_target

SIZES = ChunkSizes(minimum=1 << 10, average=2 << 10, maximum=4 << 10)
KEYS = RepositoryKeys.generate(FQRN)

Tree = dict[bytes, bytes]


@dataclass(slots=True)
class Place:
    """A repository, and a way to reach it that each process makes anew."""

    connect: Callable[[], UploadTarget]
    source: Path

    def publisher(self, boundaries: Boundaries | None = None) -> Publisher:
        target = self.connect()
        if boundaries is not None:
            target = KilledTarget(target, boundaries)
        return Publisher(target, KEYS, FQRN, sizes=SIZES)

    def lay_out(self, number: int) -> None:
        """Another tree, all of which differs from the one before."""
        content = b"%d" % number
        items = {f"{top}/{name}": content + name.encode() for top in "ab" for name in "xy"}
        chunked = bytes(itertools.islice(itertools.cycle(bytes(range(number, 256))), 6000))
        write_tree(self.source, {**items, "b/.cvmfscatalog": b"", "a/large": chunked})

    def publish(self, boundaries: Boundaries | None = None) -> None:
        with self.publisher(boundaries).transaction() as transaction:
            transaction.sync(DirectorySource(self.source))
            transaction.commit(tag=None)

    def tree(self) -> tuple[int, Tree]:
        """Revision and content, every object of which was verified."""
        target = self.connect()
        report = verify_target(target, FQRN, KEYS.trusted, VerifyOptions(tags=True))
        assert report.problems == ()
        manifest = self.publisher().ledger.head().manifest
        with (
            opened_store(target) as store,
            store.revision(FQRN, manifest.root_catalog) as revision,
        ):
            content = {}
            for node in revision.walk():
                if node.is_file:
                    with revision.open_file(node) as file:
                        content[node.path] = file.read()
            return manifest.revision, content


@pytest.fixture(params=["directory", *NAMES])
def place(request: pytest.FixtureRequest, tmp_path: Path, s3_servers: S3Servers) -> Place:
    if request.param == "directory":
        made = Place(lambda: DirectoryTarget(tmp_path / FQRN), tmp_path / "source")
    else:
        server = s3_servers.get(request.param)
        bucket = server.new_bucket()
        made = Place(lambda: server.target(bucket, FQRN), tmp_path / "source")
    made.publisher().init()
    made.lay_out(0)
    made.publish()
    return made


@pytest.mark.timeout(300)
def test_old_or_new_and_never_anything_else(place: Place) -> None:
    place.lay_out(1)
    boundaries = count_boundaries(place.publish)
    assert boundaries > 20
    old = place.tree()
    published = 0
    for number in range(boundaries):
        place.lay_out(number + 2)
        assert killed_at(number, place.publish)
        found = place.tree()
        if found != old:
            published += 1
            assert found[0] == old[0] + 1
            assert found[1] == source_of(place)
        place.publish()  # the lease of the dead does not stand in the way
        old = place.tree()
        assert old[0] == found[0] + 1
        assert old[1] == source_of(place)
    # The manifest is replaced near the end: before that, all is as it was.
    assert 0 < published < 6


def source_of(place: Place) -> Tree:
    return {
        b"/" + str(path.relative_to(place.source)).encode(): path.read_bytes()
        for path in place.source.rglob("*")
        if path.is_file()
    }


@pytest.mark.timeout(300)
def test_garbage_collection_too(place: Place) -> None:
    def collect(boundaries: Boundaries) -> None:
        collect_garbage(place.publisher(boundaries).ledger)

    for number in itertools.count():
        place.lay_out(number + 1)
        place.publish()
        before = place.tree()
        if not killed_at(number, collect):
            break
        assert place.tree() == before
    assert number > 10
    collect_garbage(place.publisher().ledger)
    assert place.tree() == before
