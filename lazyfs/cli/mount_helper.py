"""``mount.lazyfs``: what mount(8) calls for ``mount -t lazyfs`` and for fstab."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from lazyfs.cli.mounting import mount_repository
from lazyfs.errors import ConfigError, LazyfsError
from lazyfs.fuse.logs import LogTarget
from lazyfs.fuse.options import parse_options

EXIT_USAGE = 1
EXIT_FAILURE = 32
"""Exit codes of mount(8)."""


class _Parser(argparse.ArgumentParser):
    """Ends with mount(8)'s exit code for wrong usage."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit."""
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def run(arguments: Sequence[str] | None = None) -> None:
    """Mount as mount(8) asks, and exit with its codes."""
    given = _parser().parse_args(arguments)
    try:
        code = _mount(given.repo, given.mountpoint, given.options, given)
    except ConfigError as exc:
        sys.stderr.write(f"mount.lazyfs: {exc}\n")
        sys.exit(EXIT_USAGE)
    except LazyfsError as exc:
        sys.stderr.write(f"mount.lazyfs: {exc}\n")
        sys.exit(EXIT_FAILURE)
    sys.exit(code)


def _parser() -> _Parser:
    parser = _Parser(
        prog="mount.lazyfs",
        description="Mount a CernVM-FS repository; called by mount(8).",
        epilog="Example: mount -t lazyfs data.example.org /mnt/data -o tag=v1",
    )
    parser.add_argument("repo", help="a configured name, a URL or a folder")
    parser.add_argument("mountpoint", type=Path)
    parser.add_argument("-o", dest="options", action="append", default=[], help="mount options")
    parser.add_argument("-s", dest="sloppy", action="store_true", help="pass unknown options over")
    parser.add_argument("-f", dest="fake", action="store_true", help="check only, do not mount")
    parser.add_argument("-v", dest="verbose", action="store_true", help="say what is done")
    parser.add_argument("-n", action="store_true", help="nothing: there is no mtab any more")
    parser.add_argument("-t", help="nothing: the type is known")
    return parser


def _mount(repo: str, mountpoint: Path, option_lists: list[str], given: argparse.Namespace) -> int:
    # Mounts of the system are for everybody; users need user_allow_other in fuse.conf for it.
    default = ["allow_other"] if os.geteuid() == 0 else []
    options = parse_options(",".join(default + option_lists), sloppy=given.sloppy)
    if given.fake:
        return 0
    outcome = mount_repository(
        repo, mountpoint, overrides={}, options=options, log=LogTarget(verbose=given.verbose)
    )
    if outcome.message:
        sys.stderr.write(f"mount.lazyfs: {outcome.message}\n")
        return EXIT_FAILURE
    if given.verbose:
        sys.stdout.write(f"mount.lazyfs: {repo} mounted on {mountpoint}\n")
    return 0


if __name__ == "__main__":
    run()
