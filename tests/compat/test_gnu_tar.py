"""What GNU tar writes, compared with the folder that it was told to archive."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from hypothesis import HealthCheck, given, settings
from support.trees import (
    IS_ROOT,
    Entry,
    Tree,
    link_groups,
    read_source,
    resolved,
    trees,
    write_folder,
)

from lazyfs.errors import PublishError
from lazyfs.publish.tar_source import TarSource


def has_gnu_tar() -> bool:
    tar = shutil.which("tar")
    if tar is None:
        return False
    return "GNU tar" in subprocess.run([tar, "--version"], capture_output=True, text=True).stdout


ENVIRONMENT = {**os.environ, "LC_ALL": "C"}
pytestmark = pytest.mark.skipif(not has_gnu_tar(), reason="no GNU tar on the PATH")


def owned(entry: Entry) -> Entry:
    return entry if IS_ROOT else replace(entry, uid=os.geteuid(), gid=os.getegid())


def regular(content: bytes = b"", mode: int = 0o644, **fields: object) -> Entry:
    return owned(Entry(stat.S_IFREG | mode, content, mtime_ns=1_500_000_000_250_000_001, **fields))  # type: ignore[arg-type]


def directory(mode: int = 0o755, **fields: object) -> Entry:
    return owned(Entry(stat.S_IFDIR | mode, mtime_ns=1_250_000_000, **fields))  # type: ignore[arg-type]


PLAIN: Tree = {
    b"": directory(),
    b"/d": directory(0o1777),
    b"/d/empty": directory(0o700),
    b"/d/f": regular(b"content", 0o755),
    b"/d/g": Entry(link=b"/d/f"),
    b"/h": Entry(link=b"/d/f"),
    b"/d/l": replace(regular(), mode=stat.S_IFLNK | 0o777, content=b"../d/f"),
    b"/m": Entry(link=b"/d/l"),
    b"/fifo": replace(regular(), mode=stat.S_IFIFO | 0o600),
    b"/n\xff\xfe": regular(b"x" * 1000, 0o400),
    b"/-rf *": regular(),
}
"""What every format can hold but the oldest."""

RICH: Tree = {
    **PLAIN,
    b"/" + b"n" * 200: directory(),
    b"/" + b"n" * 200 + b"/" + b"m" * 200: regular(b"long"),
    b"/old": replace(regular(), mtime_ns=-1_750_000_000),
    b"/long": replace(regular(), mode=stat.S_IFLNK | 0o777, content=b"t" * 300),
    b"/set": regular(b"#!", 0o6755, uid=3_000_000, gid=70_000),
}
OLDEST = {path: entry for path, entry in PLAIN.items() if path != b"/fifo"}
if IS_ROOT:
    PLAIN |= {
        b"/null": replace(regular(), mode=stat.S_IFCHR | 0o666, rdev=os.makedev(1, 3)),
        b"/disk": replace(regular(), mode=stat.S_IFBLK | 0o660, rdev=os.makedev(300, 70_000)),
    }
    RICH |= PLAIN


def archive(folder: Path, *options: str, members: tuple[str, ...] = (".",)) -> Tree:
    """What is read from GNU tar through a pipe."""
    command = ["tar", "-C", os.fspath(folder), *options, "-cf", "-", *members]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT) as tar:
        assert tar.stdout is not None
        tree = read_source(TarSource(cast("BinaryIO", tar.stdout), name="tar"))
    assert tar.returncode == 0
    return tree


def assert_same(found: Tree, tree: Tree, *, fractions: bool = True) -> None:
    """Equal, whichever name of a linked file the archive has first."""
    if not fractions:
        tree = {p: replace(e, mtime_ns=e.mtime_ns // 10**9 * 10**9) for p, e in tree.items()}
    assert resolved(found) == resolved(tree)
    assert link_groups(found) == link_groups(tree)


@pytest.mark.parametrize(
    ("format", "tree"),
    [("gnu", RICH), ("oldgnu", RICH), ("pax", RICH), ("ustar", PLAIN), ("v7", OLDEST)],
    ids=["gnu", "oldgnu", "pax", "ustar", "v7"],
)
def test_formats(tmp_path: Path, format: str, tree: Tree) -> None:
    write_folder(tree, tmp_path)
    assert_same(archive(tmp_path, f"--format={format}"), tree, fractions=format == "pax")


@pytest.mark.parametrize(
    ("option", "program"),
    [
        ("--gzip", "gzip"),
        ("--bzip2", "bzip2"),
        ("--xz", "xz"),
        ("--zstd", "zstd"),
        ("--use-compress-program=zstd -19 --no-check", "zstd"),
        ("--use-compress-program=xz -9e --block-size=4096", "xz"),
    ],
)
def test_compressors(tmp_path: Path, option: str, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on the PATH")
    write_folder(RICH, tmp_path)
    assert_same(archive(tmp_path, "--format=pax", option), RICH)


def test_extended_attributes(tmp_path: Path) -> None:
    attributes = {b"user.a": b"\0\n=\xff", b"user.b=c%d": b"", b"user.\xc3\xbc": b"v" * 255}
    tree: Tree = {
        b"": directory(xattrs={b"user.top": b"1"}),
        b"/f": regular(b"x", xattrs=attributes),
        b"/g": Entry(link=b"/f"),
    }
    write_folder(tree, tmp_path)
    assert_same(archive(tmp_path, "--xattrs", "--xattrs-include=*"), tree)


@pytest.mark.skipif(not IS_ROOT, reason="only root can give capabilities to files")
def test_capabilities(tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200000000000000000000000000000000")
    tree: Tree = {
        b"": directory(),
        b"/f": regular(b"x", xattrs={b"security.capability": capability}),
    }
    write_folder(tree, tmp_path)
    os.setxattr(tmp_path / "f", "trusted.mine", b"1")
    os.utime(tmp_path / "f", ns=(0, tree[b"/f"].mtime_ns))
    assert_same(archive(tmp_path, "--xattrs", "--xattrs-include=*"), tree)


@pytest.mark.parametrize(
    "options",
    [
        ("--format=gnu",),
        ("--format=oldgnu",),
        ("--format=pax", "--sparse-version=0.0"),
        ("--format=pax", "--sparse-version=0.1"),
        ("--format=pax", "--sparse-version=1.0"),
    ],
    ids=["gnu", "oldgnu", "0.0", "0.1", "1.0"],
)
def test_sparse_files(tmp_path: Path, options: tuple[str, ...]) -> None:
    step = 1 << 16
    contents = {
        "many": {n * 2 * step: b"x" * 5000 for n in range(120)},
        "begins": {0: b"data"},
        "hole": {},
        "n" * 120: {4 * step: b"end"},
    }
    for name, pieces in contents.items():
        with (tmp_path / name).open("wb") as file:
            file.truncate(250 * step if name != "n" * 120 else 4 * step + 3)
            for offset, piece in pieces.items():
                file.seek(offset)
                file.write(piece)
    used = sum((tmp_path / name).stat().st_blocks for name in contents) * 512
    command = ["tar", "-C", os.fspath(tmp_path), "--sparse", *options, "-cf", "-", *contents]
    data = subprocess.run(command, capture_output=True, check=True, env=ENVIRONMENT).stdout
    assert len(data) < used + (1 << 20), "tar stored the holes"
    tree = read_source(TarSource(io.BytesIO(data)))
    found = {path[1:].decode(): entry.content for path, entry in tree.items()}
    assert found == {name: (tmp_path / name).read_bytes() for name in contents}


def test_a_file_that_is_named_twice(tmp_path: Path) -> None:
    write_folder(PLAIN, tmp_path)
    tree = archive(tmp_path, members=("d", "d", "./h", "h"))
    assert resolved(tree).keys() == {b"/d", b"/d/empty", b"/d/f", b"/d/g", b"/d/l", b"/h"}
    assert resolved(tree)[b"/h"].content == b"content"


def test_absolute_names(tmp_path: Path) -> None:
    write_folder(PLAIN, tmp_path)
    tree = archive(tmp_path, "-P", members=(f"{tmp_path}/d/f",))
    assert list(tree) == [os.fsencode(tmp_path) + b"/d/f"]


def test_an_archive_that_grew(tmp_path: Path) -> None:
    folder, path = tmp_path / "tree", tmp_path / "x.tar"
    folder.mkdir()
    (folder / "f").write_bytes(b"old")
    for action in ("-c", "-r"):
        subprocess.run(["tar", "-C", folder, action, "-f", path, "f"], check=True, env=ENVIRONMENT)
        (folder / "f").write_bytes(b"new")
    assert [item.path for item in TarSource(path).items()] == [b"/f", b"/f"]
    assert read_source(TarSource(path))[b"/f"].content == b"new"


def test_labels_and_incremental_archives(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    write_folder(PLAIN, folder)
    snapshot = f"--listed-incremental={tmp_path}/snapshot"
    for format in ("gnu", "pax"):
        found = archive(folder, f"--format={format}", "--label=A label", snapshot + format)
        assert_same(found, PLAIN, fractions=format == "pax")


def test_volumes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(30_000))
    names = [tmp_path / "1.tar", tmp_path / "2.tar"]
    command = ["tar", "-C", str(tmp_path), "-cM", "-L", "20", *(f"--file={n}" for n in names), "f"]
    subprocess.run(command, check=True, env=ENVIRONMENT, input=b"")
    for name in names:
        with pytest.raises(PublishError):
            read_source(TarSource(name))


def test_archives_in_a_row_are_refused(tmp_path: Path) -> None:
    write_folder(PLAIN, tmp_path)
    command = ["tar", "-C", str(tmp_path), "-cf", "-", "."]
    data = subprocess.run(command, capture_output=True, check=True, env=ENVIRONMENT).stdout
    with pytest.raises(PublishError, match="follow the end of the archive"):
        read_source(TarSource(io.BytesIO(data + data)))


@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(trees())
def test_random_trees(tree: Tree) -> None:
    with tempfile.TemporaryDirectory(prefix="lazyfs-tar-") as name:
        folder = Path(name) / "tree"
        write_folder(tree, folder)
        assert_same(archive(folder, "--xattrs", "--sparse"), tree)
