from __future__ import annotations

from pathlib import Path

import pytest

from lazyfs.config.parameters import MAX_FILE_BYTES, Parameters, parse_text, read_file
from lazyfs.errors import ConfigError


def parsed(content: str) -> Parameters:
    parameters = Parameters()
    parse_text(content, "file", parameters)
    return parameters


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("NAME=value", "value"),
        ('NAME="two words"', "two words"),
        ("NAME='two words'", "two words"),
        ("export NAME=value", "value"),
        ("readonly NAME=value", "value"),
        ("eval export NAME=value", "value"),
        ("  NAME=value  ", "value"),
        ("NAME=value;", "value"),
        ("NAME=value # why", "value"),
        ("NAME=", ""),
        ("NAME=a=b", "a=b"),
        ('NAME="http://a/@fqrn@;http://b/@fqrn@"', "http://a/@fqrn@;http://b/@fqrn@"),
    ],
)
def test_an_assignment_is_read(line: str, value: str) -> None:
    assert parsed(line).text("NAME") == value


def test_references_are_filled_in_where_a_shell_would() -> None:
    content = "A=1\nB=$A/${A}x\nC='$A'\nD=\"$A $UNSET.\"\nA=2\nE=$A"
    parameters = parsed(content)
    assert [parameters.text(name) for name in "BCDE"] == ["1/1x", "$A", "1 .", "2"]


def test_what_needs_a_shell_is_never_run_and_told() -> None:
    parameters = parsed(
        "A=$(touch /tmp/never)\nB=`id`\nif grep -q x /etc/x; then\n  C=1\nfi\nsource other\nD=1\n"
    )
    assert parameters.text("A") == "$(touch /tmp/never)"
    assert "C" not in parameters.values
    assert parameters.text("D") == "1"
    assert [warning.partition(": ")[0] for warning in parameters.warnings] == [
        "file:1",
        "file:2",
        "file:3",
        "file:6",
    ]


def test_blocks_within_blocks_are_passed_over_whole() -> None:
    parameters = parsed("if a; then\nif b; then\nA=1\nfi\nB=1\nfi\nC=1\nif x; then y; fi\nD=1")
    assert set(parameters.values) == {"C", "D"}


@pytest.mark.parametrize(
    ("condition", "truth"),
    [
        ('[ "$SET" = "yes" ]', True),
        ('[ "$SET" == "no" ]', False),
        ("[ $SET != no ]", True),
        ('[ "x$UNSET" = "x" ]', True),
        ('[ -z "$UNSET" ]', True),
        ('[ -n "$UNSET" ]', False),
        ('[ ! -n "$UNSET" ]', True),
        ('! [ "$SET" ]', False),
        ("[[ $SET ]]", True),
        ("test $SET = yes", True),
        ("[ -f /etc/passwd ]", True),
        ("[ -d /etc/passwd ]", False),
        ('[ "$SET" = no ] || [ "$SET" = yes ]', True),
        ('[ "$SET" = no ] && grep x y', False),
        ('[ "$SET" = yes ] || grep x y', True),
        ('[ "$SET" = yes ] && grep x y', None),
        ("true", True),
        ("! false", True),
        ("grep x y", None),
        ("[ 1 -lt 2 ]", None),
        ('[ "$SET', None),
        ("", None),
    ],
)
def test_conditions_are_decided_without_a_shell(condition: str, truth: bool | None) -> None:
    content = f"SET=yes\nif {condition}; then\n A=1\nelse\n B=1\nfi\nC=1"
    found = parsed(content)
    names = {True: {"A"}, False: {"B"}, None: set[str]()}[truth]
    assert set(found.values) == {"SET", "C"} | names
    assert found.warnings == ([] if names else ["file:2: conditional block passed over"])


def test_one_branch_counts() -> None:
    content = """
    if [ 1 = 2 ]; then A=1
    elif [ 1 = 1 ]
    then
      B="x;y"
      if [ 1 = 2 ]; then C=1; else D=1; fi
      if [ 1 = 2 ]; then
        if [ 1 = 1 ]; then E=1; fi
      fi
    elif [ 1 = 1 ]; then F=1
    else G=1
    fi
    :
    export H
    """
    found = parsed(content)
    assert set(found.values) == {"B", "D"}
    assert found.text("B") == "x;y"
    assert found.warnings == []


def test_a_file_may_end_early() -> None:
    assert set(parsed("A=1\nif [ 1 = 2 ]; then\nreturn\nfi\nB=1\nreturn 0\nC=1").values) == {
        *("A", "B"),
    }


def test_references_reach_the_environment() -> None:
    parameters = Parameters(environ={"HOST": "h", "A": "environment"})
    parse_text("A=1\nB=$A-$HOST", "file", parameters)
    assert parameters.text("B") == "1-h"


def test_the_origin_of_a_value_is_kept() -> None:
    parameters = parsed("# comment\n\nA=1\nA=2\n")
    assert parameters.values["A"].origin == "file:4"


def test_marks_are_replaced_in_every_value() -> None:
    parameters = parsed("A=http://x/@fqrn@\nB=@org@-@fqrn@")
    parameters.substitute({"@fqrn@": "data.example.org", "@org@": "data"})
    assert parameters.text("A") == "http://x/data.example.org"
    assert parameters.text("B") == "data-data.example.org"


@pytest.mark.parametrize(
    ("word", "truth"),
    [("yes", True), ("ON", True), ("1", True), ("no", False), ("Off", False), ("", False)],
)
def test_yes_and_no(word: str, truth: bool) -> None:
    assert parsed(f"A={word}").boolean("A", default=not truth) is truth


@pytest.mark.parametrize("text", ["maybe", "2"])
def test_neither_yes_nor_no(text: str) -> None:
    with pytest.raises(ConfigError, match=r"A=.*file:1.*yes or no"):
        parsed(f"A={text}").boolean("A", default=True)


@pytest.mark.parametrize("text", ["x", "1.5", "", "-1", "11", "1e3"])
def test_numbers_out_of_range(text: str) -> None:
    with pytest.raises(ConfigError, match="A="):
        parsed(f"A={text}").integer("A", 5, low=0, high=10)


@pytest.mark.parametrize("text", ["x", "-1", "nan", "inf", "1e12"])
def test_seconds_out_of_range(text: str) -> None:
    with pytest.raises(ConfigError, match="A="):
        parsed(f"A={text}").seconds("A", 5)


def test_defaults_are_noted_as_such() -> None:
    parameters = Parameters()
    assert parameters.integer("A", 5, low=0) == 5
    assert parameters.seconds("B", 2.5) == 2.5
    assert {n: (v.text, v.origin) for n, v in parameters.values.items()} == {
        "A": ("5", "default"),
        "B": ("2.5", "default"),
    }


def test_a_missing_file_sets_nothing(tmp_path: Path) -> None:
    parameters = Parameters()
    read_file(tmp_path / "missing", parameters)
    assert parameters.values == {}


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_file(tmp_path, Parameters())
    large = tmp_path / "large"
    large.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(ConfigError, match="longer than"):
        read_file(large, Parameters())


def test_bytes_that_are_no_text_survive(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"A=/caf\xe9\n")
    parameters = Parameters()
    read_file(path, parameters)
    assert parameters.text("A").encode("utf-8", "surrogateescape") == b"/caf\xe9"
