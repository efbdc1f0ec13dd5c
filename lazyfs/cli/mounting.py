"""What `lazyfs mount` and `mount.lazyfs` share."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from lazyfs.config.load import load_settings
from lazyfs.errors import ConfigError
from lazyfs.fuse.daemon import Outcome, run_in_background
from lazyfs.fuse.options import parse_options

MISSING_FUSE = "install the package with its 'fuse' extra: pip install 'lazyfs[fuse]'"


def mount_repository(
    repo: str,
    mountpoint: Path,
    *,
    overrides: Mapping[str, str],
    options: str,
    foreground: bool,
    log_file: Path | None,
) -> None:
    """Mount ``repo``; in the background unless ``foreground``; exits with the outcome's code.

    Raises:
        LazyfsError: it could not be mounted.
    """
    try:
        from lazyfs.fuse.mount import MountRequest, prepare_mountpoint, run_mount
    except ImportError as exc:
        raise ConfigError(f"mounting needs pyfuse3: {exc}", hint=MISSING_FUSE) from exc
    parsed = parse_options(options)
    given = {"CVMFS_HTTP_PROXY": "DIRECT"} if "CVMFS_SERVER_URL" in parsed.overrides else {}
    settings = load_settings(repo, overrides={**given, **overrides, **parsed.overrides})
    prepare_mountpoint(mountpoint)
    request = MountRequest(settings, mountpoint, parsed.kernel, log_file, foreground)
    if foreground:
        sys.exit(run_mount(request, _announce))
    outcome = run_in_background(lambda report: run_mount(request, report))
    if outcome.exit_code:
        sys.stderr.write(f"lazyfs: {outcome.message}\n")
        sys.exit(outcome.exit_code)


def _announce(outcome: Outcome) -> None:
    """Tell whoever started a foreground mount that it answers."""
    sys.stdout.write("mounted\n")
    sys.stdout.flush()
