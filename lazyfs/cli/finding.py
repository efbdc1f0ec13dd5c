"""The conditions of ``lazyfs find``."""

from __future__ import annotations

import datetime
import fnmatch
import re
import stat
from collections.abc import Callable

from lazyfs.errors import ConfigError
from lazyfs.repository.node import Node

Predicate = Callable[[Node], bool]

_LETTERS = {
    "f": stat.S_IFREG,
    "d": stat.S_IFDIR,
    "l": stat.S_IFLNK,
    "p": stat.S_IFIFO,
    "s": stat.S_IFSOCK,
    "c": stat.S_IFCHR,
    "b": stat.S_IFBLK,
}
_UNITS = {"": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def make_predicate(
    *, name: str | None, types: str | None, size: str | None, newer: str | None
) -> Predicate:
    """What holds for a node if all given conditions hold.

    Raises:
        ConfigError: a condition is written wrongly.
    """
    conditions: list[Predicate] = []
    if name is not None:
        conditions.append(_by_name(name))
    if types is not None:
        conditions.append(_by_type(types))
    if size is not None:
        conditions.append(_by_size(size))
    if newer is not None:
        conditions.append(_by_time(newer))
    return lambda node: all(condition(node) for condition in conditions)


def _by_name(pattern: str) -> Predicate:
    compiled = re.compile(fnmatch.translate(pattern).encode(errors="surrogateescape"))
    return lambda node: compiled.match(node.name) is not None


def _by_type(letters: str) -> Predicate:
    try:
        kinds = {_LETTERS[letter.strip()] for letter in letters.split(",")}
    except KeyError as exc:
        raise ConfigError(f"not a file type: {exc.args[0]!r}", hint="f, d, l, p, s, c, b") from None
    return lambda node: stat.S_IFMT(node.mode) in kinds


def _by_size(text: str) -> Predicate:
    match = re.fullmatch(r"([+-]?)(\d+)([kMG]?)", text)
    if match is None:
        raise ConfigError(f"not a size: {text!r}", hint="write +N, -N or N, with k, M or G")
    limit = int(match[2]) * _UNITS[match[3]]
    if match[1] == "+":
        return lambda node: node.is_file and node.size > limit
    if match[1] == "-":
        return lambda node: node.is_file and node.size < limit
    return lambda node: node.is_file and node.size == limit


def _by_time(text: str) -> Predicate:
    try:
        moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ConfigError(
            f"not a date: {text!r}", hint="write YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    limit = int(moment.timestamp()) * 1_000_000_000
    return lambda node: node.mtime_ns > limit
