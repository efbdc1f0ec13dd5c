"""Every command that publishes, through the command line."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from support.s3_server import ACCESS, NAMES, SECRET, S3Servers

from lazyfs.repository.repository import Repository

FQRN = "cli.example.org"
OLD_NS = 1_500_000_000_000_000_000


def lazyfs(
    folder: Path,
    *words: str,
    stdin: bytes | None = None,
    environ: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from lazyfs.cli.main import run; run()", "publish", *words]
    state = {"XDG_STATE_HOME": str(folder / "state"), **environ}
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        env={**os.environ, **state},
        input=stdin,
        check=False,
    )
    return subprocess.CompletedProcess(
        command, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def ok(
    folder: Path,
    *words: str,
    stdin: bytes | None = None,
    environ: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """What a command that must do well prints as JSON."""
    done = lazyfs(folder, *words, "--json", stdin=stdin, environ=environ)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def text(folder: Path, *words: str) -> str:
    """What it prints for people."""
    done = lazyfs(folder, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one revision, and the tree that it was made of."""
    folder = tmp_path_factory.mktemp("made")
    assert lazyfs(folder, "init", f"served/{FQRN}").returncode == 0
    tree = folder / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "file").write_bytes(b"content")
    (tree / "sub" / "other").write_bytes(b"other content")
    (tree / "sub" / ".cvmfscatalog").touch()
    for path in tree.rglob("*"):
        os.utime(path, ns=(OLD_NS, OLD_NS))
    assert lazyfs(folder, "sync", f"served/{FQRN}", "tree", "--tag", "v1").returncode == 0
    return folder


REPO = f"served/{FQRN}"


@pytest.fixture
def folder(tmp_path: Path, made: Path) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def names(folder: Path, path: str = "/") -> list[str]:
    """What is in a directory of the newest revision."""
    key = folder / "keys" / f"{FQRN}.pub"
    cache = folder / f"cache-{os.urandom(4).hex()}"
    with Repository.open(folder / REPO, pubkey=key, cache=cache) as repository:
        return sorted(node.name.decode() for node in repository.current.listdir(path.encode()))


def archive(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def test_init_makes_keys_and_says_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "info.json").write_text('{"organisation": "test"}')
    made = lazyfs(
        tmp_path,
        *("init", FQRN, "--hash", "shake128", "--ttl", "61", "--no-gc"),
        *("--meta-info", "info.json"),
    )
    assert made.returncode == 0, made.stderr
    assert f"give clients keys/{FQRN}.pub" in made.stdout
    key = tmp_path / "keys" / f"{FQRN}.pub"
    with Repository.open(tmp_path / FQRN, pubkey=key, cache=tmp_path / "cache") as repository:
        assert repository.current.ttl == 61
        assert repository.manifest is not None
        assert not repository.manifest.garbage_collectable
        assert str(repository.manifest.root_catalog).endswith("-shake128")
        assert repository.metainfo() == b'{"organisation": "test"}'


def test_sync_makes_a_subtree_equal(folder: Path) -> None:
    assert names(folder) == ["file", "sub"]
    assert ok(folder, "sync", REPO, "tree") == {"revision": 1, "changed": False}
    (folder / "tree" / "file").unlink()
    (folder / "tree" / "new").write_bytes(b"x" * 300_000)
    result = ok(folder, "sync", REPO, "tree", "--tag", "v2", "--chunks", "64,128,256")
    assert (result["revision"], result["files"], result["new_catalogs"]) == (2, 3, 1)
    assert names(folder) == ["new", "sub"]
    ok(folder, "sync", REPO, "tree/sub", "--at", "/deep/er", "--uncompressed")
    assert names(folder, "/deep/er") == [".cvmfscatalog", "other"]
    assert "nothing to publish after revision 3" in text(
        folder, "sync", REPO, "tree/sub", "--at", "/deep/er"
    )


