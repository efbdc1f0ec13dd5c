"""What lazyfs publishes, as the reference client shows it; and both clients beside each other."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.mounts import RunningMount, mounted
from support.pictures import Differences, differences, picture, xattr
from support.publishing import File, PublishedRepository, make_repository
from support.reference import NAMES, TAGS, ReferenceRepositories
from support.reference_client import ReferenceMount, reference_client, reference_mount
from support.varied import BIG, varied_repository
from support.waiting import wait_until

from lazyfs.cas.digest import Algorithm
from lazyfs.net.static_server import StaticServer
from lazyfs.publish.cutter import ChunkSizes

PARAMETERS = {
    "CVMFS_QUOTA_LIMIT": "2000",
    "CVMFS_TIMEOUT": "7",
    "CVMFS_TIMEOUT_DIRECT": "9",
    "CVMFS_KCACHE_TIMEOUT": "1",
    "CVMFS_TEST_VARIABLE": "where",
}
"""What both clients are told: defaults are not compared."""


@dataclass(frozen=True, slots=True)
class Clients:
    """Both clients with the same repository."""

    reference: ReferenceMount
    own: RunningMount

    @property
    def roots(self) -> tuple[Path, Path]:
        """The mount points, the reference client's first."""
        return self.reference.path, self.own.path

    def differences(self) -> Differences:
        """What they do not show alike, attributes and all."""
        truth, shown = map(picture, self.roots)
        return differences(truth, shown)

    def assert_alike(self) -> None:
        """Both show the same, to the last attribute."""
        assert self.differences() == {}

    def assert_alike_soon(self) -> None:
        """The same once the kernel has forgotten what the reference client told it before."""
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self.differences())
        self.assert_alike()


@contextlib.contextmanager
def both(url: str, fqrn: str, pubkey: Path, more: Mapping[str, str]) -> Iterator[Clients]:
    """A repository mounted by both clients with the same parameters."""
    parameters = {**PARAMETERS, **more}
    options = [f"--set={name}={value}" for name, value in parameters.items()]
    with (
        reference_mount(url, fqrn, pubkey, parameters) as reference,
        mounted(url, *options, pubkey=pubkey) as own,
    ):
        yield Clients(reference, own)


@contextlib.contextmanager
def both_of(repository: PublishedRepository, **more: str) -> Iterator[Clients]:
    """The same for what lazyfs published."""
    with (
        StaticServer(repository.served) as server,
        both(f"{server.url}/{repository.fqrn}", repository.fqrn, repository.pubkey, more) as found,
    ):
        yield found


@pytest.fixture(params=[Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128], ids=str)
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    reference_client()
    found: Algorithm = request.param
    return found


@pytest.fixture
def repository(tmp_path: Path) -> PublishedRepository:
    reference_client()
    return varied_repository(tmp_path, Algorithm.SHA1)


# --- what lazyfs published -----------------------------------------------------------------


def test_both_clients_show_the_same_of_what_lazyfs_published(
    algorithm: Algorithm, tmp_path: Path
) -> None:
    with both_of(varied_repository(tmp_path, algorithm)) as clients:
        clients.assert_alike()
        seen = clients.reference.path
        assert (seen / "chunked").read_bytes() == BIG
        assert (seen / "variable").readlink() == Path("where")


def test_both_clients_follow_what_lazyfs_publishes(repository: PublishedRepository) -> None:
    with both_of(repository) as clients:
        seen = clients.reference.path
        assert (seen / "file").read_bytes() == b"content"
        assert (seen / "sub/deeper/file").read_bytes() == b"deep"
        tree = {"file": b"changed", "sub/inside": b"new", "new/.cvmfscatalog": b"", "new/x": b"n"}
        repository.publish(tree)
        # The answer tells of the last of several looks, which finds nothing newer any more.
        assert clients.reference.talk("remount sync") == "Catalog up to date\n"
        clients.own.ctl("remount")
        assert (seen / "file").read_bytes() == b"changed"
        assert (seen / "sub/inside").read_bytes() == b"new"
        assert sorted(path.name for path in seen.iterdir()) == ["file", "new", "sub"]
        assert os.getxattr(seen, "user.revision") == b"3"
        clients.assert_alike_soon()


