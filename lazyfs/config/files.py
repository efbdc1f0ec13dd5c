"""Which configuration files count for a repository, in order; later ones win."""

from __future__ import annotations

import re
from pathlib import Path

from lazyfs.config.parameters import Parameters, read_file
from lazyfs.errors import ConfigError

CONFIG_ROOT = Path("/etc/cvmfs")

_FQRN = re.compile(r"[A-Za-z0-9._-]{1,60}")


def check_fqrn(fqrn: str) -> str:
    """``fqrn`` if it may be a repository's name.

    Raises:
        ConfigError: it may not.
    """
    if not _FQRN.fullmatch(fqrn) or fqrn.startswith("."):
        raise ConfigError(
            f"not a repository name: {fqrn!r}", hint="give a name such as data.example.org"
        )
    return fqrn


def read_common(root: Path, parameters: Parameters) -> None:
    """What holds for all repositories: defaults, ``default.d``, ``default.local``."""
    read_file(root / "default.conf", parameters)
    for path in sorted((root / "default.d").glob("*.conf")):
        read_file(path, parameters)
    config_repository = config_repository_folder(parameters)
    if config_repository is not None:
        read_file(config_repository / "default.conf", parameters)
    read_file(root / "default.local", parameters)


def read_repository(root: Path, fqrn: str, parameters: Parameters) -> None:
    """What holds for one domain and one repository."""
    shared = config_repository_folder(parameters, but=fqrn)
    domain = fqrn.partition(".")[2]
    for folder, name in (("domain.d", domain), ("config.d", fqrn)):
        if not name:
            continue
        if shared is not None:
            read_file(shared / folder / f"{name}.conf", parameters)
        read_file(root / folder / f"{name}.conf", parameters)
        read_file(root / folder / f"{name}.local", parameters)


def config_repository_folder(parameters: Parameters, *, but: str = "") -> Path | None:
    """``etc/cvmfs`` in the mounted configuration repository, None if there is none.

    Raises:
        ConfigError: it is required and not there.
    """
    name = parameters.text("CVMFS_CONFIG_REPOSITORY")
    if not name or name == but:
        return None
    folder = Path(parameters.text("CVMFS_MOUNT_DIR", "/cvmfs")) / check_fqrn(name) / "etc" / "cvmfs"
    if folder.is_dir():
        return folder
    if parameters.boolean("CVMFS_CONFIG_REPO_REQUIRED", default=False):
        raise ConfigError(
            f"the configuration repository {name} is not mounted",
            path=str(folder),
            hint="mount it, or set CVMFS_CONFIG_REPO_REQUIRED=no",
        )
    return None