def test_ingest_adds_archives_and_folders(folder: Path) -> None:
    (folder / "a.tar.gz").write_bytes(archive(one=b"1", two=b"2"))
    result = ok(folder, "ingest", REPO, "a.tar.gz", "tree/sub", "--at", "/app", "--owner", "7:8")
    assert result["revision"] == 2
    assert names(folder, "/app") == [".cvmfscatalog", "one", "other", "two"]
    piped = archive(three=b"3")
    ok(folder, "ingest", REPO, "-", "--at", "/app", "--replace", "--delete", "/file", stdin=piped)
    assert names(folder, "/app") == ["three"]
    assert names(folder) == ["app", "sub"]


def test_rm_removes(folder: Path) -> None:
    assert ok(folder, "rm", REPO, "/file", "/sub")["files"] == 0
    assert names(folder) == []
    done = lazyfs(folder, "rm", REPO, "/not/there")
    assert (done.returncode, "no such path" in done.stderr) == (70, True)


def test_a_transaction_collects_changes(folder: Path) -> None:
    assert ok(folder, "transaction", REPO) == {"open": True, "revision": 1}
    assert ok(folder, "info", REPO)["transaction"]
    ok(folder, "rm", REPO, "/file")
    ok(folder, "ingest", REPO, "-", "--at", "/app", stdin=archive(one=b"1"))
    assert "no such path" in lazyfs(folder, "rm", REPO, "/file").stderr
    assert names(folder) == ["file", "sub"]
    # Another user's state, or another machine: kept out.
    other = lazyfs(folder, "sync", REPO, "tree", environ={"XDG_STATE_HOME": str(folder / "other")})
    assert other.returncode == 70
    assert "another publisher is at work" in other.stderr
    result = ok(folder, "commit", REPO, "--tag", "v2")
    assert result["revision"] == 2
    assert names(folder) == ["app", "sub"]
    assert not ok(folder, "info", REPO)["transaction"]


def test_a_transaction_can_be_given_up(folder: Path) -> None:
    ok(folder, "transaction", REPO)
    ok(folder, "rm", REPO, "/file")
    done = lazyfs(folder, "transaction", REPO)
    assert (done.returncode, "open already" in done.stderr) == (70, True)
    ok(folder, "abort", REPO)
    assert names(folder) == ["file", "sub"]
    assert ok(folder, "rm", REPO, "/file")["revision"] == 2
    assert "no transaction is open" in lazyfs(folder, "commit", REPO).stderr
    assert "no transaction is open" in lazyfs(folder, "abort", REPO).stderr


def test_abort_can_take_the_right_to_publish_away(folder: Path) -> None:
    ok(folder, "transaction", REPO, environ={"XDG_STATE_HOME": str(folder / "lost")})
    assert "another publisher" in lazyfs(folder, "rm", REPO, "/file").stderr
    ok(folder, "abort", REPO, "--force")
    ok(folder, "rm", REPO, "/file")
    lost = lazyfs(folder, "commit", REPO, environ={"XDG_STATE_HOME": str(folder / "lost")})
    assert (lost.returncode, "the right to publish was lost" in lost.stderr) == (70, True)


def test_tags_are_added_listed_and_removed(folder: Path) -> None:
    ok(folder, "rm", REPO, "/file")
    assert (
        ok(folder, "tag", "add", REPO, "stable", "--revision", "v1", "-m", "good")["revision"] == 1
    )
    listed = {tag["name"]: tag for tag in ok(folder, "tag", "list", REPO)}
    assert listed.keys() == {"trunk", "trunk-previous", "v1", "stable"}
    assert listed["stable"]["description"] == "good"
    assert "stable" in text(folder, "tag", "list", REPO)
    ok(folder, "tag", "rm", REPO, "stable", "v1")
    assert {tag["name"] for tag in ok(folder, "tag", "list", REPO)} == {"trunk", "trunk-previous"}
    assert lazyfs(folder, "tag", "rm", REPO, "stable").returncode == 32


