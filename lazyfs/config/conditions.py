"""Conditional blocks of configuration files: what can be decided without running a shell."""

from __future__ import annotations

import enum
import re
import shlex
from collections.abc import Callable
from pathlib import Path

Expand = Callable[[str], str]
"""Fills in ``$NAME`` in a word."""

_KEYWORD = re.compile(r"(if|elif|else|then|fi)\b(.*)")
_FILE_TESTS: dict[str, Callable[[Path], bool]] = {
    "-d": Path.is_dir,
    "-e": Path.exists,
    "-f": Path.is_file,
}


class _Branch(enum.Enum):
    TAKEN = "this branch counts"
    WANTED = "a later branch may count"
    OVER = "no later branch counts"


class Conditionals:
    """Follows ``if``, ``elif``, ``else`` and ``fi`` through the lines of one file.

    Conditions of ``[ … ]`` with strings and files, joined by ``&&`` and ``||``, are decided. Where
    one cannot be, none of the block's branches counts.
    """

    def __init__(self, expand: Expand) -> None:
        self._expand = expand
        self._blocks: list[_Branch] = []

    @property
    def active(self) -> bool:
        """Whether a line counts that stands here."""
        return all(branch is _Branch.TAKEN for branch in self._blocks)

    def statements(self, line: str) -> list[str]:
        """The statements of a line; only lines with a keyword in front can hold several."""
        return _split(line) if _KEYWORD.match(line) else [line]

    def follow(self, statement: str) -> tuple[bool, str]:
        """Whether a condition was undecidable, and what is left of a statement to be read."""
        match = _KEYWORD.match(statement)
        if match is None:
            return False, statement
        word, rest = match[1], match[2].strip()
        if word == "if":
            outer = self.active
            self._blocks.append(_Branch.WANTED if outer else _Branch.OVER)
            return outer and self._decide(rest), ""
        if self._blocks and word == "elif":
            return self._decide(rest), ""
        if self._blocks and word == "else":
            wanted = self._blocks[-1] is _Branch.WANTED
            self._blocks[-1] = _Branch.TAKEN if wanted else _Branch.OVER
        if self._blocks and word == "fi":
            self._blocks.pop()
        return False, rest if word in ("then", "else") else ""

    def _decide(self, condition: str) -> bool:
        """Enter or pass over the next branch; whether that was impossible to say."""
        if self._blocks[-1] is not _Branch.WANTED:
            self._blocks[-1] = _Branch.OVER
            return False
        truth = evaluate(condition, self._expand)
        if truth is None:
            self._blocks[-1] = _Branch.OVER
        elif truth:
            self._blocks[-1] = _Branch.TAKEN
        return truth is None


def _split(line: str) -> list[str]:
    """``line`` at each ``;`` that is not quoted."""
    parts = re.findall(r"""(?:[^;"']|"[^"]*"|'[^']*'|["'])+""", line)
    return [part.strip() for part in parts if part.strip()]


def evaluate(condition: str, expand: Expand) -> bool | None:
    """Whether a list of tests holds; None: a shell would have to say."""
    try:
        words = shlex.split(re.sub(r"(&&|\|\|)", r" \1 ", condition))
    except ValueError:
        return None
    truth: bool | None = None
    joint, command = "", list[str]()
    for word in [*words, ";"]:
        if word not in ("&&", "||", ";"):
            command.append(expand(word))
            continue
        if joint == "" or truth is (joint == "&&"):
            truth = _command(command)
        if truth is None:
            return None
        joint, command = word, []
    return truth


def _command(words: list[str]) -> bool | None:
    positive, words = _without_not(words)
    truth = _plain_command(words)
    return None if truth is None else truth is positive


def _without_not(words: list[str]) -> tuple[bool, list[str]]:
    count = next((n for n, word in enumerate(words) if word != "!"), len(words))
    return count % 2 == 0, words[count:]


def _plain_command(words: list[str]) -> bool | None:
    if words in (["true"], [":"]):
        return True
    if words == ["false"]:
        return False
    if words[:1] == ["test"]:
        return _test(words[1:])
    if (words[:1], words[-1:]) in ((["["], ["]"]), (["[["], ["]]"])):
        return _test(words[1:-1])
    return None


def _test(words: list[str]) -> bool | None:
    positive, words = _without_not(words)
    truth = _plain_test(words)
    return None if truth is None else truth is positive


def _plain_test(words: list[str]) -> bool | None:
    match words:
        case []:
            return False
        case [word]:
            return word != ""
        case ["-n", word]:
            return word != ""
        case ["-z", word]:
            return word == ""
        case [operator, word] if operator in _FILE_TESTS:
            return "\0" not in word and _FILE_TESTS[operator](Path(word))
        case [left, "=" | "==", right]:
            return left == right
        case [left, "!=", right]:
            return left != right
    return None
