"""Checking a configuration before it is used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lazyfs.config.load import PREFIXES, load_parameters, settings_from
from lazyfs.errors import ConfigError

NO_PARAMETERS = frozenset(("LAZYFS_RUNTIME_DIR",))
"""Variables of the environment that look like parameters."""


@dataclass(frozen=True, slots=True)
class ConfigReport:
    """What is wrong, and what looks odd."""

    errors: list[str]
    warnings: list[str]


def check_parameters(
    repo: str, overrides: Mapping[str, str], environ: Mapping[str, str]
) -> ConfigReport:
    """Check the configuration of ``repo`` without asking the network."""
    errors: list[str] = []
    warnings: list[str] = []
    try:
        source, parameters = load_parameters(repo, overrides=overrides, environ=environ)
        given = set(parameters.values)
        settings = settings_from(source.fqrn, parameters, environ)
    except ConfigError as exc:
        return ConfigReport([str(exc)], warnings)
    warnings += parameters.warnings
    known = (set(parameters.values) - given) | NO_PARAMETERS
    unread = [n for n in given if n.startswith(PREFIXES) and n not in known and not _is_read(n)]
    warnings += [f"{name} means nothing to lazyfs but in symlinks" for name in sorted(unread)]
    keys = [path for path in settings.trust.public_keys if path.exists()]
    if not any(map(_holds_keys, keys)) and settings.revision.root_hash is None:
        places = ", ".join(map(str, settings.trust.public_keys))
        errors.append(f"no master public key in {places}: give --pubkey or set CVMFS_PUBLIC_KEY")
    errors += [f"the key {path} cannot be read" for path in keys if not os.access(path, os.R_OK)]
    return ConfigReport(errors, warnings)


def _holds_keys(path: Path) -> bool:
    return any(path.glob("*.pub")) if path.is_dir() else True


def _is_read(name: str) -> bool:
    """Whether lazyfs looks at the parameter: a run with nothing set notes all that it asks for."""
    try:
        _, parameters = load_parameters(
            "http://localhost/check.example.org", overrides={}, environ={}
        )
        settings_from("check.example.org", parameters, {})
    except ConfigError:
        return True
    return name in parameters.values