def test_diff_shows_what_differs(folder: Path) -> None:
    (folder / "tree" / "file").write_bytes(b"changed")
    (folder / "tree" / "new").write_bytes(b"new")
    shutil.rmtree(folder / "tree" / "sub")
    ok(folder, "sync", REPO, "tree", "--tag", "v2")
    changes = {change["path"]: change for change in ok(folder, "diff", REPO, "v1", "v2")}
    assert changes["/file"]["change"] == "modified"
    assert "content" in changes["/file"]["what"]
    assert changes["/new"]["change"] == "added"
    assert changes["/sub/other"]["change"] == "removed"
    shown = text(folder, "diff", REPO, "v1", "--path", "/sub").splitlines()
    assert "- /sub" in shown
    assert "- /sub/other" in shown


def test_rollback_goes_on_with_an_old_tree(folder: Path) -> None:
    ok(folder, "rm", REPO, "/file")
    result = ok(folder, "rollback", REPO, "v1", "--tag", "again")
    assert (result["revision"], result["restored"]["revision"]) == (3, 1)
    assert names(folder) == ["file", "sub"]
    assert "revision 4 is what revision 2 was" in text(folder, "rollback", REPO)
    assert names(folder) == ["sub"]


def test_gc_removes_what_is_not_needed(folder: Path) -> None:
    ok(folder, "rm", REPO, "/file")
    ok(folder, "tag", "rm", REPO, "v1")
    before = ok(folder, "du", REPO, "--stored")["total"]
    would = ok(folder, "gc", REPO, "--dry-run")
    assert would["removed_objects"] > 0
    assert ok(folder, "du", REPO, "--stored")["total"] == before
    done = ok(folder, "gc", REPO, "--keep", "1", "--keep-since", "2999-01-01")
    assert len(done["dropped"]) > 0
    assert ok(folder, "du", REPO, "--stored")["total"]["objects"] < before["objects"]
    assert ok(folder, "check", REPO, "--tags")["problems"] == []


def test_check_finds_and_repairs_damage(folder: Path) -> None:
    assert "0 problems" in text(folder, "check", REPO)
    key = folder / "keys" / f"{FQRN}.pub"
    with Repository.open(folder / REPO, pubkey=key, cache=folder / "cache") as repository:
        digest = repository.current.lookup(b"/file").digest
    assert digest is not None
    (folder / REPO / digest.object_path()).unlink()
    done = lazyfs(folder, "check", REPO, "--fast", "--json")
    assert done.returncode == 1
    assert [problem["path"] for problem in json.loads(done.stdout)["problems"]] == ["/file"]
    repaired = ok(folder, "check", REPO, "--repair", "tree")
    assert [mended["path"] for mended in repaired["mended"]] == ["/file"]
    assert ok(folder, "check", REPO)["problems"] == []


def test_du_counts(folder: Path) -> None:
    usage = {row["path"]: row for row in ok(folder, "du", REPO)}
    assert usage["/"] == {"path": "/", "entries": 5, "bytes": 20}
    assert usage["/sub"]["bytes"] == 13
    assert "in all" in text(folder, "du", REPO, "--stored")


def test_resign_renews_the_whitelist_and_the_certificate(folder: Path) -> None:
    before = (folder / REPO / ".cvmfswhitelist").read_bytes()
    ok(folder, "resign", REPO, "--days", "60")
    after = (folder / REPO / ".cvmfswhitelist").read_bytes()
    assert after.split(b"\n")[1] > before.split(b"\n")[1]
    old = (folder / "keys" / f"{FQRN}.crt").read_bytes()
    ok(folder, "resign", REPO, "--new-certificate")
    assert (folder / "keys" / f"{FQRN}.crt.old").read_bytes() == old
    assert names(folder) == ["file", "sub"]
    assert ok(folder, "rm", REPO, "/file")["revision"] == 2
    ok(folder, "resign", REPO)
    assert names(folder) == ["sub"]
    # Who still has the old keys is told before anything is uploaded.
    (folder / "keys" / f"{FQRN}.crt.old").replace(folder / "keys" / f"{FQRN}.crt")
    (folder / "keys" / f"{FQRN}.key.old").replace(folder / "keys" / f"{FQRN}.key")
    refused = lazyfs(folder, "rm", REPO, "/sub")
    assert refused.returncode == 70
    assert "does not list the certificate" in refused.stderr


