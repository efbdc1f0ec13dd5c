"""The history database: named tags of a repository. Source: upstream ``history_sql.cc``."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from lazyfs.cas.digest import Digest
from lazyfs.cas.store import ObjectHandle
from lazyfs.errors import ConfigError, FormatError, RevisionNotFound
from lazyfs.repository.sqlite_file import Row, SqliteFile, integer, text

DATE_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
MAX_TAGS = 200_000


@dataclass(frozen=True, slots=True)
class Tag:
    """A name for a revision."""

    name: str
    root_hash: Digest
    revision: int
    timestamp: int
    """Unix time."""
    description: str
    size: int = 0
    """Bytes of the root catalog, uncompressed; 0: not recorded."""
    branch: str = ""


def read_tags(handle: ObjectHandle, name: str) -> tuple[Tag, ...]:
    """All tags of a history database, newest first. Closes the handle.

    Raises:
        FormatError: it is no history database.
    """
    with SqliteFile(handle, name, ("tags", "properties")) as database:
        columns = database.columns("tags")
        size = "size" if "size" in columns else "0"
        branch = "branch" if "branch" in columns else "''"
        rows = database.rows(
            f"SELECT name, hash, revision, timestamp, description, {size}, {branch} FROM tags"
            f" ORDER BY timestamp DESC, revision DESC LIMIT {MAX_TAGS + 1}"
        )
    if len(rows) > MAX_TAGS:
        raise FormatError("too many tags", object=name)
    return tuple(_tag(row, name) for row in rows)


def _tag(row: Row, database: str) -> Tag:
    name = text(row[0])
    try:
        digest = Digest.parse_content(text(row[1]))
    except FormatError as exc:
        raise FormatError(f"tag {name!r} has no root catalog", object=database) from exc
    size = integer(row[5], database)
    if size < 0:
        raise FormatError(f"tag {name!r} has a negative size", object=database)
    revision, timestamp = integer(row[2], database), integer(row[3], database)
    return Tag(name, digest, revision, timestamp, text(row[4]), size, text(row[6]))


def find_tag(tags: tuple[Tag, ...], name: str) -> Tag:
    """The tag of that name.

    Raises:
        RevisionNotFound: there is none.
    """
    for tag in tags:
        if tag.name == name:
            return tag
    raise RevisionNotFound(f"no such tag: {name}", hint="'lazyfs tags' lists them")


def find_date(tags: tuple[Tag, ...], date: str) -> Tag:
    """The newest tagged revision on the trunk that is not younger than ``date``.

    Raises:
        ConfigError: the date is not written as ``YYYY-MM-DDTHH:MM:SSZ``.
        RevisionNotFound: all tags are younger.
    """
    try:
        moment = datetime.datetime.strptime(date, DATE_FORMAT).replace(tzinfo=datetime.UTC)
        if moment.strftime(DATE_FORMAT) != date:
            raise ValueError("digits are missing")
    except ValueError as exc:
        raise ConfigError(f"not a date: {date!r}", hint="write YYYY-MM-DDTHH:MM:SSZ") from exc
    fitting = [t for t in tags if not t.branch and t.timestamp <= moment.timestamp()]
    if not fitting:
        raise RevisionNotFound(f"no tagged revision is as old as {date}")
    return max(fitting, key=lambda tag: tag.revision)
