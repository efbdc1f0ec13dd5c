from __future__ import annotations

import contextlib
import ctypes
import re

from hypothesis import given
from hypothesis import strategies as st

from lazyfs.errors import PublishError
from lazyfs.publish.dirtab import Dirtab
from lazyfs.repository.pathhash import ancestors, is_below

libc = ctypes.CDLL(None)

names = st.text("ab.-!^", min_size=1, max_size=4)
paths = st.lists(names, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
sets = st.sampled_from(["[ab]", "[!a]", "[^b.]", "[-ab]", "[]a]", "[*]", "[", "[!]", "[a"])
parts = st.lists(st.one_of(st.text("ab.-!^", max_size=2), st.sampled_from("*?"), sets), max_size=5)
# Backward ranges and "[[." are refused: unit tests have them.
components = parts.map("".join).filter(lambda part: part and not re.search(r"\[.*.-.|\[[.]", part))
patterns = st.lists(components, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
plain = patterns.map(lambda pattern: re.sub(r"[][]", "", pattern)).filter(
    lambda pattern: all(pattern[1:].split("/"))
)


def matches_with_libc(pattern: str, path: str) -> bool:
    """As glob(3) compares, component by component."""
    parts, names = pattern.encode().split(b"/"), path.encode().split(b"/")
    fits = (libc.fnmatch(part, name, 0) == 0 for part, name in zip(parts, names, strict=False))
    return len(parts) == len(names) and all(fits)


def covers(pattern: str, path: str) -> bool:
    """Whether an exclusion takes a path away, spelled out."""
    if not pattern:
        return not path
    if pattern[0] == "*":
        return any(covers(pattern[1:], path[at:]) for at in range(len(path) + 1))
    fits = path[:1] not in ("", "/") if pattern[0] == "?" else path[:1] == pattern[0]
    return fits and covers(pattern[1:], path[1:])


@given(patterns, st.lists(paths, max_size=10))
def test_rules_choose_what_the_system_would(pattern: str, queries: list[str]) -> None:
    dirtab = Dirtab.parse(pattern.encode())
    for path in queries:
        assert dirtab.matches(path.encode()) == matches_with_libc(pattern, path)


@given(plain, st.lists(paths, max_size=10))
def test_exclusions_take_away_what_they_cover(pattern: str, queries: list[str]) -> None:
    every = [b"/*" * depth for depth in range(1, 5) if b"/*" * depth != pattern.encode()]
    without = Dirtab.parse(b"\n".join(every))
    dirtab = Dirtab.parse(b"\n".join([*every, b"!" + pattern.encode()]))
    for path in queries:
        chosen = without.matches(path.encode())
        assert dirtab.matches(path.encode()) == (chosen and not covers(pattern, path))


@given(st.lists(patterns, max_size=4), st.lists(paths, max_size=10))
def test_a_walk_that_prunes_finds_every_match(rules: list[str], queries: list[str]) -> None:
    dirtab = Dirtab.parse("\n".join(rules).encode())
    for query in queries:
        path = query.encode()
        if dirtab.matches(path):
            assert all(dirtab.may_match_below(above) for above in ancestors(path))
            assert any(is_below(path, prefix) for prefix in dirtab.prefixes())
    tops = dirtab.prefixes()
    assert not any(is_below(a, b) for a in tops for b in tops if a != b)


@given(st.one_of(st.binary(max_size=60), st.text("/*?![]\\-ab #\n", max_size=60).map(str.encode)))
def test_any_bytes_are_rules_or_refused(data: bytes) -> None:
    with contextlib.suppress(PublishError):
        dirtab = Dirtab.parse(data)
        for path in (b"", b"/a", b"/a/b", data.replace(b"\n", b"")):
            dirtab.matches(path)
            dirtab.may_match_below(path)
