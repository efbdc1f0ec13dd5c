"""`OwnerMap`: who owns what is published; `MappedSource` applies it to a source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from lazyfs.config.id_map import IdMap, parse_id, read_id_map
from lazyfs.errors import ConfigError
from lazyfs.publish.source import Source, SourceEntry, SourceItem


@dataclass(frozen=True, slots=True)
class OwnerMap:
    """From the owners that a source names to those that are published; as made, all stay."""

    uids: IdMap = field(default_factory=IdMap)
    gids: IdMap = field(default_factory=IdMap)

    @classmethod
    def fixed(cls, uid: int, gid: int) -> Self:
        """One owner for everything."""
        return cls(IdMap(default=uid), IdMap(default=gid))

    @classmethod
    def parse(cls, text: str) -> Self:
        """One owner for everything, written ``UID:GID``.

        Raises:
            ConfigError: it is something else.
        """
        uid, colon, gid = text.partition(":")
        if not colon:
            raise ConfigError(f"not an owner: {text!r}", hint="write UID:GID in numbers")
        return cls.fixed(parse_id(uid), parse_id(gid))

    @classmethod
    def read(cls, uid_map: Path | None = None, gid_map: Path | None = None) -> Self:
        """The maps in files of ``FROM TO`` lines, ``* TO`` for all others; None keeps ids.

        Raises:
            ConfigError: a file cannot be read, or is no map.
        """
        return cls(read_id_map(uid_map), read_id_map(gid_map))

    @property
    def is_identity(self) -> bool:
        """Whether all owners stay."""
        return self.uids.is_identity and self.gids.is_identity

    def map_entry(self, entry: SourceEntry) -> SourceEntry:
        """``entry`` as its owner to be has it."""
        uid, gid = self.uids[entry.uid], self.gids[entry.gid]
        if (uid, gid) == (entry.uid, entry.gid):
            return entry
        return replace(entry, uid=uid, gid=gid)

    def map_item(self, item: SourceItem) -> SourceItem:
        """``item`` with its entry mapped."""
        entry = self.map_entry(item.entry)
        return item if entry is item.entry else replace(item, entry=entry)


class MappedSource:
    """A source whose entries have other owners.

    Args:
        source: What is published.
        owners: By whom it will be owned.
    """

    def __init__(self, source: Source, owners: OwnerMap) -> None:
        self._source = source
        self._owners = owners

    @property
    def name(self) -> str:
        """The source's."""
        return self._source.name

    def items(self) -> Iterator[SourceItem]:
        """The source's entries, mapped; it is not read ahead of what is asked for."""
        return map(self._owners.map_item, self._source.items())
