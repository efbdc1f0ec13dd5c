"""How fast publishing is: beside pure compression, and as repositories and changes grow.

Prints a table in Markdown; ``--record`` puts it into README.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import random
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import machine_facts, replace_section
from lazyfs.cas.codec import ZLIB_LEVEL
from lazyfs.publish.directory_target import DirectoryTarget
from lazyfs.publish.keys import RepositoryKeys
from lazyfs.publish.publisher import Publisher
from lazyfs.publish.source import SourceEntry, SourceItem

FQRN = "bench.example.org"
README = Path(__file__).parent / "README.md"
MARKS = ("<!-- publishing -->", "<!-- end of publishing -->")

MIXTURE = ((1 << 10, 0.05), (16 << 10, 0.15), (256 << 10, 0.3), (8 << 20, 0.3), (64 << 20, 0.2))
"""Sizes of files, and the share of all bytes that is in such files."""

_PER_FOLDER = 100


@dataclass(frozen=True, slots=True)
class Rate:
    """Publishing a folder for the first time, beside compressing it."""

    files: int
    bytes: int
    publish_seconds: float
    compress_seconds: float
    peak_bytes: int

    @property
    def ratio(self) -> float:
        """The rate of publishing over that of compression alone."""
        return self.compress_seconds / self.publish_seconds


@dataclass(frozen=True, slots=True)
class Growth:
    """Publishing some changes into a repository."""

    entries: int
    """In the repository."""
    changed: int
    """Files that were new."""
    seconds: float
    catalogs: int
    """Catalogs that were written."""
    peak_bytes: int


def make_mixture(root: Path, total: int) -> tuple[int, int]:
    """Files of all sizes that compress about as text does; their number and bytes."""
    words = random.Random(3)
    files = written = 0
    for size, share in MIXTURE:
        for number in range(max(1, int(total * share) // size)):
            folder = root / f"of{size}" / f"{number // _PER_FOLDER}"
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / f"{number}").open("wb") as file:
                for _ in range(max(1, size >> 20)):
                    piece = words.randbytes(min(size, 1 << 20) // 2).hex().encode()
                    file.write(piece)
                    written += len(piece)
            files += 1
    return files, written


def compress_all(root: Path) -> None:
    """Only compress, with all cores: what no publisher can avoid."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pieces = ((path, at) for path in root.rglob("*") if path.is_file() for at in _pieces(path))
        for _ in pool.map(_compress, pieces):
            pass


def _pieces(path: Path) -> range:
    return range(0, path.stat().st_size, 8 << 20)


def _compress(piece: tuple[Path, int]) -> int:
    path, at = piece
    with path.open("rb") as file:
        file.seek(at)
        return len(zlib.compress(file.read(8 << 20), ZLIB_LEVEL))


class Generated:
    """A source of small files that are nowhere but in memory.

    Args:
        top: The directory that gets them.
        count: How many.
        marked: Begin a nested catalog in each group of a hundred folders.
    """

    name = "generated"

    def __init__(self, top: bytes, count: int, *, marked: bool) -> None:
        self._top = top
        self._count = count
        self._marked = marked

    def items(self) -> Iterator[SourceItem]:
        """Folders of a hundred files, a hundred folders to a group."""
        yield self._folder(self._top)
        for number in range(self._count):
            folder, index = divmod(number, _PER_FOLDER)
            group, inner = divmod(folder, _PER_FOLDER)
            above = self._top + b"/g%d" % group
            below = above + b"/d%d" % inner
            if index == 0:
                if inner == 0:
                    yield self._folder(above)
                    if self._marked:
                        yield self._file(above + b"/.cvmfscatalog", b"")
                yield self._folder(below)
            yield self._file(below + b"/f%d" % index, b"%d" % (number % 1000))

    def _folder(self, path: bytes) -> SourceItem:
        return SourceItem(path, self._entry(path, stat.S_IFDIR | 0o755, 4096))

    def _file(self, path: bytes, content: bytes) -> SourceItem:
        entry = self._entry(path, stat.S_IFREG | 0o644, len(content))
        return SourceItem(path, entry, lambda: io.BytesIO(content))

    def _entry(self, path: bytes, mode: int, size: int) -> SourceEntry:
        return SourceEntry(path.rpartition(b"/")[2], mode, size, 1_700_000_000_000_000_000, 0, 0)


def publisher(folder: Path) -> Publisher:
    """Of the repository in a folder."""
    keys = folder / "keys"
    if not keys.exists():
        RepositoryKeys.generate(FQRN).save(keys, FQRN)
    return Publisher(DirectoryTarget(folder / FQRN), RepositoryKeys.load(keys, FQRN), FQRN)


