"""Mount options, as ``-o`` and fstab write them."""

from __future__ import annotations

import grp
import pwd
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lazyfs.errors import ConfigError

_IGNORED = frozenset(
    (
        *("ro", "rw", "defaults", "nodev", "subtype", "system_mount", "grab_mountpoint"),
        *("_netdev", "auto", "noauto", "nofail", "user", "nouser", "users", "owner", "group"),
        *("async", "sync", "exec", "atime", "diratime", "nodiratime", "relatime", "norelatime"),
        *("strictatime", "lazytime", "nolazytime", "silent", "loud", "comment"),
    )
)
"""Options that are always so, that mean nothing where nothing is written, or that only mount(8)
looks at. It passes ``rw`` unless told otherwise; a repository is read-only all the same."""

_KERNEL = frozenset(("noexec", "noatime", "dev"))
"""Options that go to the kernel as they are."""

_FLAGS: Mapping[str, tuple[str, str]] = {
    "allow_other": ("LAZYFS_ALLOW_OTHER", "yes"),
    "claim_ownership": ("CVMFS_CLAIM_OWNERSHIP", "yes"),
    "no_claim_ownership": ("CVMFS_CLAIM_OWNERSHIP", "no"),
    "suid": ("CVMFS_SUID", "yes"),
    "nosuid": ("CVMFS_SUID", "no"),
    "default_permissions": ("CVMFS_CHECK_PERMISSIONS", "yes"),
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

_PARAMETER = re.compile(r"(CVMFS|LAZYFS)_[A-Z0-9_]+")

_WORD = re.compile(r'((?:\\.|"[^"]*"|[^,"\\])*)(?:,|$)')


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What a list of mount options asks for."""

    overrides: Mapping[str, str] = field(default_factory=dict)
    """Parameters."""
    kernel: frozenset[str] = frozenset()
    """What goes to the kernel as it is."""
    config: tuple[Path, ...] = ()
    """Files with more parameters; ``overrides`` win over them."""
    log: Path | None = None
    """A log file."""


def parse_options(text: str, *, sloppy: bool = False) -> MountOptions:
    r"""The options in ``text``, separated by commas; the last one of a kind counts.

    A comma within a value is written ``\,``, or the value within double quotes.

    Args:
        text: For instance ``allow_other,tag=v1,CVMFS_QUOTA_LIMIT=500``.
        sloppy: Pass over options that are not known.

    Raises:
        ConfigError: an option is unknown, or its value cannot be used.
    """
    overrides: dict[str, str] = {}
    kernel: dict[str, str] = {}
    config: tuple[Path, ...] = ()
    log: Path | None = None
    for name, value in _split(text):
        if name in _KERNEL and value is None:
            kernel[name] = name
        elif name == "fsname" and value:
            kernel[name] = f"fsname={value}"
        elif name == "config" and value:
            config = tuple(Path(part).absolute() for part in value.split(":") if part)
        elif name == "log" and value:
            log = Path(value).absolute()
        elif (parameters := _parameters(name, value)) is not None:
            overrides |= parameters
        elif name == "remount":
            raise ConfigError(
                "a mount cannot be changed by remounting",
                hint="'lazyfs ctl DIR remount' looks for a new revision; else unmount and mount",
            )
        elif not sloppy and name not in _IGNORED and not name.startswith(("x-", "X-")):
            raise _unknown(name, value)
    return MountOptions(overrides, frozenset(kernel.values()), config, log)


def _split(text: str) -> Iterator[tuple[str, str | None]]:
    """Names and values; None where there is no ``=``."""
    at = 0
    while at < len(text):
        match = _WORD.match(text, at)
        if match is None:
            raise ConfigError(f"mount options that cannot be read: {text[at:]!r}")
        at = match.end()
        if match[1]:
            name, found, value = match[1].partition("=")
            yield name, re.sub(r'"([^"]*)"|\\(.)', r"\1\2", value) if found else None


def _parameters(name: str, value: str | None) -> dict[str, str] | None:
    """The parameters that an option stands for; None if it stands for none."""
    if value is None:
        return dict((_FLAGS[name],)) if name in _FLAGS else None
    if name == "uid":
        value = str(_id(name, value, lambda user: pwd.getpwnam(user).pw_uid))
    elif name == "gid":
        value = str(_id(name, value, lambda group: grp.getgrnam(group).gr_gid))
    if name in _VALUES:
        return {_VALUES[name]: value}
    return {name: value} if _PARAMETER.fullmatch(name) else None


def _id(option: str, text: str, look_up: Callable[[str], int]) -> int:
    """A number, or the number behind a name."""
    try:
        return int(text) if text.isdecimal() else look_up(text)
    except KeyError:
        raise ConfigError(f"mount option {option}={text}: no such name") from None


def _unknown(name: str, value: str | None) -> ConfigError:
    needs_value = name in (*_VALUES, "config", "log", "fsname")
    if needs_value:
        return ConfigError(f"mount option {name} needs a value", hint=f"write {name}=…")
    text = name if value is None else f"{name}={value}"
    known = sorted({*_FLAGS, *_KERNEL, *_VALUES, "config", "log", "fsname", "CVMFS_X"})
    return ConfigError(f"unknown mount option {text!r}", hint=f"known: {', '.join(known)}")
