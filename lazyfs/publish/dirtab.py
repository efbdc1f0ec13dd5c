"""`Dirtab`: which directories begin nested catalogs, by the rules of ``.cvmfsdirtab``.

Source: upstream ``path_filters/dirtab.cc``, ``pathspec/``, ``swissknife_sync.cc``. One rule a line:
an absolute pattern chooses directories, ``!PATTERN`` takes some of them away, ``#`` begins a
comment. The server looks up what is chosen with glob(3), so wildcards keep within a component and
``[...]`` is a set of characters; what is taken away it compares with the whole path, where ``*``
covers slashes too and brackets are ordinary.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from lazyfs.errors import FormatError, PublishError
from lazyfs.repository.pathhash import is_below

DIRTAB = b".cvmfsdirtab"
"""Its name, in the root of a repository."""

MAX_DIRTAB_BYTES = 1 << 20
MAX_DEPTH = 100
"""Components of a rule; real ones have a handful."""


class _Wildcard(enum.Enum):
    MANY = b"*"
    ONE = b"?"


_Token = int | _Wildcard
"""A byte that stands for itself, or a wildcard."""

_Rule = tuple[bool, tuple[tuple[_Token, ...], ...]]
"""Whether it is absolute, and its components."""

_SLASH, _ESCAPE, _OPEN, _CLOSE = b"/\\[]"
_WILDCARDS = {wildcard.value[0]: wildcard for wildcard in _Wildcard}
_NEGATIONS = tuple(b"!^")
_NOTHING = rb"(?!)"


@dataclass(frozen=True, slots=True)
class Dirtab:
    """The rules of one repository; paths are ``b""`` or ``b"/a/b"``, those of directories."""

    _chosen: re.Pattern[bytes]
    _above: re.Pattern[bytes]
    _excluded: re.Pattern[bytes]
    _prefixes: tuple[bytes, ...]

    @classmethod
    def parse(cls, data: bytes, path: bytes = b"/" + DIRTAB) -> Self:
        """The rules in a file.

        Args:
            data: Its content.
            path: For messages.

        Raises:
            PublishError: a rule cannot be, or contradicts another.
        """
        try:
            chosen, excluded = _parse_rules(data)
            globs = [[_parse_sets(part) for part in parts] for _, parts in chosen]
        except FormatError as exc:
            raise PublishError(f"not a valid dirtab: {exc.message}", path=path) from exc
        return cls(
            _any_of([b"".join(b"/" + _regex(part) for part in glob) for glob in globs]),
            _any_of([_stations(glob) for glob in globs]),
            _any_of([_relaxed(rule) for rule in excluded]),
            _topmost([_literal(glob) for glob in globs]),
        )

    def matches(self, path: bytes) -> bool:
        """Whether a nested catalog begins at the directory ``path``; never at the root."""
        return self._chosen.fullmatch(path) is not None and not self._excluded.fullmatch(path)

    def may_match_below(self, path: bytes) -> bool:
        """Whether a directory below ``path`` can match; one that says no can be skipped."""
        return self._above.fullmatch(path) is not None

    def prefixes(self) -> tuple[bytes, ...]:
        """Where to look: all that match are these or below them, and none is below another."""
        return self._prefixes


# --- parsing ----------------------------------------------------------------------------------


def _parse_rules(data: bytes) -> tuple[list[_Rule], list[_Rule]]:
    """What chooses, and what takes away."""
    if len(data) > MAX_DIRTAB_BYTES:
        raise FormatError(f"it is longer than {MAX_DIRTAB_BYTES} bytes")
    chosen: dict[_Rule, int] = {}
    excluded: dict[_Rule, int] = {}
    for number, raw in enumerate(data.split(b"\n"), 1):
        line = raw.strip(b" \t\r")
        negated = line.startswith(b"!")
        text = line[1:].strip(b" \t") if negated else line
        if not text or line.startswith(b"#"):
            continue
        try:
            rule = _parse_rule(text)
            if not negated and not rule[0]:
                raise FormatError("it must begin with a slash")
        except FormatError as exc:
            shown = text.decode(errors="backslashreplace")
            raise FormatError(f"line {number}, {shown!r}: {exc.message}") from None
        (excluded if negated else chosen).setdefault(rule, number)
    for rule, number in chosen.items():
        if rule in excluded:
            raise FormatError(f"line {excluded[rule]} takes away what line {number} chooses")
    return list(chosen), list(excluded)


def _parse_rule(text: bytes) -> _Rule:
    # Slashes come first, before escapes: so they cannot be escaped.
    components = tuple(_parse_component(part) for part in text.split(b"/") if part)
    if not components:
        raise FormatError("it names no directory")
    if len(components) > MAX_DEPTH:
        raise FormatError(f"it has more than {MAX_DEPTH} components")
    return text.startswith(b"/"), components


def _parse_component(text: bytes) -> tuple[_Token, ...]:
    tokens: list[_Token] = []
    escaped = False
    for byte in text:
        if escaped:
            if byte != _ESCAPE and byte not in _WILDCARDS:
                raise FormatError("a backslash must stand before *, ? or a backslash")
            tokens.append(byte)
            escaped = False
        elif byte == _ESCAPE:
            escaped = True
        else:
            tokens.append(_WILDCARDS.get(byte, byte))
    # A backslash at the end of a component counts for nothing.
    if not tokens:
        raise FormatError("a component is empty")
    return tuple(tokens)


# --- from tokens to regular expressions -------------------------------------------------------

_Part = list[int | bytes | None]
"""Bytes that stand for themselves, expressions for one byte, None for any number of bytes."""


def _parse_sets(tokens: tuple[_Token, ...]) -> _Part:
    """A component of a rule that chooses, with its sets of characters."""
    part: _Part = []
    at = 0
    while at < len(tokens):
        end = _set_end(tokens, at) if tokens[at] == _OPEN else None
        if end is None:
            part.append(_plain(tokens[at]))
            at += 1
        else:
            part.append(_set(bytes(map(_byte, tokens[at + 1 : end]))))
            at = end + 1
    return part


def _plain(token: _Token) -> int | bytes | None:
    if isinstance(token, int):
        return token
    return None if token is _Wildcard.MANY else b"[^/]"


def _byte(token: _Token) -> int:
    return token if isinstance(token, int) else token.value[0]


def _set_end(tokens: Sequence[_Token], start: int) -> int | None:
    """Where the set that begins at ``start`` ends; None if it is an ordinary bracket."""
    at = start + 1
    if at < len(tokens) and tokens[at] in _NEGATIONS:
        at += 1
    # A bracket that comes first is a member.
    return next((n for n in range(at + 1, len(tokens)) if tokens[n] == _CLOSE), None)


def _set(members: bytes) -> bytes:
    """The expression of a set, which never has the slash."""
    negated = members[0] in _NEGATIONS
    if negated:
        members = members[1:]
    if any(mark in members for mark in (b"[:", b"[.", b"[=")):
        raise FormatError("named character classes are not supported")
    allowed = b""
    for first, last, single in re.findall(rb"(?s)(.)-(.)|(.)", members):
        if not single and first > last:
            raise FormatError("a range of characters runs backwards")
        allowed += re.escape(single or first) + (b"" if single else b"-" + re.escape(last))
    return b"[^/" + allowed + b"]" if negated else b"(?!/)[" + allowed + b"]"


def _regex(part: _Part, anything: bytes = b"[^/]") -> bytes:
    """The expression of a pattern.

    Between two wildcards the first place that fits will do, whatever follows: atomic groups say
    so, and keep the time linear.
    """
    runs = [b""]
    for element in part:
        if element is None:
            runs.append(b"")
        else:
            runs[-1] += element if isinstance(element, bytes) else re.escape(bytes((element,)))
    if len(runs) == 1:
        return runs[0]
    between = [b"(?>" + anything + b"*?" + run + b")" for run in runs[1:-1] if run]
    return runs[0] + b"".join(between) + anything + b"*" + runs[-1]


def _stations(glob: list[_Part]) -> bytes:
    """The expression of all directories above those that a rule chooses."""
    result = b""
    for part in reversed(glob[:-1]):
        result = b"(?:/" + _regex(part) + result + b")?"
    return result


def _relaxed(rule: _Rule) -> bytes:
    """The expression of a rule that takes away."""
    absolute, components = rule
    tokens: list[_Token] = []
    for number, component in enumerate(components):
        tokens += [_SLASH, *component] if number or absolute else component
    return _regex([_plain(token) for token in tokens], b".")


def _any_of(expressions: list[bytes]) -> re.Pattern[bytes]:
    return re.compile(b"|".join(expressions) if expressions else _NOTHING, re.DOTALL)


def _literal(glob: list[_Part]) -> bytes:
    """The path of the components before the first with a wildcard or a set."""
    path = b""
    for part in glob:
        plain = [element for element in part if isinstance(element, int)]
        if len(plain) < len(part):
            break
        path += b"/" + bytes(plain)
    return path


def _topmost(paths: list[bytes]) -> tuple[bytes, ...]:
    """Those that lie below no other."""
    found: list[bytes] = []
    # By components, so that a directory comes directly before all below it.
    for path in sorted(paths, key=lambda path: path.split(b"/")):
        if not found or not is_below(path, found[-1]):
            found.append(path)
    return tuple(found)
