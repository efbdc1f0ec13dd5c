"""What lazyfs publishes, as the CernVM-FS server's own checker judges it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from support.publishing import File, HardLink, Item, PublishedRepository
from support.reference_client import check_repository
from support.varied import BIG, TREE, lay_out, varied_repository

from lazyfs.cas.digest import Algorithm
from lazyfs.net.static_server import StaticServer


def without(tree: Mapping[str, Item], *prefixes: str) -> dict[str, Item]:
    """``tree`` but for what begins with one of these."""
    return {name: item for name, item in tree.items() if not name.startswith(prefixes)}


STEPS: dict[str, Mapping[str, Item]] = {
    "an outer catalog goes, the inner one stays": without(TREE, "sub/.cvmfscatalog"),
    "catalogs come where there was none, and as the only content of a directory": {
        **without(TREE, "sub/deeper"),
        "raw/.cvmfscatalog": b"",
        "sub/plain/.cvmfscatalog": b"",
        "lonely/.cvmfscatalog": b"",
        "a/b/c/d/.cvmfscatalog": b"",
    },
    "content, kinds and links change": {
        **without(TREE, "file", "chunked", "twin", "sub/", "raw/"),
        "file/is/a/directory": b"now",
        "chunked": b"small now",
        "empty": BIG,
        "noted": File(b"", xattrs={"user.c": b"3"}),
        "sub": b"a file now",
        "raw/chunked": BIG[1:500_000],
        "twin1": b"other",
        "twin2": HardLink("twin1"),
        "twin3": HardLink("twin1"),
    },
    "nothing is left": {},
    "all is back": TREE,
}
"""Revisions one after the other, each a whole tree."""


@pytest.fixture(params=[Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128], ids=str)
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> PublishedRepository:
    if os.geteuid() != 0:
        pytest.skip("making devices needs root")
    return varied_repository(tmp_path, request.param)


@pytest.fixture
def check(repository: PublishedRepository, tmp_path: Path) -> Callable[..., str]:
    """Checks the repository in its folder, with more options."""
    temporary = tmp_path / "check"
    temporary.mkdir()
    return lambda *options: check_repository(str(repository.root), temporary, *options)


def test_the_reference_checker_finds_nothing_wrong_at_any_revision(
    repository: PublishedRepository, check: Callable[..., str], tmp_path: Path
) -> None:
    assert check() == ""
    for number, (step, tree) in enumerate(STEPS.items()):
        tag = f"step-{number}"
        repository.publish(lay_out(tmp_path / "varied", tree), tag=tag)
        assert check() == "", step
        assert check("-n", tag) == "", step
    # What came later has left the first revision as it was.
    assert check("-n", "first") == ""
    assert check("-s", "/sub/deeper") == ""


def test_the_reference_checker_believes_signatures_and_downloads(
    repository: PublishedRepository, tmp_path: Path
) -> None:
    with StaticServer(repository.served) as server:
        url = f"{server.url}/{repository.fqrn}"
        options = ("-k", repository.pubkey, "-N", repository.fqrn)
        assert check_repository(url, tmp_path, *options) == ""


def test_the_reference_checker_sees_damage(
    repository: PublishedRepository, check: Callable[..., str]
) -> None:
    largest = max((repository.root / "data").rglob("*"), key=lambda path: path.stat().st_size)
    largest.unlink()
    assert "missing" in check()