def test_without_the_master_key_only_the_whitelist_waits(folder: Path) -> None:
    (folder / "keys" / f"{FQRN}.masterkey").unlink()
    assert ok(folder, "rm", REPO, "/file")["revision"] == 2
    done = lazyfs(folder, "resign", REPO)
    assert (done.returncode, "master key" in done.stderr) == (70, True)


def test_info_tells_what_the_repository_is_at(folder: Path) -> None:
    facts = ok(folder, "info", REPO)
    assert (facts["fqrn"], facts["revision"], facts["tags"]) == (FQRN, 1, 3)
    assert facts["publisher"] is None
    assert "whitelist expires" in text(folder, "info", REPO)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_commands_publish_to_object_stores(
    name: str, made: Path, tmp_path: Path, s3_servers: S3Servers
) -> None:
    server = s3_servers.get(name)
    bucket = server.new_bucket(public=True)
    place = f"s3+http://{server.endpoint}/{bucket}/{FQRN}"
    environ = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
    shutil.copytree(made / "keys", tmp_path / "keys")
    ok(tmp_path, "init", place, environ=environ)
    assert ok(tmp_path, "sync", place, str(made / "tree"), environ=environ)["revision"] == 1
    ok(tmp_path, "transaction", place, environ=environ)
    ok(tmp_path, "rm", place, "/file", environ=environ)
    assert ok(tmp_path, "commit", place, "--tag", "v2", environ=environ)["revision"] == 2
    assert ok(tmp_path, "check", place, environ=environ)["problems"] == []
    key = tmp_path / "keys" / f"{FQRN}.pub"
    url = f"{server.url}/{bucket}/{FQRN}"
    with Repository.open(url, pubkey=key, cache=tmp_path / "cache") as repository:
        assert [node.name for node in repository.current.listdir(b"")] == [b"sub"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("init", "new.example.org", "--hash", "md5"), 60, "unknown hash"),
        (("init", "served/no_name!"), 60, "not a repository name"),
        (("init", REPO), 70, "repository already"),
        (("keys", "../x", "keys"), 60, "not a repository name"),
        (("keys", FQRN, "keys"), 70, "exists already"),
        (("sync", f"nowhere/{FQRN}", "tree"), 70, "publish init"),
        (("resign", f"nowhere/{FQRN}"), 70, "publish init"),
        (("sync", REPO, "tree", "--chunks", "1,2"), 60, "not chunk sizes"),
        (("sync", REPO, "tree", "--chunks", "9,2,3"), 60, "cannot be used"),
        (("sync", REPO, "tree", "--keys", "nowhere"), 70, "publish keys"),
        (("sync", REPO, "tree", "--tag", "v1"), 70, "'v1' already"),
        (("sync", REPO, "tree", "--owner", "me"), 60, "not an owner"),
        (("ingest", REPO, "none.tar"), 60, "no such source"),
        (("ingest", REPO, "tree", "--at", "/file"), 70, "not a directory"),
        (("ingest", REPO, f"keys/{FQRN}.pub"), 70, "archive is incomplete"),
        (("rollback", REPO, "none"), 32, "no such tag"),
        (("diff", REPO, "v1", "none"), 32, "no such tag"),
        (("du", REPO, "/none"), 31, "no such file"),
        (("du", REPO, "/sub", "--stored"), 60, "whole repository"),
        (("sync", "ftp://host/x", "tree"), 60, "cannot publish to ftp"),
    ],
)
def test_mistakes_end_in_one_line_and_a_code(
    folder: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    before = (folder / REPO / ".cvmfspublished").read_bytes()
    done = lazyfs(folder, *words)
    assert message in done.stderr
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (folder / REPO / ".cvmfspublished").read_bytes() == before
