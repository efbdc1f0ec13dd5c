"""`IdMap`: user or group ids and what they become, as CernVM-FS writes it (``CVMFS_UID_MAP``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lazyfs.errors import ConfigError

MAX_ID = 0xFFFFFFFE
"""The next one means "no change" to the kernel."""

_NUMBER = re.compile(r"[0-9]{1,10}")


@dataclass(frozen=True, slots=True)
class IdMap:
    """A map of user or group ids; without a default, ids that are not listed stay."""

    ids: Mapping[int, int] = field(default_factory=dict)
    default: int | None = None

    def __getitem__(self, number: int) -> int:
        return self.ids.get(number, number if self.default is None else self.default)

    @property
    def is_identity(self) -> bool:
        """Whether every id stays."""
        return self.default is None and all(old == new for old, new in self.ids.items())


def parse_id(text: str) -> int:
    """The user or group id that ``text`` is.

    Raises:
        ConfigError: it is none.
    """
    if not _NUMBER.fullmatch(text) or int(text) > MAX_ID:
        raise ConfigError(f"not a user or group id: {text!r}", hint=f"give 0 to {MAX_ID}")
    return int(text)


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
                default = parse_id(target)
            else:
                ids[parse_id(source)] = parse_id(target)
        except (ValueError, ConfigError):
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