def publish_folder(folder: Path) -> dict[str, float]:
    """Publish the mixture once."""
    made = publisher(folder)
    made.init()
    start = time.monotonic()
    made.publish(folder / "mixture")
    return {"seconds": time.monotonic() - start}


def publish_generated(folder: Path, top: str, count: int) -> dict[str, float]:
    """Publish generated files into the repository, which is made if need be."""
    made = publisher(folder)
    if made.ledger.find_head() is None:
        made.init()
    start = time.monotonic()
    with made.transaction() as transaction:
        transaction.ingest(Generated(f"/{top}".encode(), count, marked=count > _PER_FOLDER**2))
        result = transaction.commit()
    return {"seconds": time.monotonic() - start, "catalogs": result.new_catalogs}


def in_process(*words: object) -> dict[str, float]:
    """Have one piece of work done by a process of its own, whose memory is measured."""
    command = [sys.executable, "-m", "benchmarks.publishing", "--do", *map(str, words)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def do(words: Sequence[str]) -> None:
    """The piece of work that `in_process` names."""
    folder = Path(words[1])
    if words[0] == "folder":
        found = publish_folder(folder)
    elif words[0] == "generated":
        found = publish_generated(folder, words[2], int(words[3]))
    else:
        start = time.monotonic()
        compress_all(folder / "mixture")
        found = {"seconds": time.monotonic() - start}
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(found))


def measure_rate(folder: Path, total: int, repeat: int) -> Rate:
    """Publish and compress by turns; the best of each counts for itself."""
    files, size = make_mixture(folder / "mixture", total)
    published, compressed = [], []
    for _ in range(repeat):
        compressed.append(in_process("compress", folder))
        shutil.rmtree(folder / FQRN, ignore_errors=True)
        published.append(in_process("folder", folder))
    return Rate(
        files,
        size,
        sorted(found["seconds"] for found in published)[repeat // 2],
        sorted(found["seconds"] for found in compressed)[repeat // 2],
        int(max(found["peak"] for found in published)),
    )


def measure_growth(folder: Path, sizes: Iterable[int], changes: Iterable[int]) -> list[Growth]:
    """Let a repository grow, and publish changes of all sizes at each stage."""
    found = []
    entries = 0
    for size in sizes:
        base = in_process("generated", folder, f"base{size}", size - entries)
        found.append(_growth(size, size - entries, base))
        entries = size
        for change in changes:
            done = in_process("generated", folder, f"at{size}change{change}", change)
            found.append(_growth(size, change, done))
    return found


def _growth(entries: int, changed: int, found: dict[str, float]) -> Growth:
    return Growth(entries, changed, found["seconds"], int(found["catalogs"]), int(found["peak"]))


def to_markdown(rate: Rate, growth: Sequence[Growth], repeat: int) -> str:
    """Both tables, for people."""
    facts = machine_facts(repeat)
    lines = [
        f"{facts['date']}, {facts['cpus']} x {facts['cpu']}, Linux {facts['kernel']}, Python"
        f" {facts['python']}, lazyfs {facts['lazyfs']}; median of {repeat}.",
        "",
        f"Publishing {rate.files:,} files, {rate.bytes / 1e6:.0f} MB, into an empty repository"
        f" takes {rate.publish_seconds:.1f} s; to compress the same bytes with zlib at the same"
        f" level on all cores, and nothing else, takes {rate.compress_seconds:.1f} s:"
        f" {rate.ratio:.2f} of that rate. Peak memory {rate.peak_bytes / 1e6:.0f} MB.",
        "",
        "| files in the repository | files published | time | catalogs written | peak memory |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {g.entries:,} | {g.changed:,} | {g.seconds:.2f} s | {g.catalogs} |"
        f" {g.peak_bytes / 1e6:.0f} MB |"
        for g in growth
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure and report; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publishing", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less data, once")
    parser.add_argument("--record", action="store_true", help="put the tables into README.md")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--folder", type=Path, help="where the data goes; a temporary folder")
    parser.add_argument("--do", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.do:
        do(arguments.do)
        return 0
    repeat = 1 if arguments.quick else 3
    sizes = (1_000, 20_000) if arguments.quick else (10_000, 100_000, 1_000_000)
    changes = (1, 100) if arguments.quick else (1, 100, 10_000)
    folder = Path(tempfile.mkdtemp(prefix="lazyfs-bench-", dir=arguments.folder))
    try:
        rate = measure_rate(folder, (64 if arguments.quick else 800) * 10**6, repeat)
        growth = measure_growth(folder / "growth", sizes, changes)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = to_markdown(rate, growth, repeat)
    print(text)
    if arguments.json:
        rows = [dataclasses.asdict(row) for row in growth]
        document = {
            "facts": machine_facts(repeat),
            "rate": dataclasses.asdict(rate),
            "growth": rows,
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    if arguments.record:
        replace_section(README, MARKS, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
