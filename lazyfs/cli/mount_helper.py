"""``mount.lazyfs``: what mount(8) calls for ``mount -t lazyfs`` and for fstab."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lazyfs.errors import LazyfsError

EXIT_USAGE = 1
EXIT_FAILURE = 32
"""Exit codes of mount(8)."""


def run(arguments: list[str] | None = None) -> None:
    """Mount as mount(8) asks, and exit with its codes."""
    parser = argparse.ArgumentParser(
        prog="mount.lazyfs",
        description="Mount a CernVM-FS repository; called by mount(8).",
        epilog="Example: mount -t lazyfs data.example.org /mnt/data -o allow_other",
    )
    parser.add_argument("repo", help="a configured name, a URL or a folder")
    parser.add_argument("mountpoint", type=Path)
    parser.add_argument("-o", dest="options", action="append", default=[], help="mount options")
    parser.add_argument("-s", action="store_true", help="tolerate unknown options (ignored)")
    parser.add_argument("-n", action="store_true", help="do not write mtab (ignored)")
    parser.add_argument("-v", action="store_true", help="be verbose (ignored)")
    parser.add_argument("-f", action="store_true", help="check only, do not mount")
    given = parser.parse_args(arguments)
    from lazyfs.cli.mounting import mount_repository

    if given.f:
        sys.exit(0)
    options = ",".join([*given.options, "allow_other"])
    try:
        mount_repository(
            given.repo,
            given.mountpoint,
            overrides={},
            options=options,
            foreground=False,
            log_file=None,
        )
    except LazyfsError as exc:
        sys.stderr.write(f"mount.lazyfs: {exc}\n")
        sys.exit(EXIT_FAILURE)
