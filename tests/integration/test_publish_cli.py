from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lazyfs.repository.repository import Repository

FQRN = "cli.example.org"


def lazyfs(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from lazyfs.cli.main import run; run()", "publish", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    assert lazyfs(folder, "keys", FQRN, "keys").returncode == 0
    return folder / "keys"


@pytest.fixture
def folder(tmp_path: Path, keys: Path) -> Path:
    shutil.copytree(keys, tmp_path / "keys")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"x" * 300_000)
    return tmp_path


def test_from_keys_to_a_tagged_revision(folder: Path) -> None:
    made = lazyfs(folder, "init", FQRN, "repo", "--hash", "shake128", "--ttl", "61", "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["revision"] == 0
    published = lazyfs(
        folder, "dir", FQRN, "repo", "tree", "--tag", "v1", "--chunks", "64,128,256", "--json"
    )
    assert published.returncode == 0, published.stderr
    result = json.loads(published.stdout)
    assert (result["revision"], result["files"], result["file_bytes"]) == (1, 1, 300_000)
    assert result["root_hash"].endswith("-shake128")
    key = folder / "keys" / f"{FQRN}.pub"
    with Repository.open(folder / "repo", pubkey=key, cache=folder / "cache") as repository:
        assert repository.current.ttl == 61
        assert repository.current.lookup(b"/file").chunked
        assert "v1" in {tag.name for tag in repository.tags()}


def test_resign_renews_the_whitelist(folder: Path) -> None:
    assert lazyfs(folder, "init", FQRN, "repo").returncode == 0
    before = (folder / "repo" / ".cvmfswhitelist").read_bytes()
    assert lazyfs(folder, "resign", FQRN, "repo", "--days", "60").returncode == 0
    after = (folder / "repo" / ".cvmfswhitelist").read_bytes()
    assert after.split(b"\n")[1] > before.split(b"\n")[1]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("init", FQRN, "repo", "--hash", "md5"), 60, "unknown hash"),
        (("keys", "../x", "keys"), 60, "not a repository name"),
        (("keys", FQRN, "keys"), 70, "exists already"),
        (("dir", FQRN, "repo", "tree"), 70, "publish init"),
        (("resign", FQRN, "repo"), 70, "publish init"),
        (("dir", FQRN, "repo", "tree", "--chunks", "1,2"), 60, "not chunk sizes"),
        (("dir", FQRN, "repo", "tree", "--chunks", "9,2,3"), 60, "cannot be used"),
        (("init", FQRN, "repo", "--keys", "nowhere"), 70, "publish keys"),
    ],
)
def test_mistakes_end_in_one_line_and_a_code(
    folder: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    done = lazyfs(folder, *words)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "repo").exists()
