from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest
from support.commands import Done, invoke, invoke_ok, run_as_nobody
from support.publishing import File, Folder, HardLink, PublishedRepository, Symlink, make_repository

from lazyfs.errors import (
    AllMirrorsFailed,
    CodecError,
    ConfigError,
    HashMismatch,
    IsADirectory,
    PathError,
    PathNotFound,
    RevisionNotFound,
    SignatureError,
    VerificationError,
    WriteError,
)

MOMENT = 1_600_000_000_123_456_789


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    made = make_repository(tmp_path_factory.mktemp("cli"), {"old": b"first"}, tag="v1")
    made.publish(
        {
            "hello": File(b"hello\n", mtime_ns=MOMENT),
            ".dot": b"",
            "dir/.cvmfscatalog": b"",
            "dir/tool": File(b"#!/bin/sh\n", mode=0o755, xattrs={"user.note": b"\xff1"}),
            "dir/big": os.urandom(300_000),
            "dir/twin": b"same",
            "dir/twin2": HardLink("dir/twin"),
            "dir/empty": Folder(0o700),
            "link": Symlink("dir/tool"),
            "dir/odd-link": Symlink("caf\udce9"),
            "caf\udce9": b"odd name",
        },
        tag="v2",
    )
    return made


@pytest.fixture
def lazyfs(repository: PublishedRepository, tmp_path: Path) -> Lazyfs:
    return Lazyfs(repository, tmp_path / "cache")


class Lazyfs:
    """Reading commands on the repository."""

    def __init__(self, repository: PublishedRepository, cache: Path) -> None:
        self.repo = str(repository.root)
        self.options = ["--pubkey", str(repository.pubkey), "--cache", str(cache)]

    def __call__(self, command: str, *arguments: str) -> Done:
        return invoke(command, self.repo, *arguments, *self.options)

    def ok(self, command: str, *arguments: str) -> Done:
        return invoke_ok(command, self.repo, *arguments, *self.options)


def test_ls_shows_names_in_byte_order_without_dots(lazyfs: Lazyfs) -> None:
    assert lazyfs.ok("ls").out.split(b"\n") == [b"caf\xe9", b"dir", b"hello", b"link", b""]
    assert b".dot" in lazyfs.ok("ls", "-a").out
    assert lazyfs.ok("ls", "/link").text == "tool\n"


def test_ls_long_looks_like_ls(lazyfs: Lazyfs) -> None:
    lines = lazyfs.ok("ls", "-l", "/dir").out.decode(errors="replace").splitlines()
    tool = next(line for line in lines if line.endswith(" tool"))
    assert tool.startswith("-rwxr-xr-x   1 ")
    assert " 10 " in tool
    assert lazyfs.ok("ls", "-l").out.rstrip().endswith(b"link -> dir/tool")


def test_ls_recursive_goes_through_nested_catalogs(lazyfs: Lazyfs) -> None:
    names = lazyfs.ok("ls", "-R").out.split(b"\n")
    assert names[0] == b"/"
    assert b"/dir/twin2" in names
    assert names.index(b"/dir") < names.index(b"/dir/big")


def test_ls_json_tells_all_there_is(lazyfs: Lazyfs) -> None:
    facts = {entry["path"]: entry for entry in json.loads(lazyfs.ok("ls", "--json").out)}
    assert facts["/hello"]["mtime_ns"] == MOMENT
    assert facts["/hello"]["type"] == "file"
    assert facts["/hello"]["mode"] == "0644"
    assert len(facts["/hello"]["hash"]) == 40
    assert facts["/dir"]["type"] == "directory"
    (odd,) = (entry for entry in facts.values() if "path_hex" in entry)
    assert bytes.fromhex(odd["path_hex"]) == b"/caf\xe9"


def test_cat_writes_bytes_of_all_files(lazyfs: Lazyfs, repository: PublishedRepository) -> None:
    big = (repository.source / "dir/big").read_bytes()
    assert lazyfs.ok("cat", "/dir/big", "/hello").out == big + b"hello\n"
    assert lazyfs.ok("cat", "link").out == b"#!/bin/sh\n"
    assert lazyfs.ok("cat", "/caf\udce9").out == b"odd name"


def test_stat_does_not_follow_links(lazyfs: Lazyfs) -> None:
    link, twin = json.loads(lazyfs.ok("stat", "/link", "/dir/twin", "--json").out)
    assert (link["type"], link["target"]) == ("symlink", "dir/tool")
    assert twin["nlink"] == 2
    assert "     nlink: 2" in lazyfs.ok("stat", "/dir/twin").text


