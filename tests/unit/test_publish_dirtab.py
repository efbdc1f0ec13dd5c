from __future__ import annotations

import pytest

from lazyfs.errors import PublishError
from lazyfs.publish import dirtab as module
from lazyfs.publish.dirtab import MAX_DEPTH, Dirtab


def parsed(*rules: str) -> Dirtab:
    return Dirtab.parse("\n".join(rules).encode(errors="surrogateescape"))


def matching(dirtab: Dirtab, *paths: str) -> list[str]:
    return [path for path in paths if dirtab.matches(path.encode(errors="surrogateescape"))]


CHOSEN = [
    # rule, what it chooses, what it does not
    ("/usr", ["/usr"], ["", "/", "/usr/bin", "/usrx", "/xusr", "usr"]),
    ("/usr/*", ["/usr/bin", "/usr/.hidden"], ["/usr", "/usr/bin/x"]),
    ("/*", ["/a", "/.a"], ["", "/a/b"]),
    ("/*/*", ["/a/b"], ["/a", "/a/b/c"]),
    ("/usr/b*n", ["/usr/bn", "/usr/bin", "/usr/b.n.n"], ["/usr/b/n", "/usr/bins", "/usr/xbin"]),
    ("/a/*b*c", ["/a/bc", "/a/bbcbc", "/a/xbyc"], ["/a/cb", "/a/b/c"]),
    ("/a/**", ["/a/b"], ["/a", "/a/b/c"]),
    ("/usr/bi?", ["/usr/bin", "/usr/bi."], ["/usr/bi", "/usr/bi/", "/usr/binx"]),
    ("/usr/???", ["/usr/lib"], ["/usr/li", "/usr/libs", "/usr/a/b"]),
    ("/a/*?b", ["/a/xb", "/a/bb", "/a/xyb"], ["/a/b"]),
    ("//usr///bin/", ["/usr/bin"], ["//usr///bin/", "/usr"]),
    (r"/a\*b", ["/a*b"], ["/axb", "/ab"]),
    (r"/a\?", ["/a?"], ["/ax"]),
    (r"/a\\b", [r"/a\b"], ["/ab", r"/a\\b"]),
    ("/a\\/b", ["/a/b"], ["/a\\/b"]),
    ("/a.b+c(d)|e{1}^$", ["/a.b+c(d)|e{1}^$"], ["/aXb+c(d)|e{1}^$", "/a"]),
    ("/v[0-9]*", ["/v1", "/v12x"], ["/v", "/vx", "/v[0-9]"]),
    ("/[ab]", ["/a", "/b"], ["/c", "/[ab]", "/ab"]),
    ("/[!ab]x", ["/cx", "/!x"], ["/ax", "/bx", "/x", "//x"]),
    ("/[^ab]", ["/c", "/^"], ["/a"]),
    ("/[]a]", ["/]", "/a"], ["/[]a]", "/b"]),
    ("/[a-]", ["/a", "/-"], ["/b"]),
    ("/a[[]b", ["/a[b"], ["/ab"]),
    ("/[*?]", ["/*", "/?"], ["/a"]),
    ("/a[!-~]b", ["/axb"], ["/a/b"]),
    ("/a[b", ["/a[b"], ["/ab"]),
    ("/[a/b]", ["/[a/b]"], ["/a", "/b"]),
    ("/a b", ["/a b"], ["/a"]),
    ("/\udcff*", ["/\udcff", "/\udcffx"], ["/x"]),
    ("/ü?", ["/üx"], ["/ü"]),
    ("/a*", ["/a\nb"], ["/a\n/b"]),
]


@pytest.mark.parametrize(("rule", "yes", "no"), CHOSEN, ids=[rule for rule, _, _ in CHOSEN])
def test_rules_choose_directories(rule: str, yes: list[str], no: list[str]) -> None:
    assert matching(parsed(rule), *yes, *no) == yes


EXCLUDED = [
    # rule, what it takes away of all, what it leaves
    ("/a/b", ["/a/b"], ["/a", "/a/bc", "/x/a/b"]),
    ("/a/*", ["/a/b", "/a/b/c", "/a/b/c/d"], ["/a", "/ab"]),
    ("*.svn", ["/.svn", "/a/.svn", "/a/b/x.svn"], ["/.svn/a", "/svn"]),
    ("*/.git", ["/.git", "/a/b/.git"], ["/.git/hooks", "/a.git"]),
    ("*/include/*.hpp", ["/include/a.hpp", "/a/include/b/c.hpp"], ["/a/x.hpp", "/include/a.h"]),
    ("*a*b*", ["/a/b", "/xa/y/bz"], ["/b/a"]),
    ("/a?c", ["/abc"], ["/a/c", "/ac"]),
    ("a", [], ["/a"]),
    ("a/*", [], ["/a/b"]),
    ("/[ab]", ["/[ab]"], ["/a", "/b"]),
    ("/a*b", ["/a\n/b"], ["/a"]),
    (r"*\*", ["/a*"], ["/ab"]),
]


