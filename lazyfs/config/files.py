"""Which configuration files count for a repository, in order; later ones win."""

from __future__ import annotations

import re
from pathlib import Path

from lazyfs.config.parameters import Parameters, Value, read_file
from lazyfs.errors import ConfigError

CONFIG_ROOT = Path("/etc/cvmfs")

_CONFIG_REPOSITORY = "CVMFS_CONFIG_REPOSITORY"
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


def read_defaults(root: Path, parameters: Parameters) -> None:
    """What comes before all else, and alone may name a configuration repository."""
    read_file(root / "default.conf", parameters)
    for path in sorted((root / "default.d").glob("*.conf")):
        read_file(path, parameters)


def read_common(root: Path, parameters: Parameters, shared: Path | None) -> None:
    """What holds for all repositories: the configuration repository's defaults, the site's own."""
    frozen = parameters.values.get(_CONFIG_REPOSITORY)
    if shared is not None:
        read_file(shared / "default.conf", parameters)
    read_file(root / "default.local", parameters)
    _restore(frozen, parameters)


def read_repository(root: Path, fqrn: str, parameters: Parameters, shared: Path | None) -> None:
    """What holds for one domain and one repository."""
    frozen = parameters.values.get(_CONFIG_REPOSITORY)
    domain = fqrn.partition(".")[2]
    for folder, name in (("domain.d", domain), ("config.d", fqrn)):
        if not name:
            continue
        if shared is not None:
            read_file(shared / folder / f"{name}.conf", parameters)
        read_file(root / folder / f"{name}.conf", parameters)
        read_file(root / folder / f"{name}.local", parameters)
    _restore(frozen, parameters)


def _restore(frozen: Value | None, parameters: Parameters) -> None:
    """Files that are read because of the configuration repository cannot name another one."""
    found = parameters.values.pop(_CONFIG_REPOSITORY, None)
    if frozen is not None:
        parameters.values[_CONFIG_REPOSITORY] = frozen
    if found is not None and found != frozen:
        parameters.warnings.append(f"{found.origin}: {_CONFIG_REPOSITORY} is set too late to count")


def config_repository_folder(
    parameters: Parameters, *, but: str = "", optional: bool = False
) -> Path | None:
    """``etc/cvmfs`` in the mounted configuration repository, None if there is none.

    Args:
        parameters: What is known so far.
        but: A repository that is configured now, and cannot configure itself.
        optional: Do without, whatever CVMFS_CONFIG_REPO_REQUIRED says.

    Raises:
        ConfigError: it is required and not there.
    """
    name = parameters.text(_CONFIG_REPOSITORY)
    if not name or name == but:
        return None
    folder = Path(parameters.text("CVMFS_MOUNT_DIR", "/cvmfs")) / check_fqrn(name) / "etc" / "cvmfs"
    if folder.is_dir():
        return folder
    if not optional and parameters.boolean("CVMFS_CONFIG_REPO_REQUIRED", default=False):
        raise ConfigError(
            f"the configuration repository {name} is not mounted",
            path=str(folder),
            hint="mount it, or set CVMFS_CONFIG_REPO_REQUIRED=no",
        )
    return None
