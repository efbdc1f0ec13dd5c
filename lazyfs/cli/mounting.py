"""What `lazyfs mount` and `mount.lazyfs` share."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lazyfs.config.load import load_parameters, settings_from
from lazyfs.config.parameters import Parameters, read_file
from lazyfs.config.settings import RepositorySettings
from lazyfs.errors import ConfigError
from lazyfs.fuse.daemon import Outcome, run_in_background
from lazyfs.fuse.logs import LogTarget
from lazyfs.fuse.options import MountOptions

MISSING_FUSE = "install the package with its 'fuse' extra: pip install 'lazyfs[fuse]'"


def mount_repository(
    repo: str,
    mountpoint: Path,
    *,
    overrides: Mapping[str, str],
    options: MountOptions,
    log: LogTarget,
) -> Outcome:
    """Mount ``repo`` and say how it went; in the foreground this is when the mount has ended.

    Args:
        repo: As for all commands.
        mountpoint: An existing directory.
        overrides: Parameters from the command line; those in ``options`` win.
        options: Mount options.
        log: Where log lines go, and whether to stay in the foreground.

    Raises:
        LazyfsError: it could not be mounted.
    """
    try:
        from lazyfs.fuse.mount import MountRequest, run_mount
    except ImportError as exc:
        raise ConfigError(f"mounting needs pyfuse3: {exc}", hint=MISSING_FUSE) from exc
    source, parameters = load_parameters(repo, overrides=_overrides(overrides, options))
    settings = _anchored(settings_from(source.fqrn, parameters, os.environ))
    file = log.file or options.log or _log_file(parameters)
    request = MountRequest(
        settings,
        mountpoint.absolute(),
        options.kernel,
        LogTarget(file, log.foreground, log.verbose),
        parameters.values,
    )
    if log.foreground:
        return Outcome(exit_code=run_mount(request, _announce))
    return run_in_background(lambda report: run_mount(request, report), errors=file)


def _overrides(overrides: Mapping[str, str], options: MountOptions) -> dict[str, str]:
    from_files = Parameters()
    for path in options.config:
        if not path.is_file():
            raise ConfigError("no such configuration file", path=str(path))
        read_file(path, from_files)
    given = {name: value.text for name, value in from_files.values.items()}
    return given | {**overrides, **options.overrides}


def _anchored(settings: RepositorySettings) -> RepositorySettings:
    """The same with absolute paths: a mount process changes its directory."""
    cache, trust, mount = settings.cache, settings.trust, settings.mount
    return replace(
        settings,
        cache=replace(cache, directory=cache.directory.absolute()),
        trust=replace(
            trust,
            public_keys=tuple(path.absolute() for path in trust.public_keys),
            blacklists=tuple(path.absolute() for path in trust.blacklists),
        ),
        mount=replace(
            mount,
            uid_map=mount.uid_map and mount.uid_map.absolute(),
            gid_map=mount.gid_map and mount.gid_map.absolute(),
        ),
    )


def _log_file(parameters: Parameters) -> Path | None:
    name = parameters.text("CVMFS_USYSLOG")
    return Path(name).absolute() if name else None


def _announce(outcome: Outcome) -> None:
    """Tell whoever started a foreground mount that it answers."""
    sys.stdout.write("mounted\n")
    sys.stdout.flush()
