from __future__ import annotations

import pytest

from lazyfs.errors import FormatError, PathError
from lazyfs.repository.pathhash import (
    ancestors,
    is_below,
    normalize,
    path_hash,
    printable,
)
from lazyfs.repository.symlinks import expand
from lazyfs.repository.xattr_blob import dump_xattrs, parse_xattrs

# --- path hashes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "first", "second"),
    [
        (b"", 338333539836370388, 9098107892288553193),
        (b"/a", -2906336618250618618, -744252105585281751),
        (b"/a/b", -79414819578584146, 8517581007188477988),
    ],
)
def test_path_hashes_are_those_of_upstream(path: bytes, first: int, second: int) -> None:
    assert path_hash(path) == (first, second)


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"", b""),
        (b"/", b""),
        ("a/b/", b"/a/b"),
        ("//a///b", b"/a/b"),
        ("/a/./b/../c", b"/a/c"),
        ("/caf\udce9", b"/caf\xe9"),
        ("/é", "/é".encode()),
        (b"/...", b"/..."),
    ],
)
def test_paths_are_normalized(raw: bytes | str, path: bytes) -> None:
    assert normalize(raw) == path


@pytest.mark.parametrize("raw", ["..", "/a/../..", "a\0", b"/" + b"x" * 4096])
def test_what_is_no_path(raw: bytes | str) -> None:
    with pytest.raises(PathError):
        normalize(raw)


def test_ancestors_are_all_prefixes_at_component_borders() -> None:
    assert ancestors(b"/a/bc/d") == [b"", b"/a", b"/a/bc"]
    assert ancestors(b"") == []
    assert is_below(b"/a/b", b"/a")
    assert is_below(b"/a", b"/a")
    assert is_below(b"/a", b"")
    assert not is_below(b"/ab", b"/a")


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (b"", "/"),
        (b"/a b", "/a b"),
        ("/é".encode(), "/é"),
        (b"/\xe9", "/\\xe9"),
        (b"/a\nb\t\x1b[31m", "/a\\nb\\t\\x1b[31m"),
        ("/\u202e\u2028".encode(), "/\\u202e\\u2028"),
    ],
)
def test_paths_are_shown_on_one_line(path: bytes, shown: str) -> None:
    assert printable(path) == shown
    assert printable(path).isprintable()


# --- symbolic links ------------------------------------------------------------------------

VARIABLES = {"A": "1", "EMPTY": "", "LONG_NAME": "x/y", "DOLLAR": "$(A)", "RAW": "\udcff"}


@pytest.mark.parametrize(
    ("target", "expanded"),
    [
        (b"plain", b"plain"),
        (b"$(A)", b"1"),
        (b"/p/$(A)/q/$(LONG_NAME)", b"/p/1/q/x/y"),
        (b"$(NONE)", b""),
        (b"$(NONE:-dflt)", b"dflt"),
        (b"$(A:-dflt)", b"1"),
        (b"$(EMPTY:-dflt)", b""),
        (b"$(NONE:-)", b""),
        (b"$(NONE:-a:-b)", b"a:-b"),  # the first separator counts
        (b"$(NONE:-$(A)", b"$(A"),  # the first parenthesis ends it, results stay as they are
        (b"$(DOLLAR)", b"$(A)"),
        (b"$A", b"$A"),
        (b"$(A", b"$(A"),
        (b"a$(B", b"a$(B"),
        (b"$", b"$"),
        (b"$(", b"$("),
        (b"$()", b""),
        (b"$()x)", b"x)"),
        (b"$(:-d)", b"d"),
        (b"$$(A)$", b"$1$"),
        (b"$(A)$(", b"1$("),
        (b"\xff$(A)\xfe", b"\xff1\xfe"),
        (b"$(RAW)", b"\xff"),
        (b"$(N\xff:-d)", b"d"),
        (b"$(A:B)", b""),
    ],
)
def test_variables_in_links(target: bytes, expanded: bytes) -> None:
    assert expand(target, VARIABLES) == expanded


# --- extended attributes -------------------------------------------------------------------


def test_an_xattr_blob() -> None:
    attributes = {b"user.b": b"", b"user.a": b"\0\xff", b"security.capability": b"x" * 255}
    blob = dump_xattrs(attributes)
    assert blob is not None
    assert blob.startswith(b"\1\3\x13\xffsecurity.capability")
    assert parse_xattrs(blob) == attributes
    assert parse_xattrs(blob + b"trailing") == attributes
    assert dump_xattrs({}) is None


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\1",
        b"\2\1\1\1kv",
        b"\0\1\1\1kv",
        b"\1\1",
        b"\1\1\1",
        b"\1\1\1\1k",
        b"\1\2\1\1kv",
        b"\1\1\0\1v",
        b"\1\1\2\1k\0v",
    ],
)
def test_a_damaged_blob_is_no_xattrs(blob: bytes) -> None:
    assert parse_xattrs(blob) == {}


@pytest.mark.parametrize(
    "attributes",
    [
        {b"": b"v"},
        {b"k" * 256: b"v"},
        {b"k": b"v" * 256},
        {b"%d" % i: b"" for i in range(256)},
    ],
)
def test_xattrs_that_do_not_fit_are_refused(attributes: dict[bytes, bytes]) -> None:
    with pytest.raises(FormatError):
        dump_xattrs(attributes)
