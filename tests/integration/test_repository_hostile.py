from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.catalogs import CatalogBuilder
from support.hostile import (
    BAD_FILES,
    BAD_FOLDERS,
    GOOD,
    HostileRepository,
    make_hostile_repository,
)

from lazyfs.cas.fsck import fsck
from lazyfs.errors import FormatError, LazyfsError, VerificationError
from lazyfs.repository.repository import Repository


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> HostileRepository:
    return make_hostile_repository(tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def repository(hostile: HostileRepository, tmp_path: Path) -> Iterator[Repository]:
    cache = tmp_path / "cache"
    with Repository.open(hostile.root, pubkey=hostile.pubkey, cache=cache) as repository:
        yield repository
        with repository.current.open_file("/good") as file:
            assert file.read() == GOOD
        assert fsck(repository.cache).problems == ()
        assert repository.cache.usage().temporary == 0
        assert repository.cache.layout.temporary_files() == []


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_cannot_be_is_a_typed_error_with_names(
    name: str, repository: Repository
) -> None:
    with pytest.raises(BAD_FILES[name]) as caught, repository.current.open_file(f"/{name}") as file:
        file.read()
    assert caught.value.object, caught.value
    assert_server_named(caught.value, repository)


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_a_folder_that_cannot_be_is_a_typed_error_with_names(
    name: str, repository: Repository
) -> None:
    with pytest.raises(BAD_FOLDERS[name]) as caught:
        repository.current.listdir(f"/{name}".encode())
    assert caught.value.object, caught.value
    assert caught.value.path
    assert_server_named(caught.value, repository)


def assert_server_named(error: LazyfsError, repository: Repository) -> None:
    """Where bytes of a server are at fault; a row that cannot be was signed by the publisher."""
    if isinstance(error, VerificationError) or "data/" in (error.object or ""):
        assert (error.url or "").startswith(repository.downloader.status().host)


def no_root(builder: CatalogBuilder) -> None:
    builder.rows.clear()


def file_as_root(builder: CatalogBuilder) -> None:
    builder.rows.clear()
    builder.file(b"")


def link_as_root(builder: CatalogBuilder) -> None:
    builder.rows.clear()
    builder.link(b"", b"/etc")


@pytest.mark.parametrize("spoil", [no_root, file_as_root, link_as_root])
def test_a_repository_whose_root_is_no_folder_is_refused(
    spoil: Callable[[CatalogBuilder], None], tmp_path: Path
) -> None:
    builder = CatalogBuilder()
    spoil(builder)
    hostile = make_hostile_repository(tmp_path, builder)
    with pytest.raises(FormatError) as caught:
        Repository.open(hostile.root, pubkey=hostile.pubkey, cache=tmp_path / "cache")
    assert "catalog" in (caught.value.object or "")
