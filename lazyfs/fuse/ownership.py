"""Owners and modes as a mount shows them."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from lazyfs.config.settings import MountSettings
from lazyfs.errors import ConfigError
from lazyfs.repository.node import Node

_DIRECTORY_READABLE = 0o555
_FILE_READABLE = 0o444


@dataclass(frozen=True, slots=True)
class IdMap:
    """A map of user or group ids; without a default, ids that are not listed stay."""

    ids: Mapping[int, int] = field(default_factory=dict)
    default: int | None = None

    def __getitem__(self, number: int) -> int:
        return self.ids.get(number, number if self.default is None else self.default)


def parse_id_map(content: str, name: str) -> IdMap:
    """The map written as ``FROM TO`` lines, ``* TO`` for all others, ``#`` comments.

    Raises:
        ConfigError: a line is something else.
    """
    ids: dict[int, int] = {}
    default = None
    for number, raw in enumerate(content.splitlines(), 1):
        words = raw.partition("#")[0].split()
        if not words:
            continue
        try:
            source, target = words
            if source == "*":
                default = int(target)
            else:
                ids[int(source)] = int(target)
        except ValueError:
            raise ConfigError(
                f"{name}:{number}: not an id mapping", hint="write FROM TO, or * TO"
            ) from None
    return IdMap(ids, default)


def read_id_map(path: Path | None) -> IdMap:
    """The map in a file; the identity for None.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    if path is None:
        return IdMap()
    try:
        return parse_id_map(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"cannot read the id map: {exc}", path=str(path)) from exc


@dataclass(frozen=True, slots=True)
class Ownership:
    """Decides owner and mode of every node."""

    uid: int | None
    gid: int | None
    uids: IdMap
    gids: IdMap
    umask: int
    world_readable: bool

    @classmethod
    def from_settings(cls, settings: MountSettings) -> Self:
        """As the settings say; claimed ownership goes to the mounting user unless one is named."""
        claim = settings.claim_ownership
        return cls(
            settings.uid if settings.uid is not None else os.getuid() if claim else None,
            settings.gid if settings.gid is not None else os.getgid() if claim else None,
            read_id_map(settings.uid_map),
            read_id_map(settings.gid_map),
            settings.umask,
            settings.world_readable,
        )

    def mode(self, node: Node) -> int:
        """The node's mode, type included."""
        mode = node.mode
        if self.world_readable:
            mode |= _DIRECTORY_READABLE if node.is_dir else _FILE_READABLE
        return mode if stat.S_ISLNK(mode) else mode & ~self.umask

    def owner(self, node: Node) -> tuple[int, int]:
        """User and group id."""
        uid = self.uids[node.uid] if self.uid is None else self.uid
        gid = self.gids[node.gid] if self.gid is None else self.gid
        return uid, gid