@pytest.mark.parametrize(("rule", "gone", "left"), EXCLUDED, ids=[rule for rule, _, _ in EXCLUDED])
def test_exclusions_take_away(rule: str, gone: list[str], left: list[str]) -> None:
    every = parsed(*("/*" * depth for depth in range(1, 6)))
    assert matching(every, *gone, *left) == [*gone, *left]
    some = parsed(*("/*" * depth for depth in range(1, 6)), "!" + rule)
    assert matching(some, *gone, *left) == left


def test_rules_add_up_in_any_order() -> None:
    dirtab = parsed("!/b/x", "/a/*", "! *.git", "/b/*", "/a/*")
    assert matching(dirtab, "/a/x", "/b/x", "/b/y", "/a/.git", "/c/x") == ["/a/x", "/b/y"]


def test_an_exclusion_alone_chooses_nothing() -> None:
    assert matching(parsed("!/a/*"), "/a", "/a/b", "/b") == []


def test_spaces_comments_and_line_ends_do_not_count() -> None:
    dirtab = parsed("# /no", "  #/no", "", "   ", "\t/a \t", " !  /b/c  ", "/b/*\r", "!", "/d#e")
    assert matching(dirtab, "/a", "/b/c", "/b/d", "/no", "/d#e") == ["/a", "/b/d", "/d#e"]


@pytest.mark.parametrize("data", [b"", b"\n", b"# nothing", b"!/a"])
def test_without_rules_nothing_matches(data: bytes) -> None:
    dirtab = Dirtab.parse(data)
    assert not dirtab.matches(b"/a")
    assert not dirtab.may_match_below(b"")
    assert dirtab.prefixes() == ()


MALFORMED = {
    "relative": "usr/*",
    "wildcard without slash": "*",
    "the root": "/",
    "only slashes": "///",
    "excluded root": "!/",
    "escape of a letter": r"/usr/\bin",
    "escape of a bracket": r"/a\[b",
    "excluded escape of a letter": r"!/usr/\bin",
    "lone escape": "/a/\\",
    "escaped slash alone": "/\\/a",
    "contradiction": "/a/*\n!/a/*",
    "contradiction written otherwise": "/a/*\n! //a//*/",
    "backward range": "/[z-a]",
    "character class": "/[[:digit:]]",
    "equivalence class": "/[[=a=]]",
    "too deep": "/a" * (MAX_DEPTH + 1),
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_rule_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(PublishError, match="dirtab") as caught:
        parsed("/fine/*", text)
    assert caught.value.path == "/.cvmfsdirtab"


def test_messages_name_the_rule() -> None:
    with pytest.raises(PublishError, match=r"line 2, 'usr/\*': it must begin with a slash"):
        parsed("# sw", "usr/*")
    with pytest.raises(PublishError, match=r"line 3 takes away what line 1 chooses"):
        parsed("/a", "/b", "!/a")


def test_a_file_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DIRTAB_BYTES", 10)
    Dirtab.parse(b"/a".ljust(10, b"\n"))
    with pytest.raises(PublishError, match="longer than 10"):
        Dirtab.parse(b"/a".ljust(11, b"\n"))


def test_a_walk_can_leave_out_what_holds_no_match() -> None:
    dirtab = parsed("/sw/*/v?", "/data", "/x/[ab]/*/c")
    below = ["", "/sw", "/sw/root", "/x", "/x/a", "/x/b", "/x/a/any"]
    nothing = ["/data", "/data/a", "/sw/root/v1", "/sw/root/doc", "/x/c", "/x/a/b/c", "/other"]
    assert [p for p in below + nothing if dirtab.may_match_below(p.encode())] == below


@pytest.mark.parametrize(
    ("rules", "prefixes"),
    [
        (["/sw/*/x", "/sw/releases/*", "/data"], ["/data", "/sw"]),
        (["/a/b", "/a/b/c*", "/a-b/*", "/a/b/c"], ["/a-b", "/a/b"]),
        (["/a/v[12]/x"], ["/a"]),
        (["/a*", "/b/c"], [""]),
        ([r"/a\*b/\\/*"], ["/a*b/\\"]),
        (["/a[b/c*"], ["/a[b"]),
    ],
)
def test_prefixes_say_where_to_look(rules: list[str], prefixes: list[str]) -> None:
    assert sorted(parsed(*rules).prefixes()) == sorted(p.encode() for p in prefixes)


def test_many_wildcards_take_no_exponential_time() -> None:
    # With backtracking over each wildcard these would not end.
    chosen = parsed("/" + "*a" * 40 + "*b")
    assert matching(chosen, "/" + "a" * 200, "/" + "a" * 200 + "b") == ["/" + "a" * 200 + "b"]
    excluded = parsed("/*", "/*/*", "!" + "*a" * 40 + "*b")
    long = "/" + "a" * 100 + "/" + "a" * 100
    assert matching(excluded, long, long + "b") == [long]
