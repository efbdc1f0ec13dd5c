"""Measure lazyfs beside the local file system, and beside cvmfs2 where there is one."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from benchmarks.corpus import FULL, QUICK, make_corpus
from benchmarks.measure import Bench, Link
from benchmarks.report import Report, machine_facts, record
from benchmarks.subjects import Cvmfs2, Lazyfs, LocalDisk, Subject
from benchmarks.workloads import MODULES

SLOW_LINK = Link(delay=0.02, bandwidth=100e6 / 8)
README = Path(__file__).parent / "README.md"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="cvmfs2 is taken from LAZYFS_BENCH_CVMFS2, else from the PATH.",
    )
    parser.add_argument("--quick", action="store_true", help="less data, once")
    parser.add_argument("--repeat", type=int, help="how often; 3, or 1 with --quick")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument(
        "--record", action="store_true", help=f"put the table into {README.parent.name}/README.md"
    )
    parser.add_argument("--folder", type=Path, help="where the data goes; a temporary folder")
    return parser.parse_args()


def main() -> int:
    """Measure and report; the exit code."""
    arguments = parse_arguments()
    if os.geteuid() != 0:
        print("benchmarks drop the kernel's caches, which only root may do", file=sys.stderr)
        return 2
    console = Console(stderr=True)
    size = QUICK if arguments.quick else FULL
    repeat = arguments.repeat or (1 if arguments.quick else 3)
    folder = Path(tempfile.mkdtemp(prefix="lazyfs-bench-", dir=arguments.folder))
    try:
        with console.status("publishing") as status:
            corpus = make_corpus(folder, size)
            subjects: list[Subject] = [LocalDisk(corpus.local), Lazyfs(folder / "lazyfs", corpus)]
            binary = os.environ.get("LAZYFS_BENCH_CVMFS2") or shutil.which("cvmfs2")
            if binary:
                subjects.append(Cvmfs2(binary, folder / "cvmfs2", corpus))
            else:
                console.print("no cvmfs2: set LAZYFS_BENCH_CVMFS2 to measure beside it")
            bench = Bench(corpus, repeat=repeat, say=status.update)
            samples = tuple(bench.run(subjects, SLOW_LINK))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report = Report(samples, size, SLOW_LINK, len(MODULES), machine_facts(repeat))
    Console(width=max(160, Console().width)).print(Markdown(report.to_markdown()))
    if arguments.json:
        arguments.json.write_text(report.to_json())
    if arguments.record:
        record(README, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
