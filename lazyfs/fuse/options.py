"""Mount options, as ``-o`` and fstab write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lazyfs.errors import ConfigError

_IGNORED = frozenset(
    (
        "ro",
        "rw",
        "defaults",
        "_netdev",
        "auto",
        "noauto",
        "user",
        "users",
        "nouser",
        "nofail",
        "nodiratime",
        "relatime",
        "async",
        "exec",
        "nodev",
        "nosuid",
        "fsname",
        "subtype",
        "system_mount",
        "grab_mountpoint",
        "default_permissions",
        "remount",
    )
)
"""Options that are always so, that the kernel gets anyway, or that only mount(8) looks at. It
passes ``rw`` unless told otherwise; a repository is mounted read-only all the same."""

_YES: Mapping[str, tuple[str, str]] = {
    "allow_other": ("LAZYFS_ALLOW_OTHER", "yes"),
    "claim_ownership": ("CVMFS_CLAIM_OWNERSHIP", "yes"),
    "no_claim_ownership": ("CVMFS_CLAIM_OWNERSHIP", "no"),
    "suid": ("CVMFS_SUID", "yes"),
    "no_default_permissions": ("CVMFS_CHECK_PERMISSIONS", "no"),
    "allow_rollback": ("LAZYFS_ALLOW_ROLLBACK", "yes"),
    "allow_expired": ("LAZYFS_ALLOW_EXPIRED", "yes"),
}

_VALUES: Mapping[str, str] = {
    "uid": "LAZYFS_UID",
    "gid": "LAZYFS_GID",
    "umask": "LAZYFS_UMASK",
    "pubkey": "CVMFS_PUBLIC_KEY",
    "cache": "CVMFS_CACHE_DIR",
    "server": "CVMFS_SERVER_URL",
    "proxy": "CVMFS_HTTP_PROXY",
    "tag": "CVMFS_REPOSITORY_TAG",
    "date": "CVMFS_REPOSITORY_DATE",
    "root_hash": "CVMFS_ROOT_HASH",
    "external_url": "CVMFS_EXTERNAL_URL",
}


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What a list of mount options asks for."""

    overrides: Mapping[str, str] = field(default_factory=dict)
    """Parameters."""
    kernel: frozenset[str] = frozenset()
    """What goes to the kernel as it is."""


def parse_options(text: str) -> MountOptions:
    """The options in ``text``, separated by commas.

    Raises:
        ConfigError: an option is unknown.
    """
    overrides: dict[str, str] = {}
    kernel: set[str] = set()
    for word in filter(None, text.split(",")):
        name, has_value, value = word.partition("=")
        if name in _YES and not has_value:
            parameter, setting = _YES[name]
            overrides[parameter] = setting
        elif name in _VALUES and has_value:
            overrides[_VALUES[name]] = value
        elif name.startswith(("CVMFS_", "LAZYFS_")) and has_value:
            overrides[name] = value
        elif word in ("noexec", "noatime"):
            kernel.add(word)
        elif name not in _IGNORED and not name.startswith(("x-", "comment")):
            known = sorted({*_YES, *_VALUES, "CVMFS_X"})
            raise ConfigError(f"unknown mount option {word!r}", hint=f"known: {', '.join(known)}")
    return MountOptions(overrides, frozenset(kernel))