def test_stat_shows_extended_attributes_as_hex(lazyfs: Lazyfs) -> None:
    (tool,) = json.loads(lazyfs.ok("stat", "/dir/tool", "--xattrs", "--json").out)
    assert tool["xattrs"] == {"user.note": "ff31"}
    assert (
        "       xattr: user.note = b'\\xff1'\n" in lazyfs.ok("stat", "/dir/tool", "--xattrs").text
    )


def test_stat_shows_bytes_that_are_no_text_as_they_are(lazyfs: Lazyfs) -> None:
    name = b"/caf\xe9"
    assert lazyfs.ok("stat", os.fsdecode(name)).out.startswith(b"        path: " + name + b"\n")
    link = lazyfs.ok("stat", "/dir/odd-link")
    assert b"      target: " + name[1:] + b"\n" in link.out
    (facts,) = json.loads(lazyfs.ok("stat", "/dir/odd-link", "--json").out)
    assert facts["target_hex"] == name[1:].hex()


def test_stat_shows_a_readable_time(lazyfs: Lazyfs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    expected = f"       mtime: 2020-09-13 12:26:40.123456789 ({MOMENT} ns)\n"
    assert expected in lazyfs.ok("stat", "/hello").text


def test_cp_copies_one_file_under_its_name_or_another(lazyfs: Lazyfs, tmp_path: Path) -> None:
    lazyfs.ok("cp", "/hello", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == b"hello\n"
    assert (tmp_path / "copy").stat().st_mtime_ns == MOMENT
    lazyfs.ok("cp", "/hello", str(tmp_path))
    assert (tmp_path / "hello").read_bytes() == b"hello\n"


def picture(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything that a copy must keep, by path."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        target = os.readlink(path) if path.is_symlink() else ""  # noqa: PTH115
        attributes = {n: os.getxattr(path, n) for n in os.listxattr(path, follow_symlinks=False)}
        links = status.st_nlink if kind == stat.S_IFREG else 0
        found[os.fsdecode(os.fsencode(path.relative_to(root)))] = (
            status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns,
            links, content, target, attributes,
        )  # fmt: skip
    return found


def test_cp_of_the_whole_tree_equals_what_was_published(
    lazyfs: Lazyfs, repository: PublishedRepository, tmp_path: Path
) -> None:
    lazyfs.ok("cp", "-r", "/", str(tmp_path / "copy"))
    assert picture(tmp_path / "copy") == picture(repository.source)


def test_cp_goes_on_where_it_was(
    lazyfs: Lazyfs, repository: PublishedRepository, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    lazyfs.ok("cp", "-r", "/", str(copy))
    again = lazyfs("cp", "-r", "/", str(copy))
    assert again.code == PathError.exit_code
    assert f"exists already (path {copy}/" in again.err
    assert f"--resume to go on with a copy at {copy}\n" in again.err
    kept = (copy / "hello").stat()
    for name, damage in (
        ("dir/big", b"half"),
        ("dir/tool", b"#!/bin/xx\n"),
        ("dir/twin2", b"same"),
    ):
        (copy / name).unlink()
        (copy / name).write_bytes(damage)
    (copy / "link").unlink()
    (copy / "link").symlink_to("elsewhere")
    (copy / "dir").chmod(0o500)
    lazyfs.ok("cp", "-r", "--resume", "/", str(copy))
    assert picture(copy) == picture(repository.source)
    assert os.path.samestat((copy / "hello").stat(), kept)


def test_cp_resumes_at_the_copy_not_below_it(lazyfs: Lazyfs, tmp_path: Path) -> None:
    for _ in range(2):
        lazyfs.ok("cp", "-r", "--resume", "/dir", str(tmp_path / "copy"))
    assert not (tmp_path / "copy" / "dir").exists()
    lazyfs.ok("cp", "-r", "/dir", str(tmp_path / "copy"))
    assert (tmp_path / "copy" / "dir" / "tool").exists()


def test_cp_never_replaces_a_directory(lazyfs: Lazyfs, tmp_path: Path) -> None:
    (tmp_path / "copy" / "tool").mkdir(parents=True)
    done = lazyfs("cp", "-r", "--resume", "/dir", str(tmp_path / "copy"))
    assert done.code == WriteError.exit_code
    assert (tmp_path / "copy" / "tool").is_dir()


def test_cp_leaves_directories_alone_that_it_did_not_make(lazyfs: Lazyfs, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir(0o711)
    lazyfs.ok("cp", "-r", "/", str(copy))
    assert stat.S_IMODE(copy.stat().st_mode) == 0o711


def test_cp_goes_on_past_damage_and_leaves_no_halves(tmp_path: Path) -> None:
    tree = {"a": b"a", "bad": os.urandom(3_000_000), "gone": b"gone", "z": b"z"}
    made = make_repository(tmp_path, tree)
    lazyfs = Lazyfs(made, tmp_path / "cache")
    bad, gone = json.loads(lazyfs.ok("stat", "/bad", "/gone", "--json").out)
    damage(made.root / "data" / bad["hash"][:2] / bad["hash"][2:])
    (made.root / "data" / gone["hash"][:2] / gone["hash"][2:]).unlink()
    done = lazyfs("cp", "-r", "/", str(tmp_path / "copy"))
    assert done.code in (CodecError.exit_code, HashMismatch.exit_code)
    assert [line.split(":")[1] for line in done.err.splitlines() if line.startswith("lazyfs:")] == [
        *(" /bad", " /gone"),
    ]
    assert sorted(os.listdir(tmp_path / "copy")) == ["a", "z"]  # noqa: PTH208
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o755


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def test_cp_makes_holes_of_zeros(tmp_path: Path) -> None:
    content = b"a" * (1 << 20) + bytes(8 << 20) + b"b" + bytes(3 << 20)
    lazyfs = Lazyfs(make_repository(tmp_path, {"sparse": content}), tmp_path / "cache")
    lazyfs.ok("cp", "/sparse", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == content
    assert (tmp_path / "copy").stat().st_blocks * 512 < 5 << 20


def test_cp_tells_where_it_cannot_write(lazyfs: Lazyfs, tmp_path: Path) -> None:
    done = lazyfs("cp", "/hello", str(tmp_path / "missing" / "copy"))
    assert done.code == WriteError.exit_code
    assert done.err == (
        f"lazyfs: cannot write: No such file or directory (path {tmp_path}/missing/copy)\n"
    )


def test_cp_without_privileges(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to publish a device")
    source = tmp_path / "source"
    source.mkdir()
    os.mknod(source / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mkfifo(source / "fifo")
    (source / "suid").write_bytes(b"")
    (source / "suid").chmod(0o6755)
    made = make_repository(tmp_path, source)
    tmp_path.chmod(0o777)
    options = ["--pubkey", str(made.pubkey), "--cache", str(tmp_path / "cache")]
    words = ["cp", "-r", str(made.root), "/", str(tmp_path / "copy"), *options]
    done = run_as_nobody(*words, reach=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "lazyfs: /null: a device, which only root can make; left out\n"
    assert sorted(os.listdir(tmp_path / "copy")) == ["fifo", "suid"]  # noqa: PTH208
    assert stat.S_IMODE((tmp_path / "copy" / "suid").stat().st_mode) == 0o755


def test_find_with_every_condition(lazyfs: Lazyfs) -> None:
    assert lazyfs.ok("find", "/dir", "--name", "t*").text == "/dir/tool\n/dir/twin\n/dir/twin2\n"
    assert lazyfs.ok("find", "--type", "l").text == "/dir/odd-link\n/link\n"
    assert lazyfs.ok("find", "--size", "+100k").text == "/dir/big\n"
    assert lazyfs.ok("find", "--size", "-7", "--type", "f", "--name", "hello").text == "/hello\n"
    found = lazyfs.ok("find", "--newer", "2020-10-01", "--type", "f").out
    assert b"/hello" not in found
    assert b"/dir/tool" in found
    assert lazyfs.ok("find", "/link", "-0").out == b"/link\0"
    (odd,) = (
        json.loads(line)
        for line in lazyfs.ok("find", "--name", "caf*", "--json").text.split("\n")
        if line
    )
    assert odd["path_hex"] == b"/caf\xe9".hex()


@pytest.mark.parametrize(
    "options",
    [("--type", "x"), ("--size", "many"), ("--newer", "yesterday")],
)
def test_find_refuses_conditions_it_does_not_know(lazyfs: Lazyfs, options: tuple[str, ...]) -> None:
    done = lazyfs("find", *options)
    assert done.code == ConfigError.exit_code
    assert options[1] in done.err


def test_info_and_tags(lazyfs: Lazyfs, repository: PublishedRepository) -> None:
    facts = json.loads(lazyfs.ok("info", "--json").out)
    assert facts["fqrn"] == repository.fqrn
    assert facts["revision"] == 2
    assert facts["root_hash"] == str(repository.result.root_hash)
    assert facts["counters"]["regular"] == 8
    assert "revision: 2" in lazyfs.ok("info").text
    names = [tag["name"] for tag in json.loads(lazyfs.ok("tags", "--json").out)]
    assert {"v1", "v2"} <= set(names)
    assert lazyfs.ok("tags").text.splitlines()[names.index("v1")].startswith("v1 ")


def test_older_revisions(lazyfs: Lazyfs) -> None:
    assert lazyfs.ok("ls", "--tag", "v1").text == "old\n"
    tags = {t["name"]: t for t in json.loads(lazyfs.ok("tags", "--json").out)}
    assert lazyfs.ok("cat", "/old", "--root-hash", tags["v1"]["root_hash"]).out == b"first"
    assert lazyfs("ls", "--tag", "v9").code == RevisionNotFound.exit_code
    assert lazyfs("ls", "--tag", "v1", "--date", "2020-01-01").code == ConfigError.exit_code


def test_check_of_a_good_repository(lazyfs: Lazyfs) -> None:
    report = json.loads(lazyfs.ok("check", "--json").out)
    assert report["problems"] == []
    assert report["catalogs"] == 2
    assert " 0 problems" in lazyfs.ok("check", "/dir", "--no-content").text


def test_check_of_a_damaged_repository_names_the_file(tmp_path: Path) -> None:
    damaged = make_repository(tmp_path, {"good": b"good", "bad": b"bad"})
    lazyfs = Lazyfs(damaged, tmp_path / "cache")
    (bad,) = json.loads(lazyfs.ok("stat", "/bad", "--json").out)
    digest = bad["hash"]
    (damaged.root / "data" / digest[:2] / digest[2:]).write_bytes(b"x")
    done = lazyfs("check")
    assert done.code == VerificationError.exit_code
    assert done.text.startswith("/bad: ")
    problems = json.loads(lazyfs("check", "--json").out)["problems"]
    assert [problem["path"] for problem in problems] == ["/bad"]


def test_check_goes_on_where_it_was(lazyfs: Lazyfs, tmp_path: Path) -> None:
    journal = str(tmp_path / "journal")
    first = lazyfs.ok("check", "--journal", journal, "--json")
    again = lazyfs.ok("check", "--journal", journal, "--json")
    assert json.loads(again.out)["problems"] == []
    assert json.loads(again.out)["bytes"] <= json.loads(first.out)["bytes"]


ERRORS = {
    ("cat", "/nothing"): PathNotFound,
    ("cat", "/dir"): IsADirectory,
    ("ls", "/nothing/at/all"): PathNotFound,
    ("stat", "/nothing"): PathNotFound,
    ("find", "/nothing"): PathNotFound,
    ("check", "/nothing"): PathNotFound,
    ("ls", "--set", "nonsense"): ConfigError,
    ("ls", "--set", "CVMFS_TIMEOUT=soon"): ConfigError,
    ("ls", "--pubkey", "/no/such/key"): ConfigError,
}


@pytest.mark.parametrize("words", ERRORS, ids=" ".join)
def test_errors_are_one_line_with_a_code(lazyfs: Lazyfs, words: tuple[str, ...]) -> None:
    done = lazyfs(*words)
    assert done.code == ERRORS[words].exit_code
    assert done.err.startswith("lazyfs: ")
    assert done.err.count("\n") == 1
    assert done.out == b""


def test_a_copy_of_a_folder_needs_r(lazyfs: Lazyfs, tmp_path: Path) -> None:
    done = lazyfs("cp", "/dir", str(tmp_path / "copy"))
    assert done.code == IsADirectory.exit_code
    assert "-r" in done.err


def test_another_key_is_refused(lazyfs: Lazyfs, tmp_path: Path) -> None:
    other = make_repository(tmp_path / "other", {}, "other.example.org")
    done = invoke("ls", lazyfs.repo, "--pubkey", str(other.pubkey), "--cache", str(tmp_path / "c"))
    assert done.code == SignatureError.exit_code


def test_a_dead_server_is_named(tmp_path: Path, lazyfs: Lazyfs) -> None:
    url = "http://127.0.0.1:9/test.example.org"
    done = invoke("ls", url, *lazyfs.options, "--set", "CVMFS_MAX_RETRIES=0")
    assert done.code == AllMirrorsFailed.exit_code
    assert "127.0.0.1:9" in done.err
