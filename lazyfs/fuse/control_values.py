"""Arguments and answers of control commands."""

from __future__ import annotations

from lazyfs.errors import ControlError

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def no_more(words: list[str]) -> None:
    """Accept only the end of a command.

    Raises:
        ControlError: there are more words.
    """
    if words:
        raise ControlError(f"the command takes no such argument: {' '.join(words)!r}")


def number(text: str) -> int:
    """A whole number, not negative.

    Raises:
        ControlError: it is none.
    """
    if not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise ControlError(f"not a number: {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """A number of seconds.

    Raises:
        ControlError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise ControlError(f"not a number of seconds: {text!r}")
    return value
