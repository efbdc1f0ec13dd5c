"""Owners and modes as a mount shows them."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Self

from lazyfs.config.id_map import IdMap, read_id_map
from lazyfs.config.settings import MountSettings
from lazyfs.repository.node import Node

_DIRECTORY_READABLE = 0o555
_FILE_READABLE = 0o444


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

    @property
    def is_identity(self) -> bool:
        """Whether modes and owners are shown as they were published."""
        mapped = self.uid is not None or self.gid is not None or self.umask or self.world_readable
        return not mapped and self.uids.is_identity and self.gids.is_identity

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