@pytest.mark.parametrize("how", ["CVMFS_REPOSITORY_TAG", "CVMFS_ROOT_HASH"])
def test_both_clients_find_older_revisions(repository: PublishedRepository, how: str) -> None:
    wanted = "first" if how == "CVMFS_REPOSITORY_TAG" else str(repository.result.root_hash)
    repository.publish({"other": b"x"}, tag="second")
    with both_of(repository, **{how: wanted}) as clients:
        assert (clients.reference.path / "file").read_bytes() == b"content"
        never = b"never (fixed root catalog)"
        for root in clients.roots:
            assert os.getxattr(root, "user.expires") == never
        # Where a root hash is all that is trusted, lazyfs reads no keys.
        keys = {(b"", "user.pubkeys")} if how == "CVMFS_ROOT_HASH" else set()
        assert clients.differences().keys() == keys


def test_both_clients_page_long_lists_of_chunks(tmp_path: Path) -> None:
    reference_client()
    sizes = ChunkSizes(minimum=1 << 10, average=2 << 10, maximum=4 << 10)
    tree = {"file": random.Random(2).randbytes(4_000_000)}
    with both_of(make_repository(tmp_path, tree, sizes=sizes)) as clients:
        names = ["user.chunk_list", *(f"user.chunk_list~{page}" for page in (*range(5), "?"))]
        paths = [os.fsencode(root / "file") for root in clients.roots]
        truth, shown = ({name: xattr(path, name) for name in names} for path in paths)
    assert shown == truth
    assert truth["user.chunk_list~1"] != truth["user.chunk_list~0"]
    assert truth["user.chunk_list~4"] == "ENODATA"


def test_what_differs_on_purpose(tmp_path: Path) -> None:
    reference_client()
    tree = {"file": File(xattrs={"user.a@b": b"value", "user.a~b": b"value"})}
    with both_of(make_repository(tmp_path, tree)) as clients:
        for name in ("user.a@b", "user.a~b"):
            answers = [xattr(os.fsencode(root / "file"), name) for root in clients.roots]
            assert answers == ["ENODATA", b"value"]
        assert [os.statvfs(root).f_namemax for root in clients.roots] == [0, 255]
        for root, times in zip(clients.roots, (2, 1), strict=True):
            assert os.listxattr(root).count("user.fqrn") == times


# --- what the server tools published -------------------------------------------------------


def of_reference(
    name: str, references: ReferenceRepositories, **more: str
) -> contextlib.AbstractContextManager[Clients]:
    reference_client()
    return _of_reference(name, references, more)


@contextlib.contextmanager
def _of_reference(
    name: str, references: ReferenceRepositories, more: Mapping[str, str]
) -> Iterator[Clients]:
    reference = references.get(name)
    references.external_data()
    with StaticServer(references.root) as server:
        external = {
            "CVMFS_EXTERNAL_URL": f"{server.url}/external-data",
            "CVMFS_EXTERNAL_HTTP_PROXY": "DIRECT",
            "CVMFS_EXTERNAL_TIMEOUT_DIRECT": "8",
        }
        url = f"{server.url}/{reference.fqrn}"
        with both(url, reference.fqrn, reference.key, external | dict(more)) as found:
            yield found


@pytest.mark.parametrize("name", NAMES)
def test_both_clients_show_the_same_of_reference_repositories(
    name: str, references: ReferenceRepositories
) -> None:
    with of_reference(name, references) as clients:
        clients.assert_alike()


@pytest.mark.parametrize("tag", TAGS)
def test_both_clients_show_the_same_at_tags(tag: str, references: ReferenceRepositories) -> None:
    with of_reference("history", references, CVMFS_REPOSITORY_TAG=tag) as clients:
        clients.assert_alike()


@pytest.mark.parametrize(
    "more",
    [
        {"CVMFS_CLAIM_OWNERSHIP": "yes"},
        {"CVMFS_WORLD_READABLE": "yes"},
        {"CVMFS_MAGIC_XATTRS_VISIBILITY": "always"},
        {"CVMFS_MAGIC_XATTRS_VISIBILITY": "never"},
        {"CVMFS_UID_MAP": "0 1234\n* 99\n", "CVMFS_GID_MAP": "# none\n0 4321\n"},
    ],
    ids=lambda more: "".join(f"{name}={value!r}" for name, value in more.items()),
)
def test_parameters_mean_the_same(
    more: dict[str, str], repository: PublishedRepository, tmp_path: Path
) -> None:
    for name, value in more.items():
        if name.endswith("_MAP"):
            file = tmp_path / name
            file.write_text(value)
            more = {**more, name: str(file)}
    with both_of(repository, **more) as clients:
        clients.assert_alike()
