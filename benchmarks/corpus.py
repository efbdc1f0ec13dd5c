"""The repository that is measured, and the same files on the local disk."""

from __future__ import annotations

import compileall
import random
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from lazyfs.publish.directory_target import DirectoryTarget
from lazyfs.publish.keys import RepositoryKeys
from lazyfs.publish.publisher import Publisher

FQRN = "bench.example.org"
MARKER = ".cvmfscatalog"
_SKIPPED = ("__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "*.a")
_ENTRIES_PER_FOLDER = 100


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is of everything."""

    entries: int
    """Of the tree that is walked, directories included."""
    small_files: int
    large_bytes: int


FULL = Size(entries=20_000, small_files=2_000, large_bytes=256 << 20)
QUICK = Size(entries=2_000, small_files=300, large_bytes=32 << 20)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Where everything lies."""

    local: Path
    """The files on the local disk."""
    served: Path
    """The folder to serve."""
    pubkey: Path
    size: Size


def make_corpus(folder: Path, size: Size) -> Corpus:
    """Lay the files out below ``folder`` and publish them."""
    local = folder / "local"
    make_walk(local / "walk", size.entries)
    make_small(local / "small", size.small_files)
    make_large(local / "large", size.large_bytes)
    make_program(local / "program")
    keys = RepositoryKeys.generate(FQRN)
    served = folder / "served"
    publisher = Publisher(DirectoryTarget(served / FQRN), keys, FQRN)
    publisher.init()
    publisher.publish(local)
    pubkey = folder / f"{FQRN}.pub"
    pubkey.write_bytes(keys.public_pem)
    return Corpus(local, served, pubkey, size)


def make_walk(root: Path, entries: int) -> None:
    """Folders of small files; every twentieth folder begins a nested catalog."""
    root.mkdir(parents=True)
    (root / MARKER).touch()
    left = entries - 2
    number = 0
    while left > 0:
        folder = root / f"group{number // 20:02}" / f"folder{number:03}"
        new_group = not folder.parent.exists()
        folder.mkdir(parents=True)
        if new_group:
            (folder.parent / MARKER).touch()
        left -= 1 + 2 * new_group
        count = max(0, min(left, _ENTRIES_PER_FOLDER - 1))
        for index in range(count):
            (folder / f"file{index:03}").write_bytes(b"%d %d\n" % (number, index))
        left -= count
        number += 1


def make_small(root: Path, files: int) -> None:
    """Files of 1 to 16 KiB, 50 to a folder, that compress about as text does."""
    words = random.Random(1)
    root.mkdir(parents=True)
    (root / MARKER).touch()
    for number in range(files):
        path = root / f"folder{number // 50:03}" / f"file{number:05}"
        path.parent.mkdir(exist_ok=True)
        size = words.randrange(1 << 10, 16 << 10)
        path.write_bytes(words.randbytes(size // 2).hex().encode()[:size])


def make_large(root: Path, size: int) -> None:
    """One file that does not compress; it is published in chunks."""
    root.mkdir(parents=True)
    source = random.Random(2)
    with (root / "large.bin").open("wb") as file:
        for _ in range(size >> 20):
            file.write(source.randbytes(1 << 20))


def make_program(root: Path) -> None:
    """A Python with its standard library, compiled, to be run from there."""
    library = Path(sysconfig.get_path("stdlib"))
    target = root / "lib" / library.name
    shutil.copytree(library, target, symlinks=False, ignore=shutil.ignore_patterns(*_SKIPPED))
    binary = root / "bin" / "python3"
    binary.parent.mkdir()
    shutil.copy2(Path(sys.executable).resolve(), binary)
    shared = sysconfig.get_config_var("LIBDIR")
    for path in Path(shared or "/nowhere").glob("libpython3.*.so*"):
        shutil.copy2(path, root / "lib" / path.name, follow_symlinks=True)
    compileall.compile_dir(target, quiet=2, workers=0)
    (root / MARKER).touch()
